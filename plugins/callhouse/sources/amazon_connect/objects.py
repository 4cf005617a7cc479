"""Files of JSON objects: one per line, or one after the other without a separator."""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import Any

import msgspec

from callhouse.sources.amazon_connect import frames
from callhouse.sources.contract import (
    CUT_OFF,
    Batch,
    FileLayout,
    Inspection,
    Record,
    RefusedError,
    Rejected,
    Unreadable,
)
from callhouse.sources.files import HeldFile, LineFile

Json = dict[str, Any]
Row = dict[str, Any]

# Streams limit a record to 10 MiB; a longer piece without a line end is cut between its objects.
LONGEST_OBJECT = 16 << 20
OBJECTS_AT_ONCE = 20_000
SPACE = re.compile(r"[ \t\r\n,]*")
# UTF-8 that is none survives as lone surrogates, so that quarantine gets the very bytes back.
BYTES = ("utf-8", "surrogateescape")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _no_fraction(text: str) -> float:
    raise ValueError(f"{text} is no whole number")


DECODER = json.JSONDecoder(parse_constant=_no_constant)
# In half of DECODER's time.
WHOLE = msgspec.json.Decoder()
WITHOUT_FRACTIONS = msgspec.json.Decoder(float_hook=_no_fraction)


def whole(line: bytes) -> tuple[Json | None, bool]:
    """The one object that a line is, and whether it is plain (`Found`).

    None for anything else, of which DECODER tells what it is.
    """
    is_plain = line.isascii() and b"\\" not in line and b"\x7f" not in line
    for decoder in (WITHOUT_FRACTIONS, WHOLE) if is_plain else (WHOLE,):
        try:
            content = decoder.decode(line)
        except (ValueError, RecursionError):
            continue
        is_object = isinstance(content, dict)
        return content if is_object else None, is_plain and decoder is WITHOUT_FRACTIONS
    return None, False


@dataclass(slots=True)
class Found:
    """An object with its number in the file, and the line it stands in.

    Of a plain one every writer of JSON makes the same: ASCII without escapes, and no fractions.
    """

    number: int
    line: int
    content: Json
    text: str
    is_plain: bool = False

    @property
    def has_bad_text(self) -> bool:
        """Whether texts may hold what PostgreSQL cannot store."""
        if self.is_plain:
            return False
        has_escape = "\\" in self.text and ("\\u0000" in self.text or "\\ud" in self.text.lower())
        return has_escape or not _is_clean(self.text)


@dataclass
class Objects:
    """Some objects of a file, each as its row or why it makes none."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)  # as frames.typed takes them
    rejected: list[Rejected] = field(default_factory=list)
    broken: list[Rejected] = field(default_factory=list)  # what stands there instead of objects
    blank_lines: int = 0


class ObjectFile(LineFile, ABC):
    """One open file of JSON objects. Objects are numbered from 1, broken ones included."""

    record: Record

    @cached_property
    def _values(self) -> Callable[[Row], tuple[Any, ...]]:
        """Takes what stands in a column of the frame out of a row, which has all of them."""
        return itemgetter(*frames.schema(self.record))

    @abstractmethod
    def read(self, found: Found) -> Row | tuple[str, str]:
        """The row of an object, or (code, reason) why it makes none."""

    def batches(self, seen: Inspection) -> Iterator[Batch]:
        """Rows, some thousands at once."""
        for objects, position in self._objects(seen.size_bytes):
            yield self._batch(objects, position)

    def again(self, kept: Sequence[Rejected], layout: FileLayout | None) -> Batch:
        """Objects that were set aside. What is no whole object stays so, whatever the feed says."""
        del layout  # an object says all
        objects = Objects()
        for row in kept:
            text = row.content.decode(*BYTES)
            try:
                content, end = DECODER.raw_decode(text)
            except (ValueError, RecursionError):
                content, end = None, 0
            if not isinstance(content, dict) or end < len(text):
                objects.broken.append(row)
                continue
            # Only the reason tells the line in which the object stood.
            line = row.reason.removeprefix(f"{self.name} line ").partition(":")[0]
            line_number = int(line) if line.isdecimal() else row.line_number
            self._take(objects, Found(row.line_number, line_number, content, text))
        return self._batch(objects, 1.0)

    def _take(self, objects: Objects, found: Found) -> None:
        """Read an object at once: of thousands that wait, the processor would have lost each."""
        try:
            row = self.read(found)
        except RecursionError:
            row = "broken_json", "is nested too deeply"
        if isinstance(row, tuple):
            rejected = self._rejected(found.number, found.line, *row, found.text)
            objects.rejected.append(rejected)
        else:
            objects.rows.append(self._values(row))

    def _batch(self, objects: Objects, position: float) -> Batch:
        rejected = [*objects.broken, *objects.rejected]
        return Batch(
            frames.typed(objects.rows, self.record),
            rejected,
            read=len(objects.rows) + len(rejected),
            blank_lines=objects.blank_lines,
            position=position,
        )

    def inspect(self) -> Inspection:
        """Hash the content; an empty file has nothing to land."""
        digest = hashlib.sha256()
        size = 0
        for chunk in self._chunks():
            digest.update(chunk)
            size += len(chunk)
        if not size:
            raise RefusedError(f"{self.name} is empty: get the file again, or remove it")
        return Inspection(digest.hexdigest(), size, self._stat())

    def _objects(self, size_bytes: int) -> Iterator[tuple[Objects, float]]:
        """Every object, some thousands at once, and the share of the file they end at."""
        batch, number, done = Objects(), 0, 0
        for line_number, line, is_cut in self._lines():
            done += len(line) + 1
            text = line.decode(*BYTES)
            place = SPACE.match(text, 0).end()  # type: ignore[union-attr]  # matches nothing, too
            batch.blank_lines += place == len(text)
            content: Any
            content, is_plain = whole(line)
            end = 0 if content is None else len(text.rstrip())
            while place < len(text):
                number += 1
                try:
                    if not end > place:
                        content, end = DECODER.raw_decode(text, place)
                    fault = None if isinstance(content, dict) else "is no JSON object"
                except (ValueError, RecursionError) as error:
                    content, end = None, text.find("}{", place) + 1 or len(text)
                    fault = f"is broken JSON ({' '.join(str(error).split())[:100]})"
                if fault is None:
                    found = Found(number, line_number, content, text[place:end], is_plain)
                    self._take(batch, found)
                else:
                    is_end = is_cut and end == len(text)
                    batch.broken.append(
                        self._rejected(
                            number,
                            line_number,
                            CUT_OFF if is_end else "broken_json",
                            "the file ends within this object" if is_end else fault,
                            text[place:end],
                        )
                    )
                place = SPACE.match(text, end).end()  # type: ignore[union-attr]
                if len(batch.rows) + len(batch.rejected) >= OBJECTS_AT_ONCE:
                    yield batch, min(1.0, done / size_bytes)
                    batch = Objects()
        yield batch, 1.0

    def _rejected(self, number: int, line: int, code: str, reason: str, text: str) -> Rejected:
        """An object for quarantine; the reason names the line."""
        content = text.encode(*BYTES)
        return Rejected(number, code, f"{self.name} line {line}: {reason}", None, content)

    def _lines(self) -> Iterator[tuple[int, bytes, bool]]:
        """(number, bytes, whether the file ends in it) of each line; a very long one in parts."""
        number, rest = 1, b""
        for chunk in self._chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield number, line, False
                number += 1
            if len(rest) > LONGEST_OBJECT:
                end = _end_of_objects(rest)
                if not end:
                    raise RefusedError(
                        f"{self.name} line {number} has {LONGEST_OBJECT >> 20} MiB that are no "
                        "JSON object: check what the export wrote"
                    )
                yield number, rest[:end], False
                rest = rest[end:]
        if rest:
            yield number, rest, True


class PushedObjects(HeldFile, ObjectFile, ABC):
    """Objects that were pushed, each as its text."""

    def hold(self, items: Sequence[str | Unreadable], content_hash: str) -> None:
        """Take what was pushed in the place of a file."""
        self.items = items
        texts = (item if isinstance(item, str) else item.content.decode(*BYTES) for item in items)
        self.content = "\n".join(texts).encode(*BYTES)
        self.content_hash = content_hash

    def _objects(self, size_bytes: int) -> Iterator[tuple[Objects, float]]:  # noqa: ARG002
        objects = Objects()
        for number, item in enumerate(self.items, 1):
            if isinstance(item, Unreadable):
                text = item.content.decode(*BYTES)
                rejected = self._rejected(number, number, item.code, item.reason, text)
                objects.broken.append(rejected)
            else:
                self._take(objects, Found(number, number, json.loads(item), item))
        yield objects, 1.0


def _end_of_objects(content: bytes) -> int:
    """Length of the whole objects that `content` begins with."""
    text = content[: content.rfind(b"}") + 1].decode(*BYTES)
    end = 0
    try:
        while end < len(text):
            _, end = DECODER.raw_decode(text, SPACE.match(text, end).end())  # type: ignore[union-attr]
    except (ValueError, RecursionError):
        pass  # the last one goes on behind the cut
    return len(text[:end].encode(*BYTES))


def _is_clean(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def cleaned(value: Any) -> Any:
    """`value` without NUL and lone surrogates in its texts."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {cleaned(key): cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    return value
