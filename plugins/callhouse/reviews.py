"""The quality check: abnormal calls wait for a person's look, and leave with what was found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import psycopg

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.security import check_person, login_password, redaction
from callhouse.settings import Settings

VERDICTS = ("confirmed", "harmless", "bad_data")
LONGEST_NOTE = 500


@dataclass(frozen=True)
class Check:
    """A call and a rule that it breaks, as bi.quality_checks tells it."""

    call_key: str
    business_day: date
    agent_name: str
    queue_name: str
    rule: str
    rule_version: int
    component: str
    comparison: str
    threshold: Decimal
    measured: Decimal
    reason: str


COLUMNS = tuple(Check.__dataclass_fields__)


def waiting(
    settings: Settings,
    person: str | None = None,
    *,
    rule: str | None = None,
    days: tuple[date | None, date | None] = (None, None),
    limit: int = 50,
) -> list[Check]:
    """What is not reviewed, the newest first; of half-open `days`, with `person` of their calls."""
    statement = (
        f"select {', '.join(COLUMNS)} from bi.quality_checks "  # noqa: S608
        "where business_day >= coalesce(%s, '-infinity'::date) "
        "and business_day < coalesce(%s, 'infinity'::date) and rule = coalesce(%s, rule) "
        "order by arrived_at desc, anomaly_key limit %s"
    ).encode()
    with _connection(settings, person) as connection:
        rows = connection.execute(statement, [*days, rule, limit]).fetchall()
    return [Check(*row) for row in rows]


def done(
    settings: Settings,
    call: str,
    rule: str,
    verdict: str,
    note: str | None,
    account: str,
    person: str | None = None,
) -> str:
    """A person, or else the operator `account`, has looked at a call; a sentence says so.

    A person may do so only where they see the call and answer for others (lead or manager).
    Numbers and names in the note are redacted.
    """
    if verdict not in VERDICTS:
        raise CallhouseError(f"--verdict {verdict!r} is not one of {', '.join(VERDICTS)}")
    if note and len(note) > LONGEST_NOTE:
        raise CallhouseError(f"a note has at most {LONGEST_NOTE} characters, this one {len(note)}")
    kept = redaction.redacted(note)[:LONGEST_NOTE] if note else None
    with _connection(settings, person) as connection:
        if person:
            # Personal logins begin read-only; what they may write, functions decide.
            connection.execute("set transaction read write")
            try:
                (versions,) = warehouse.one(
                    connection,
                    "select sec.review_call(%s, %s, %s, %s)",
                    [call, rule, verdict, kept],
                )
            except (psycopg.errors.NoDataFound, psycopg.errors.InsufficientPrivilege) as problem:
                raise CallhouseError(str(problem.diag.message_primary)) from None
        else:
            versions = [
                version
                for (version,) in connection.execute(
                    "insert into ops.quality_reviews "
                    "(call_key, rule, rule_version, verdict, note, reviewed_by) "
                    "select call_key, rule, rule_version, %s, %s, %s from bi.quality_checks "
                    "where call_key = %s and rule = %s on conflict do nothing "
                    "returning rule_version",
                    [verdict, kept, account, call, rule],
                )
            ]
            if not versions:
                raise CallhouseError(
                    f"no open check of {call} by rule {rule}: `./callhouse review list` lists them"
                )
    version = ", ".join(map(str, versions))
    return f"{call}, rule {rule} version {version}: {verdict}, reviewed by {person or account}"


def _connection(settings: Settings, person: str | None) -> Any:
    if person is None:
        return warehouse.connect(settings)
    return warehouse.connect_as(settings, check_person(person), login_password(settings, person))
