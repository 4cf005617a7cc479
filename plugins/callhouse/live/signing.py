"""Signatures of pushed requests: HMAC-SHA256 over the time and the body, with a secret per feed."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping

TIMESTAMP = "X-Callhouse-Timestamp"  # seconds since 1970
SIGNATURE = "X-Callhouse-Signature"  # v1= and the HMAC of `<timestamp>.<body>` in hex
VERSION = "v1="
# How far the clocks of sender and receiver may be apart: nobody can send a request again later.
WINDOW_SECONDS = 300


class UnauthorizedError(Exception):
    """The request cannot be taken for the sender's. `status` is 401 without credentials, or 403."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def secret_name(feed: str) -> str:
    """The feed's secret in the settings."""
    return f"receive_{feed}"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What stands in the header of a request with this body."""
    signed = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return VERSION + signed.hexdigest()


def headers(secret: str, body: bytes, now: float | None = None) -> dict[str, str]:
    """Both headers of a signed request."""
    timestamp = str(int(time.time() if now is None else now))
    return {TIMESTAMP: timestamp, SIGNATURE: signature(secret, timestamp, body)}


def verify(secrets: str, found: Mapping[str, str], body: bytes, now: float | None = None) -> None:
    """UnauthorizedError unless one of `secrets` has signed the body within the window.

    There are two, apart by white space, while a secret is changed.
    """
    timestamp, given = found.get(TIMESTAMP), found.get(SIGNATURE)
    if not timestamp or not given:
        raise UnauthorizedError(401, f"sign the request: {TIMESTAMP} and {SIGNATURE}")
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise UnauthorizedError(401, f"{TIMESTAMP} is no number of seconds since 1970")
    # All are compared: how long it takes tells nothing.
    matches = [_is_same(given, signature(secret, timestamp, body)) for secret in secrets.split()]
    if not any(matches):
        raise UnauthorizedError(403, "the signature does not fit the body and the timestamp")
    if abs((time.time() if now is None else now) - int(timestamp)) > WINDOW_SECONDS:
        raise UnauthorizedError(
            403, f"signed more than {WINDOW_SECONDS} s ago or ahead: sign anew, check the clock"
        )


def verify_key(secrets: str, given: str | None) -> None:
    """UnauthorizedError unless the request brings one of `secrets` itself."""
    if not given:
        raise UnauthorizedError(401, "send the feed's secret as X-API-Key")
    if not any([_is_same(given, secret) for secret in secrets.split()]):  # noqa: C419  # all
        raise UnauthorizedError(403, "the API key is not the feed's")


def _is_same(given: str, wanted: str) -> bool:
    # Bytes: compare_digest refuses texts beyond ASCII.
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())
