"""Fields of JSON objects as typed values; what cannot be read is told in `issues`."""

from __future__ import annotations

import datetime
import json
import math
import re
from functools import lru_cache
from typing import Any

import msgspec

from callhouse.sources.contract import LONGEST_SECONDS

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MICROSECOND = datetime.timedelta(microseconds=1)
# Seven digits and more, however they are set apart, may be somebody's number.
LONG_NUMBER = re.compile(r"\+?\d(?:[\s().\-/]*\d){6,}")
NO_NUMBER = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z?"
    r"|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|arn:aws[a-z-]*:connect:[A-Za-z0-9:/-]+"
)
MASK = "#######"
CODE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,40}")
SHORTEST_NUMBER = 4
# Leftovers of records, and bytes of one: the largest must not stay in memory.
REMEMBERED, LONGEST_REMEMBERED = 4096, 4096
ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True)


class Reading:
    """Takes fields out of one object. What nobody takes is left in it."""

    def __init__(self) -> None:
        self.issues: list[str] = []

    def text(self, content: dict[str, Any], key: str) -> str | None:
        """A text, None where there is none."""
        value = content.pop(key, None)
        if value is None:
            return None
        if isinstance(value, str):
            return value.strip() or None
        return None if isinstance(value, (dict, list)) else str(value).strip() or None

    def block(self, content: dict[str, Any], key: str) -> dict[str, Any]:
        """An object below; it stays, as far as nobody takes its fields."""
        value = content.get(key)
        return value if isinstance(value, dict) else {}

    def instant(self, content: dict[str, Any], key: str, name: str) -> int | None:
        """Microseconds since 1970. Times without a zone are UTC, as everything of the source."""
        value = self.text(content, key)
        return None if value is None else self.as_instant(value, name)

    def as_instant(self, value: str | None, name: str) -> int | None:
        """The same of a text."""
        if value is None:
            return None
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError:
            self.issues.append(f"unreadable:{name}")
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return (moment - EPOCH) // MICROSECOND

    def seconds(self, content: dict[str, Any], key: str, name: str) -> float | None:
        """A duration or another number that is not below zero."""
        return self.as_number(content.pop(key, None), name)

    def as_number(self, value: Any, name: str) -> float | None:
        """The same of a value."""
        if value is None or value == "":
            return None
        try:
            number = float(value) if not isinstance(value, (bool, dict, list)) else -1.0
        except (ValueError, OverflowError):
            number = -1.0
        if not 0 <= number < LONGEST_SECONDS:
            self.issues.append(f"unreadable:{name}")
            return None
        return number

    def known(self, value: str | None, codes: Any, name: str) -> str | None:
        """`value`, told where it is none of `codes`."""
        if value is not None and value not in codes:
            told = f"={value}" if CODE.fullmatch(value) else ""
            self.issues.append(f"unknown:{name}{told}")
        return value


def masked(text: str | None, secrets: tuple[str, ...] = ()) -> str | None:
    """`text` without long numbers and without the caller's."""
    if text is None:
        return None
    # What most texts are is told in half the time.
    has_secret = False
    for secret in secrets:
        has_secret = has_secret or secret in text
    if not (has_secret or LONG_NUMBER.search(text)) or NO_NUMBER.fullmatch(text):
        return text
    for secret in secrets:
        text = text.replace(secret, MASK)
    return LONG_NUMBER.sub(MASK, text)


def kept(
    value: dict[str, Any], secrets: tuple[str, ...] = (), *, is_plain: bool = False
) -> str | None:
    """`value` as JSON without long numbers and what is empty; None where nothing is left.

    Plain objects (`objects.Found`) are told by how they are written: what nobody takes out of a
    record is the same in most of them.
    """
    if is_plain:
        written = msgspec.json.encode(value)
        has_secret = any(secret.encode() in written for secret in secrets)
        if len(written) <= LONGEST_REMEMBERED and not has_secret:
            return _kept_of_plain(written)
    left = _kept(value, secrets)
    return None if left is None else ENCODER.encode(left)


@lru_cache(maxsize=REMEMBERED)
def _kept_of_plain(written: bytes) -> str | None:
    return kept(msgspec.json.decode(written))


def _kept(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        found = {
            str(masked(key, secrets)): left
            for key, item in value.items()
            if (left := _kept(item, secrets)) is not None
        }
        return found or None
    if isinstance(value, list):
        return [left for item in value if (left := _kept(item, secrets)) is not None] or None
    if isinstance(value, str):
        return masked(value, secrets) or None
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # written as 1e999: JSON can say it, but no reader takes it back
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        text = masked(repr(value), secrets)
        return value if text == repr(value) else text
    return value


def secrets_of(address: str | None) -> tuple[str, ...]:
    """How the caller's address may stand elsewhere."""
    if address is None or len(address) < SHORTEST_NUMBER:
        return ()
    digits = address.removeprefix("+")
    return (address, digits) if digits != address else (address,)


def team(groups: dict[str, Any], level: str | None) -> str | None:
    """Name of an agent's group at `level`, at the deepest one where none is named."""
    for key in (level,) if level else ("Level5", "Level4", "Level3", "Level2", "Level1"):
        group = groups.get(key)
        if isinstance(group, dict):
            # Contact records and agent events name this field differently.
            name = group.get("GroupName") or group.get("Name")
            if name:
                return str(name)
    return None


def reference(content: dict[str, Any], name: str = "Name") -> str | None:
    """What an ARN with a name stands for: the name, else the last part of the ARN."""
    value = content.get(name) or str(content.get("ARN") or "").rpartition("/")[2]
    return str(value) or None


def queue(content: dict[str, Any]) -> str | None:
    """A queue; an agent's personal one is none."""
    if "/queue/agent/" in str(content.get("ARN") or ""):
        return None
    return reference(content)
