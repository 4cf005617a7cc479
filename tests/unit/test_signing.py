"""Whose request it is: what is signed, when, and with which secret."""

from __future__ import annotations

import subprocess

import pytest

from callhouse.live import signing
from callhouse.live.signing import UnauthorizedError

SECRET, BODY, NOW = "of-the-feed", b'[{"call_id": "1"}]', 1_790_000_000.0


def test_what_was_signed_is_taken_within_the_window() -> None:
    headers = signing.headers(SECRET, BODY, NOW)
    for moment in (NOW, NOW + 300, NOW - 300):
        signing.verify(SECRET, headers, BODY, moment)
    signing.verify(f"new one\n{SECRET}", headers, BODY, NOW)  # while the secret is changed


@pytest.mark.parametrize(
    ("secret", "body", "change", "moment", "status"),
    [
        ("of another feed", BODY, {}, NOW, 403),
        (SECRET, BODY + b" ", {}, NOW, 403),
        (SECRET, BODY, {}, NOW + 301, 403),
        (SECRET, BODY, {}, NOW - 302, 403),
        # The time is signed, too: an old request cannot be made a new one.
        (SECRET, BODY, {signing.TIMESTAMP: str(int(NOW) + 600)}, NOW + 600, 403),
        (SECRET, BODY, {signing.TIMESTAMP: ""}, NOW, 401),
        (SECRET, BODY, {signing.TIMESTAMP: "\u0661\u0662"}, NOW, 401),
        (SECRET, BODY, {signing.TIMESTAMP: "9" * 400}, NOW, 401),
        (SECRET, BODY, {signing.SIGNATURE: ""}, NOW, 401),
        (SECRET, BODY, {signing.SIGNATURE: "v1="}, NOW, 403),
        (SECRET, BODY, {signing.SIGNATURE: "v1=\udcff"}, NOW, 403),
    ],
)
def test_what_was_not_is_refused(
    secret: str, body: bytes, change: dict[str, str], moment: float, status: int
) -> None:
    headers = signing.headers(SECRET, BODY, NOW) | change
    with pytest.raises(UnauthorizedError) as refused:
        signing.verify(secret, headers, body, moment)
    assert refused.value.status == status


def test_no_secret_signs_nothing() -> None:
    """An empty secret, however it came about, must not be one that everybody has."""
    with pytest.raises(UnauthorizedError):
        signing.verify("", signing.headers("", BODY, NOW), BODY, NOW)
    for given in ("", None):
        with pytest.raises(UnauthorizedError):
            signing.verify_key("", given)


def test_the_documented_command_signs_the_same() -> None:
    signed = subprocess.run(
        ["openssl", "dgst", "-sha256", "-hmac", SECRET], input=b"1790000000." + BODY,
        capture_output=True, check=True,
    ).stdout.split()[-1].decode()  # fmt: skip
    assert signing.headers(SECRET, BODY, NOW)[signing.SIGNATURE] == f"v1={signed}"


@pytest.mark.parametrize(("given", "status"), [(None, 401), ("", 401), ("of another", 403)])
def test_an_api_key_is_the_secret(given: str | None, status: int) -> None:
    signing.verify_key(f"new {SECRET}", SECRET)
    with pytest.raises(UnauthorizedError) as refused:
        signing.verify_key(SECRET, given)
    assert refused.value.status == status
