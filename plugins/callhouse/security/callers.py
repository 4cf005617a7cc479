"""Callers' numbers: masks."""

from __future__ import annotations

from callhouse import warehouse
from callhouse.settings import Settings

ROWS_AT_ONCE = 20_000


def fill_masks(settings: Settings) -> int:
    """Give a mask to callers that were landed before masks were kept; returns how many."""
    filled = 0
    with warehouse.connect(settings) as connection:
        while rows := connection.execute(
            "select caller_token, kind, content from pii.callers where masked is null limit %s",
            [ROWS_AT_ONCE],
        ).fetchall():
            from callhouse.landing.callers import Cipher, masks

            decrypt = Cipher(settings).decrypt
            shown = masks([(kind, decrypt(content).decode()) for _, kind, content in rows])
            connection.execute(
                "update pii.callers as c set masked = f.masked "
                "from unnest(%s::uuid[], %s::text[]) as f (token, masked) "
                "where c.caller_token = f.token",
                [[token for token, _, _ in rows], shown],
            )
            filled += len(rows)
    return filled
