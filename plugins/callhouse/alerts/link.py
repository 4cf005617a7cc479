"""The link by which an alert is acknowledged. Standard library only: Superset imports it, too.

It carries a signature, so that nobody counts through alerts; who may take one up is decided by the
scopes of the person who is logged in.
"""

from __future__ import annotations

import hashlib
import hmac

from callhouse.settings import Settings

ADDRESS = "/alerts/"


def token(settings: Settings, alert_id: int) -> str:
    """`<alert>-<signature>`. No person's name has a space: the key serves both without a clash."""
    key = settings.secret("people_key").encode()
    signature = hmac.new(key, f"acknowledge alert {alert_id}".encode(), hashlib.sha256)
    return f"{alert_id}-{signature.hexdigest()[:32]}"


def alert_of(settings: Settings, text: str) -> int | None:
    """The alert that a token is of; None where it is not one of ours."""
    number = text.partition("-")[0]
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        return None
    alert_id = int(number)
    is_ours = hmac.compare_digest(token(settings, alert_id).encode(), text.encode())
    return alert_id if is_ours else None


def url(settings: Settings, alert_id: int) -> str:
    """The page of an alert."""
    return f"{settings.superset_url}{ADDRESS}{token(settings, alert_id)}"
