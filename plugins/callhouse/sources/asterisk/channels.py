"""What call detail records and channel events share: lines, times, who is who, what is masked.

A caller's number may stand in nearly every column: as caller id, in the name of a channel, in what
an application was given, in free text. Caller ids become tokens, names of callers are dropped, and
elsewhere every digit of a text that holds six in a row is masked. What fits `internal` or
`hotlines` is nobody's private number and stays.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import polars as pl

from callhouse.sources.asterisk.exchange import Feed, Numbering
from callhouse.sources.contract import (
    CUT_OFF,
    LONGEST_SECONDS,
    Batch,
    FileLayout,
    Inspection,
    Record,
    Rejected,
)
from callhouse.sources.files import LineFile

NO_CALLER = ("", "anonymous", "unknown", "unavailable", "restricted", "<unknown>", "s", "-", "none")
EPOCH = r"^[0-9]{9,11}(\.[0-9]{1,9})?$"
CREATED = r"(?:^|-)([0-9]{9,11})\.[0-9]+$"  # a unique id tells when its channel was made
# Digits that may be a number, also where it is written with separators.
BARE_NUMBER = r"^\+?\d{6,}$"
LONG_NUMBER = r"\d(?:[ ().\-/]{0,2}\d){5,}"
NUMBER = r"^\d+$"
CHANNEL = r"^(?<technology>[^/]+)/(?<party>.+?)(?<suffix>-[0-9A-Fa-f]{1,8}(?:;[12])?)?$"
TOLERANCE = 2.0  # seconds; ruling 1 of the metric definitions
MICRO = 1_000_000

Reasons = dict[str, tuple[pl.Expr, str]]


class ChannelFile(LineFile, ABC):
    """One open file of quoted, comma-separated lines without a header."""

    def __init__(self, path: Path, feed: Feed) -> None:
        super().__init__(path)
        self.feed, self.notes = feed, list[str]()
        self.record: Record = feed.record
        self.caller = feed.caller
        self.layouts = {len(layout): layout for layout in feed.layouts}
        self._names = sorted({name for layout in feed.layouts for name in layout} - {"-"})

    def batches(self, seen: Inspection) -> Iterator[Batch]:
        """Rows, block by block."""
        start, done = 1, 0
        for block in self._blocks():
            done += len(block)
            lines = block.split(b"\n")
            cut = lines.pop()
            parsed = _Lines(self)
            parsed.take(lines, start)
            if cut:  # a whole file ends with a line end; even a whole-looking number may go on
                parsed.take_cut(cut, start + len(lines))
            yield self._convert(parsed, done / seen.size_bytes)
            start += len(lines)

    def again(self, kept: Sequence[Rejected], layout: FileLayout | None) -> Batch:
        """Lines that were set aside: the columns of today's feed are tried by their number."""
        del layout  # a line says all
        parsed = _Lines(self)
        for row in kept:
            parsed.take([row.content], row.line_number)
        return self._convert(parsed, 1.0)

    def _convert(self, parsed: _Lines, position: float) -> Batch:
        frame = self._typed(parsed.frame(self._names))
        code = reason = pl.lit(None, pl.String)
        for name, (flag, sentence) in reversed({**self._day_reasons(), **self._reasons()}.items()):
            code = pl.when(flag.fill_null(True)).then(pl.lit(name)).otherwise(code)
            reason = pl.when(flag.fill_null(True)).then(pl.lit(sentence)).otherwise(reason)
        bad = frame.select("line_number", code.alias("code"), reason.alias("reason"))
        bad = bad.drop_nulls("code")
        for number, name, sentence in bad.iter_rows():
            parsed.reject(number, name, sentence)
        rows = frame.join(bad, on="line_number", how="anti", maintain_order="left")
        columns = [item.name for item in self.record.fields]
        return Batch(
            rows.select("line_number", "row_hash", *columns, "data_issues", "business_day"),
            parsed.rejected,
            read=parsed.read,
            blank_lines=parsed.blank,
            position=position,
        )

    @abstractmethod
    def _typed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The record's columns, from one text per column of the layouts (null: not there)."""

    @abstractmethod
    def _reasons(self) -> Reasons:
        """Why a line is no row, by code."""

    def _day_reasons(self) -> Reasons:
        tomorrow = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
        first, last = self.feed.plausible_from, self.feed.plausible_to or tomorrow
        day = pl.col("business_day")
        return {
            "unreadable_time": (
                pl.col("event_at").is_null(),
                "has no time where one belongs: check the columns, and 'times', in "
                + self.feed.file.name,
            ),
            # The ids stand in clear: by a shift of columns a caller's number could get there.
            "unreadable_id": (
                pl.any_horizontal(
                    pl.col("unique_id", "linked_id").str.contains(BARE_NUMBER).fill_null(False)
                ),
                "has a bare number as uniqueid or linkedid: columns may be shifted",
            ),
            "implausible_day": (
                (day < first) | (day > last),
                f"lies outside {first} to {last}: see 'plausible_days' of feed {self.feed.name}",
            ),
        }


class _Lines:
    """Lines of a block, split into cells; those that cannot be are rejected."""

    def __init__(self, file: ChannelFile) -> None:
        self._name, self._layouts = file.name, file.layouts
        self._feed_file = file.feed.file.name
        self.contents: dict[int, bytes] = {}
        self.rejected: list[Rejected] = []
        self.read = self.blank = 0
        self._cells: list[tuple[int, list[str]]] = []

    def take(self, lines: Sequence[bytes], start: int) -> None:
        """Split `lines`, of which the first has number `start`."""
        numbers, texts = [], []
        for number, line in enumerate(lines, start):
            content = line.removesuffix(b"\r")
            if not content.strip():
                self.blank += 1
                continue
            self.read += 1
            self.contents[number] = content
            if b"\0" in content:
                self.reject(number, "nul_byte", "holds NUL bytes: check the disk")
            elif content.count(b'"') % 2:
                self.reject(
                    number, "open_quote", "has a quote that does not end: check what wrote it"
                )
            else:
                numbers.append(number)
                texts.append(content.decode("utf-8", "replace"))
        # Every line is closed by itself, so one line is one row.
        for number, cells in zip(numbers, csv.reader(texts), strict=True):
            if len(cells) in self._layouts:
                self._cells.append((number, cells))
            else:
                self.reject(number, "column_count", self._count(cells))

    def take_cut(self, line: bytes, number: int) -> None:
        """Set the end of a file aside that is no whole line."""
        self.read += 1
        self.contents[number] = line
        self.reject(
            number, CUT_OFF, "the file ends within this line: it lands with the complete file"
        )

    def reject(self, number: int, code: str, sentence: str) -> None:
        """Set a line aside."""
        reason = f"{self._name} line {number}: {sentence}"
        self.rejected.append(Rejected(number, code, reason, None, self.contents[number]))

    def _count(self, cells: list[str]) -> str:
        counts = ", ".join(map(str, sorted(self._layouts)))
        return (
            f"has {len(cells)} columns instead of {counts}: name them under 'columns' in "
            f"{self._feed_file}, or check what wrote it"
        )

    def frame(self, names: Sequence[str]) -> pl.DataFrame:
        """One text column per name; what a line's layout lacks is null, and so is empty text."""
        schema = {"line_number": pl.Int64, **dict.fromkeys(names, pl.String)}
        frames = [pl.DataFrame(schema=schema)]
        by_size = sorted(self._cells, key=lambda item: len(item[1]))  # keeps the lines' order
        for size, group in groupby(by_size, key=lambda item: len(item[1])):
            numbers, cells = zip(*group, strict=True)
            columns = dict(zip(self._layouts[size], zip(*cells, strict=True), strict=False))
            columns.pop("-", None)
            frames.append(pl.DataFrame({"line_number": numbers, **columns}))
        frame = pl.concat(frames, how="diagonal_relaxed").cast(schema).sort("line_number")
        hashes = [
            hashlib.md5(self.contents[number]).digest()  # noqa: S324  # no secret
            for number in frame.get_column("line_number")
        ]
        return frame.with_columns(
            pl.col(names).str.strip_chars().replace("", None),
            pl.Series("row_hash", hashes, pl.Binary),
            pl.any_horizontal(
                pl.col(names).str.contains("\ufffd", literal=True).fill_null(False)
            ).alias("is_garbled"),
        )


# ------------------------------------------------------------------------------ times
@dataclass(frozen=True)
class Moment:
    """A time as written, in microseconds since 1970: local clocks may mean one of two."""

    first: pl.Expr
    second: pl.Expr

    @property
    def is_ambiguous(self) -> pl.Expr:
        """Whether the local time happened twice."""
        return (self.first != self.second).fill_null(False)

    def nearest(self, guess: pl.Expr) -> pl.Expr:
        """The one of the two that is nearer to `guess`; the first where there is none."""
        is_second = ((self.second - guess).abs() < (self.first - guess).abs()).fill_null(False)
        return pl.when(is_second).then(self.second).otherwise(self.first)


def moment(column: str, zone: str) -> Moment:
    """Epoch seconds, or a date and time in `zone`."""
    text = pl.col(column)
    seconds = pl.when(text.str.contains(EPOCH)).then(text).cast(pl.Float64, strict=False)
    epoch = (seconds * MICRO).round().cast(pl.Int64)
    naive = text.str.replace("T", " ", literal=True).str.to_datetime(
        "%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False
    )

    def local(ambiguous: str) -> pl.Expr:
        aware = naive.dt.replace_time_zone(zone, ambiguous=ambiguous, non_existent="null")
        return pl.coalesce(epoch, aware.dt.epoch("us"))

    return Moment(local("earliest"), local("latest"))


def created_at() -> pl.Expr:
    """When the channel was made, by its unique id, in microseconds; null where it does not say."""
    unique = pl.coalesce("uniqueid", "linkedid").str.extract(CREATED)
    return unique.cast(pl.Int64, strict=False) * MICRO


def seconds(column: str) -> pl.Expr:
    """A reported duration; null where it is negative or no number."""
    value = pl.col(column).cast(pl.Float64, strict=False)
    return pl.when((value >= 0) & (value < LONGEST_SECONDS)).then(value)


def local_day(feed: Feed) -> pl.Expr:
    """The day of `event_at` where the exchange stands."""
    at = pl.col("event_at").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return at.dt.convert_time_zone(feed.time_zone).dt.date().alias("business_day")


# ------------------------------------------------------------------------------ who is who
@dataclass(frozen=True)
class Parties:
    """Whose channel and number something is, by the exchange's numbering."""

    numbering: Numbering

    def is_internal(self, text: pl.Expr) -> pl.Expr:
        """Whether this is an extension of the house."""
        return self._fits(text, self.numbering.internal)

    def is_hotline(self, text: pl.Expr) -> pl.Expr:
        """Whether this is a number that customers call."""
        return self._fits(text, self.numbering.hotlines)

    def _fits(self, text: pl.Expr, pattern: str) -> pl.Expr:
        if not pattern:
            return pl.lit(False)
        return text.str.contains(f"^(?:{pattern})$").fill_null(False)

    def party(self, channel: pl.Expr) -> pl.Expr:
        """Endpoint of a channel: `1001` of PJSIP/1001-0000002a and of Local/1001@agents-2a;1."""
        return channel.str.extract(CHANNEL, 2).str.split("@").list.first()

    def has_agent(self, channel: pl.Expr) -> pl.Expr:
        """Whether the channel leads to an extension of the house."""
        return self.is_internal(self.party(channel))

    def agent(self, channel: pl.Expr) -> pl.Expr:
        """The id of the agent as the queue log has it, null for channels of others."""
        parts: list[pl.Expr] = []
        for piece in self.numbering.agent.replace("}", "{").split("{"):
            match piece:
                case "technology":
                    parts.append(channel.str.extract(CHANNEL, 1))
                case "party":
                    parts.append(self.party(channel))
                case _:
                    parts.append(pl.lit(piece))
        return pl.when(self.has_agent(channel)).then(pl.concat_str(parts))

    def customer(self, *candidates: pl.Expr) -> pl.Expr:
        """The first that can be a customer's number."""
        return pl.coalesce(
            pl.when(
                ~text.str.to_lowercase().is_in(NO_CALLER)
                & ~self.is_internal(text)
                & ~self.is_hotline(text)
            ).then(text)
            for text in candidates
        )

    def by_context(self, context: pl.Expr, otherwise: pl.Expr) -> pl.Expr:
        """The direction that the exchange's contexts decide, else `otherwise`."""
        found = dict(self.numbering.contexts)
        return context.replace_strict(found, default=None, return_dtype=pl.String).fill_null(
            otherwise
        )

    def kind(self, application: pl.Expr) -> pl.Expr:
        """What an application does for a caller, where it does anything."""
        found = dict(self.numbering.applications)
        return application.str.to_lowercase().replace_strict(
            found, default=None, return_dtype=pl.String
        )

    def masked(self, text: pl.Expr) -> pl.Expr:
        """The text with its digits masked where it may hold somebody's number."""
        may_be = text.str.contains(LONG_NUMBER) & ~self.is_internal(text) & ~self.is_hotline(text)
        return pl.when(may_be).then(text.str.replace_all(r"\d", "#")).otherwise(text)

    def masked_channel(self, channel: pl.Expr) -> pl.Expr:
        """The channel's name with its endpoint masked; the suffix is a counter."""
        party = channel.str.extract(CHANNEL, 2)
        named = pl.concat_str(
            channel.str.extract(CHANNEL, 1),
            pl.lit("/"),
            pl.when(self.has_agent(channel)).then(party).otherwise(self.masked(party)),
            channel.str.extract(CHANNEL, 3).fill_null(""),
        )
        return pl.coalesce(named, self.masked(channel))


def issues(*found: pl.Expr) -> pl.Expr:
    """Issues of a row, comma-separated; null where there are none."""
    both = pl.concat_str(*found, separator=",", ignore_nulls=True)
    return both.replace("", None).alias("data_issues")


def issue(flag: pl.Expr, name: str) -> pl.Expr:
    """The issue where the flag holds."""
    return pl.when(flag.fill_null(False)).then(pl.lit(name))
