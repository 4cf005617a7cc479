"""A feed's YAML, written by a data engineer and checked key by key.

Every scalar is read as text (no YAML 1.1 surprises: `NO` stays NO and `0:00:00` stays 0:00:00).
"""

from __future__ import annotations

import datetime
import difflib
import re
import zoneinfo
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from callhouse.errors import CallhouseError

# How files come, when, and what for, is no vendor's business: the registry reads it, every feed may
# say it.
DELIVERY = ("location", "marts", "receive", "tail", "watch")


class _Loader(yaml.BaseLoader):
    """Text scalars only, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key.value}' is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class Node:
    """A mapping in the YAML file that knows where it is, and which of its keys were used."""

    def __init__(self, file: Path, path: str, value: object) -> None:
        self.file, self.path = file, path
        if not isinstance(value, dict):
            raise self.error("", "must be a block of 'key: value' lines")
        self.value: dict[str, Any] = value
        self.used: list[str] = []

    def error(self, key: str, problem: str) -> CallhouseError:
        """A sentence that names file, key and problem."""
        where = ".".join(part for part in (self.path, key) if part)
        return CallhouseError(f"{self.file.name}: {where or 'the file'}: {problem}")

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self.value

    def raw(self, key: str, default: Any = None) -> Any:
        """The value as it is; a key without default must be there."""
        self.used.append(key)
        if key not in self.value and default is None:
            raise self.error("", f"key '{key}' is missing: add it")
        return self.value.get(key, default)

    def text(self, key: str, default: str | None = None, choices: tuple[str, ...] = ()) -> str:
        """One text, one of `choices` if there are any."""
        value = self.raw(key, default)
        if not isinstance(value, str):
            raise self.error(key, "must be one value, not a list or block")
        if choices and value not in choices:
            listed = ", ".join(choices) + near(value, choices)
            raise self.error(key, f"'{value}' is not one of {listed}")
        return value

    def number(self, key: str, default: str) -> float:
        """A number."""
        value = self.text(key, default)
        try:
            return float(value)
        except ValueError:
            raise self.error(key, f"'{value}' is no number") from None

    def date(self, key: str) -> datetime.date | None:
        """A day, None where there is none."""
        value = self.text(key, "")
        try:
            return datetime.date.fromisoformat(value) if value else None
        except ValueError:
            raise self.error(key, f"'{value}' is no date: write YYYY-MM-DD") from None

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A text or a list of them."""
        value = self.raw(key, default)
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or not all(isinstance(i, str) for i in items):
            raise self.error(key, "must be a value or a list of values")
        return tuple(items)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """A block of texts by name."""
        value = self.raw(key, {})
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise self.error(key, "must be a block of 'code: meaning' lines")
        return tuple(value.items())

    def blocks(self, key: str, default: list[Any] | None = None) -> list[Node]:
        """A list of blocks."""
        value = self.raw(key, default)
        if not isinstance(value, list):
            raise self.error(key, "must be a list: start each entry with '- '")
        return [
            Node(self.file, f"{self.path + '.' if self.path else ''}{key}[{i + 1}]", item)
            for i, item in enumerate(value)
        ]

    def block(self, key: str, default: dict[str, Any] | None = None) -> Node:
        """A block below this one."""
        path = f"{self.path}.{key}" if self.path else key
        return Node(self.file, path, self.raw(key, default))

    def finish(self, *, allowed: tuple[str, ...] = ()) -> None:
        """Refuse every key that nothing asked for."""
        known = [*self.used, *allowed, *(() if self.path else DELIVERY)]
        for key in self.value:
            if key not in known:
                listed = ", ".join(sorted(set(known)))
                raise self.error(key, f"unknown key{near(key, known)}; known here: {listed}")


def near(word: str, choices: Any) -> str:
    """A hint at the choice that `word` nearly is, or nothing."""
    found = difflib.get_close_matches(word, list(choices), 1)
    return f" (did you mean '{found[0]}'?)" if found else ""


@lru_cache(maxsize=256)
def _parsed(text: str) -> object:
    """A text is parsed once: mappings are looked at again and again, and nobody changes them."""
    return yaml.load(text, _Loader)  # noqa: S506


def read(file: Path) -> Node:
    """The document in `file`; CallhouseError where it is no YAML or no block."""
    try:
        document = _parsed(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise CallhouseError(f"{file.name} is no valid YAML: {problem}") from None
    return Node(file, "", document)


def feed_name(node: Node) -> str:
    """The feed's name, which is also the file's."""
    name = node.text("feed")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise node.error("feed", f"'{name}': use lower-case letters, digits and _, a letter first")
    if name != node.file.stem:
        raise node.error(
            "feed", f"'{name}' must be the file's name: rename the file to {name}.yaml"
        )
    return name


def time_zone(node: Node, default: str | None = None) -> str:
    """The zone of the feed's business days."""
    zone = node.text("time_zone", default)
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        raise node.error("time_zone", f"'{zone}' is no time zone: e.g. Asia/Shanghai") from None
    return zone


def country(node: Node, default: str | None = None) -> str:
    """The country of telephone numbers without prefix."""
    value = node.text("country", default)
    from phonenumbers import SUPPORTED_REGIONS  # takes long, and few feeds need it

    if value not in SUPPORTED_REGIONS:
        raise node.error("country", f"'{value}' is no country: e.g. CN")
    return value
