"""From rows of text to typed, coded rows of the intake contract. Column-wise throughout.

Each field becomes `t:<field>` (its text, null where missing) and `<field>` (its value); a field
whose text is there but whose value is not could not be read.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from callhouse.security.redaction import redacted
from callhouse.sources import contract, pushes
from callhouse.sources.contract import Batch, FileLayout, Inspection, Rejected, Unreadable
from callhouse.sources.delimited import objects, records, zones
from callhouse.sources.delimited.mapping import Clock, Column, Condition, Feed, RecordMapping
from callhouse.sources.delimited.reader import DelimitedFile, Header, RawRows
from callhouse.sources.files import HeldFile

TOLERANCE_SECONDS = 2  # METRICS.md, ruling 1
# From so many rows on, nearly all of which say so, a duration's unit is another one.
FEWEST_TOLD, MOSTLY = 20, 0.9
DAY = 86_400 * zones.MICRO
# A value in a reason may be a caller's number that slipped into another column.
LONG_NUMBER = re.compile(r"\d{7,}")


def masked(text: str) -> str:
    """`text` without the digits of long numbers, except the first three."""
    return LONG_NUMBER.sub(lambda found: found[0][:3] + "#" * (len(found[0]) - 3), text)


@dataclass
class _Work:
    """The rows of one block on their way through the steps below."""

    frame: pl.DataFrame
    is_padded: bool
    # flag column, reason code, column of the file, rest of the sentence
    problems: list[tuple[str, str, str | None, str]] = field(default_factory=list)
    issues: list[pl.Expr] = field(default_factory=list)

    def any(self, flag: pl.Expr) -> bool:
        """Whether `flag` holds for some row."""
        return bool(self.frame.select(flag.fill_null(False).any()).item())

    def problem(self, flag: pl.Expr, code: str, column: str | None, sentence: str) -> None:
        """Rows where `flag` holds go to quarantine."""
        if self.any(flag):
            name = f"!{len(self.problems)}"
            self.frame = self.frame.with_columns(flag.fill_null(False).alias(name))
            self.problems.append((name, code, column, sentence))

    def issue(self, flag: pl.Expr, text: str | pl.Expr) -> None:
        """Rows where `flag` holds keep a note in data_issues."""
        if self.any(flag):
            name = f"?{len(self.issues)}"
            value = pl.lit(text) if isinstance(text, str) else text
            self.frame = self.frame.with_columns(pl.when(flag).then(value).alias(name))
            self.issues.append(pl.col(name))


class DelimitedReader(DelimitedFile):
    """A delimited file as landing reads it."""

    def __init__(self, path: Path, mapping: RecordMapping, feed: Feed) -> None:
        super().__init__(path, mapping, feed.file.name)
        self.feed, self.notes = feed, list[str]()
        self.record = mapping.record
        self.caller = next((c for c in mapping.columns if c.field.kind == "caller"), None)

    def batches(self, seen: Inspection) -> Iterator[Batch]:
        """Typed rows, block by block."""
        header = self.header()
        self.notes += header.notes
        for raw in self.rows(header, seen.size_bytes):
            yield convert(raw, self.mapping, self.feed, self.name)

    def again(self, kept: Sequence[Rejected], layout: FileLayout | None) -> Batch:
        """Rows that were set aside, under the columns of their file."""
        return convert(self.rows_again(kept, layout), self.mapping, self.feed, self.name)


class PushedObjects(HeldFile, DelimitedReader):
    """Objects that were pushed, as lines under the columns of the newest unit, if there is one."""

    def __init__(
        self, name: str, mapping: RecordMapping, feed: Feed,
        items: Sequence[dict[str, Any] | Unreadable], content_hash: str, layout: FileLayout | None,
    ) -> None:  # fmt: skip
        DelimitedReader.__init__(self, Path(name), mapping, feed)
        self.content_hash = content_hash
        self.columns = list(mapping.names or mapping.needed)
        is_headerless = mapping.header == "no"
        before = layout or {}
        if not is_headerless and before.get("header") and before["encoding"] == self._encoding:
            found = self._cells(bytes.fromhex(before["header"]))
            if set(mapping.needed) <= {cell.strip() for cell in found}:
                self.columns = [cell.strip() for cell in found]
        self.head = b"" if is_headerless else self._line(self.columns)
        self.first_line = 1 if is_headerless else 0
        self.unreadable: list[Rejected] = []
        lines = [self._written(number, item) for number, item in enumerate(items, 1)]
        self.content = b"".join([self.head, *lines])

    def header(self) -> Header:
        """The columns that are known already."""
        line = self.head.rstrip(b"\n")
        header = self._named(line) if line else self._headerless(len(self.columns))
        self._keep(header)
        return header

    def batches(self, seen: Inspection) -> Iterator[Batch]:
        """Typed rows, and what is none."""
        unreadable, self.unreadable = self.unreadable, []
        for batch in super().batches(seen):
            rejected = batch.rejected + unreadable
            read = batch.read + len(unreadable)
            # The header is ours, and blank lines stand for what is unreadable.
            yield replace(batch, rejected=rejected, read=read, header_rows=0, blank_lines=0)
            unreadable = []

    def _line(self, values: Sequence[str]) -> bytes:
        return objects.line(self.mapping, values).encode(self._encoding)

    def _written(self, number: int, item: dict[str, Any] | Unreadable) -> bytes:
        """The line of an item; an empty one where it has none."""
        if isinstance(item, Unreadable):
            fault = item
        else:
            values = objects.cells(item, self.columns)
            code, reason = "no_column", "has none of the columns that the mapping names"
            if any(values):
                try:
                    return self._line(values)
                except UnicodeEncodeError:
                    code, reason = "encoding", f"holds what {self._encoding} has no byte for"
                except ValueError as error:
                    code, reason = "column_count", str(error)
            fault = Unreadable(code, reason, pushes.written(item))
        reason = f"{self.name} line {number}: {fault.reason}"
        self.unreadable.append(Rejected(number, fault.code, reason, None, fault.content))
        return b"\n"


def convert(raw: RawRows, mapping: RecordMapping, feed: Feed, file_name: str) -> Batch:
    """Type, code and check the rows of one block."""
    # "c:" keeps the file's columns apart from the fields, which may have the same names.
    cells = (pl.col(name).alias(f"c:{name}") for name in mapping.needed)
    work = _Work(raw.frame.select("line_number", "row_hash", *cells), raw.is_padded)
    _read_fields(work, mapping)
    if mapping.clock:
        _read_clock(work, mapping.clock)
    for column in mapping.columns:
        if column.copy:
            work.frame = work.frame.with_columns(pl.col(column.copy).alias(column.field.name))
    times = _to_utc(work, mapping, feed.time_zone)
    _check_fields(work, mapping)
    if mapping.record.partitioned:
        _durations(work, mapping, times, file_name)
    _refine(work, mapping)
    if mapping.record is records.LEGS:
        _service_only_when_answered(work)
    elif mapping.record is records.AGENT_STATES:
        _check_states(work)
    elif mapping.record is records.SCHEDULES:
        _check_plan(work)
    elif mapping.record is records.SURVEYS:
        _check_scores(work)
    elif mapping.record is records.CARRIER_CALLS:
        _name_by_line(work)
    rows, rejected = _separate(work, mapping, raw, file_name)
    if mapping.record is records.AGENT_STATES:
        rows = _once_a_day(rows, feed.time_zone, "ended_at")
    elif mapping.record is records.SCHEDULES:
        rows = _once_a_day(rows, feed.time_zone, "ends_at")
    return Batch(
        rows,
        raw.rejected + rejected,
        read=rows.height + len(rejected) + len(raw.rejected),
        header_rows=raw.header_rows,
        blank_lines=raw.blank_lines,
        position=raw.position,
    )


# ------------------------------------------------------------------------------ reading fields
def _text(column: Column, *, is_padded: bool) -> pl.Expr:
    if column.constant is not None:
        return pl.lit(column.constant)
    parts = [_cleaned(name, column.missing, is_padded=is_padded) for name in column.columns]
    return parts[0] if len(parts) == 1 else pl.concat_str(parts, separator=column.join)


def _cleaned(name: str, missing: Sequence[str], *, is_padded: bool) -> pl.Expr:
    text = pl.col(f"c:{name}")
    if is_padded:
        text = text.str.strip_chars()
    flag = text == missing[0]
    for marker in missing[1:]:
        flag = flag | (text == marker)
    return pl.when(~flag).then(text)


def _value(column: Column) -> pl.Expr:
    """The value of `t:<field>`; null where it cannot be read."""
    text, kind = pl.col(f"t:{column.field.name}"), column.field.kind
    if kind in ("text", "code") and column.codes:
        return text.replace_strict(
            [code for code, _ in column.codes],
            [meaning for _, meaning in column.codes],
            default=None,
            return_dtype=pl.String,
        )
    if kind == "integer":
        if column.codes:
            codes = dict(column.codes)
            text = text.replace_strict(list(codes), list(codes.values()), default=None)
        return text.cast(pl.Int32, strict=False)
    if kind == "seconds":
        return _seconds(text, column)
    if kind == "day":
        return text.str.to_date(column.format, strict=False)
    if kind == "instant":
        return _instant(text, column.format or "")
    if kind == "caller" and column.pattern:
        return pl.when(text.str.contains(f"^(?:{column.pattern}|{contract.ERASED_CALLER})$")).then(
            text
        )
    return text


def _seconds(text: pl.Expr, column: Column) -> pl.Expr:
    if column.unit == "hms":  # [hours:]minutes:seconds, hours beyond 24 included
        parts = text.str.split(":").list.eval(pl.element().cast(pl.Float64, strict=False))
        first, second, third = (parts.list.get(i, null_on_oob=True) for i in range(3))
        count = parts.list.len()
        value = pl.when(count == 3).then(first * 3600 + second * 60 + third)
        value = value.when(count == 2).then(first * 60 + second)
    else:
        if column.decimal == ",":
            text = text.str.replace(",", ".", literal=True)
        value = text.cast(pl.Float64, strict=False)
        value = value / 1000 if column.unit == "ms" else value
    return pl.when(value.abs() < contract.LONGEST_SECONDS).then(value)


def _instant(text: pl.Expr, form: str) -> pl.Expr:
    if form in ("epoch_seconds", "epoch_milliseconds"):
        factor = zones.MICRO if form == "epoch_seconds" else zones.MICRO // 1000
        number = text.cast(pl.Float64, strict=False)
        number = pl.when(number.abs() * factor < 1 << 60).then(number)
        return (number * factor).round().cast(pl.Int64)
    parsed = text.str.to_datetime(form, strict=False, time_unit="us")
    return parsed.dt.epoch("us")


def _is_absolute(column: Column, columns: dict[str, Column]) -> bool:
    form = (columns[column.copy] if column.copy else column).format or ""
    return form.startswith("epoch_") or "%z" in form


def _read_fields(work: _Work, mapping: RecordMapping) -> None:
    own = [column for column in mapping.columns if column.copy is None]
    work.frame = work.frame.with_columns(
        _text(column, is_padded=work.is_padded).alias(f"t:{column.field.name}") for column in own
    ).with_columns(_value(column).alias(column.field.name) for column in own)


def _read_clock(work: _Work, clock: Clock) -> None:
    """Local instants from a date and times of day that happen one after the other.

    A time is the next one after its predecessor: earlier on the clock means past midnight. Only
    a step back of up to `disorder_seconds` is the clocks' disagreement and stays on its day.
    """
    texts = [
        _text(column, is_padded=work.is_padded).alias(f"t:{column.field.name}")
        for column in (clock.date, *clock.times)
    ]
    work.frame = work.frame.with_columns(texts).with_columns(
        pl.col("t:date").str.to_date(clock.date.format, strict=False).alias("date:value"),
        *(
            (
                pl.col(f"t:{step.field.name}").str.to_time(clock.time_format, strict=False)
                .cast(pl.Int64) // 1000
            ).alias(step.field.name)
            for step in clock.times
        ),
    )  # fmt: skip
    first, *others = [step.field.name for step in clock.times]
    day = pl.col("date:value").cast(pl.Int64) * DAY
    slack = clock.disorder_seconds * zones.MICRO
    work.frame = work.frame.with_columns((day + pl.col(first)).alias(first))
    previous = pl.col(first)
    for index, name in enumerate(others):
        step = (pl.col(name) - previous + slack) % DAY - slack
        work.frame = work.frame.with_columns(
            (previous + step).alias(name),
            pl.coalesce(previous + step, previous).alias(f"previous:{index}"),
        )
        previous = pl.col(f"previous:{index}")
    work.problem(
        pl.col("date:value").is_null(),
        "bad_date",
        clock.date.columns[0],
        "is no date in the form " + (clock.date.format or ""),
    )


def _check_fields(work: _Work, mapping: RecordMapping) -> None:
    """What cannot be read, is missing or is unknown: quarantine or issue, as the mapping says."""
    clock_times = mapping.clock.times if mapping.clock else ()
    for column in (*clock_times, *(c for c in mapping.columns if c.copy is None)):
        name, kind = column.field.name, column.field.kind
        source = column.columns[0] if column.columns else None
        text, value = pl.col(f"t:{name}"), pl.col(name)
        nulls = work.frame.select(text.null_count().alias("t"), value.null_count().alias("v")).row(
            0
        )
        if column.field.required and nulls[0]:
            # Of joined columns the empty one is named.
            for part in column.columns[1:]:
                cell = pl.col(f"c:{part}").fill_null("").str.strip_chars()
                empty = text.is_null() & cell.is_in(column.missing)
                work.problem(empty, "missing_value", part, "is empty: every row needs it")
            work.problem(text.is_null(), "missing_value", source, "is empty: every row needs it")
        if nulls[0] == nulls[1]:
            continue
        unread = text.is_not_null() & value.is_null()
        if kind in ("text", "code"):
            if column.unknown == "quarantine":
                work.problem(
                    unread,
                    "unknown_code",
                    source,
                    "is a code that the mapping does not know: add it under 'codes'",
                )
            else:
                work.issue(unread, _issue_with_value("unknown_code", name, text))
        elif kind == "caller":
            work.issue(unread, "unreadable:caller")
        elif column.unreadable == "keep":
            work.issue(unread, f"unreadable:{name}")
        elif column in clock_times and mapping.clock:
            known_date = pl.col("date:value").is_not_null()
            work.problem(
                unread & known_date,
                "bad_time",
                source,
                f"is no time in the form {mapping.clock.time_format}",
            )
        elif kind in ("instant", "day"):
            form = f"is no date or time in the form {column.format}"
            work.problem(unread, "bad_date", source, form)
        else:
            work.problem(unread, "bad_number", source, "is no number")


def _issue_with_value(code: str, name: str, text: pl.Expr) -> pl.Expr:
    # Braces, quotes and commas would end the array element; long numbers may be a caller's.
    clean = text.str.replace_all(r'["\\{},\s]', "_").str.replace_all(r"\d{5,}", "#").str.head(40)
    return pl.format(f"{code}:{name}={{}}", clean)


# ------------------------------------------------------------------------------ time
def _to_utc(work: _Work, mapping: RecordMapping, zone: str) -> list[str]:
    """Turn local instants into UTC microseconds; returns the instants that the mapping fills."""
    steps = mapping.clock.times if mapping.clock else ()
    columns = {c.field.name: c for c in (*steps, *mapping.columns) if c.field.kind == "instant"}
    names = [name for name in mapping.record.times if name in columns]
    if not names:
        _check_days(work, mapping, mapping.record.day)
        return []
    absolute = [name for name in names if _is_absolute(columns[name], columns)]
    local = [name for name in names if name not in absolute]
    span = work.frame.select(
        pl.min_horizontal(pl.col(name).min() for name in names).alias("low"),
        pl.max_horizontal(pl.col(name).max() for name in names).alias("high"),
    ).row(0)
    limits = [max(0, min(value or 0, 4_102_444_800 * zones.MICRO)) for value in span]
    parts = zones.pieces(zone, *(zones.EPOCH + datetime.timedelta(microseconds=v) for v in limits))

    # The first instant that a row has decides its day.
    deciding = names[:1] if columns[names[0]].field.required else names
    days = [
        _local_day(pl.col(name), zone)
        if name in absolute
        else pl.from_epoch(pl.col(name).floordiv(DAY), time_unit="d")
        for name in deciding
    ]
    work.frame = work.frame.with_columns(pl.coalesce(days).alias("business_day"))
    _check_days(work, mapping, "business_day")

    kinds = {part.kind for part in parts}
    for name in local if len(kinds) > 1 else ():
        kind = zones.pick(pl.col(name), parts, "kind")
        work.issue(kind == "ambiguous", f"ambiguous_time:{name}")
        work.issue(kind == "missing", f"nonexistent_time:{name}")
    folds = [zones.pick(pl.col(name), parts, "fold").alias(f"fold:{name}") for name in local]
    work.frame = work.frame.with_columns(
        *((pl.col(name) - zones.pick(pl.col(name), parts, "offset")).alias(name) for name in local),
        *(folds if "ambiguous" in kinds else ()),
    )
    if "ambiguous" in kinds:
        # In the repeated hour the first pass is assumed, unless that puts a time well before
        # the one it follows.
        previous = pl.col(names[0])
        for name in names[1:]:
            if name in local:
                fold = pl.col(f"fold:{name}")
                late = (fold > 0) & (pl.col(name) < previous - fold // 2)
                work.frame = work.frame.with_columns(
                    pl.when(late).then(pl.col(name) + fold).otherwise(pl.col(name)).alias(name)
                )
            previous = pl.coalesce(pl.col(name), previous)
    return names


def _local_day(instant: pl.Expr, zone: str) -> pl.Expr:
    """Local date of UTC microseconds."""
    zoned = pl.from_epoch(instant, time_unit="us").dt.replace_time_zone("UTC")
    return zoned.dt.convert_time_zone(zone).dt.date()


def _check_days(work: _Work, mapping: RecordMapping, name: str) -> None:
    low = mapping.plausible_from
    knows_later = not mapping.record.partitioned or mapping.record.plan
    ahead = datetime.timedelta(days=366 if knows_later else 1)
    high = mapping.plausible_to or datetime.datetime.now(datetime.UTC).date() + ahead
    day = pl.col(name)
    work.problem(
        (day < low) | (day > high),
        "implausible_date",
        None,
        f"the day is not between {low} and {high} ('plausible_days' in the mapping)",
    )


# ------------------------------------------------------------------------------ durations
def _durations(work: _Work, mapping: RecordMapping, times: list[str], file_name: str) -> None:
    """Reported durations against the row times that bound them (METRICS.md, ruling 1)."""
    fields = [item.name for item in mapping.record.fields if item.kind == "seconds"]
    reported = {column.field.name: column for column in mapping.columns}
    missing = [pl.lit(None, pl.Float64).alias(n) for n in fields if n not in work.frame.columns]
    work.frame = work.frame.with_columns(missing)
    held = pl.col("hold_seconds").fill_null(0) if "hold_seconds" in fields else pl.lit(0)
    for name in fields:
        value = pl.col(name)
        bounds = records.DURATIONS.get(name, ("", ""))
        if bounds[0] not in times or bounds[1] not in times:
            work.issue(value < 0, f"negative:{name}")
            work.frame = work.frame.with_columns(pl.when(value >= 0).then(value).alias(name))
            continue
        start, end = (pl.col(bound) for bound in bounds)
        whole = (end - start) / zones.MICRO
        own = whole - held if name == "talk_seconds" else whole
        if name in reported:
            _refuse_other_unit(work, reported[name], own, file_name)
        work.issue(value < 0, f"negative:{name}")
        work.issue((value >= 0) & ((own - value).abs() > TOLERANCE_SECONDS), f"disagrees:{name}")
        work.issue(value.is_null() & (own < 0), f"order:{bounds[1]}")
        total = value + held if name == "talk_seconds" else value
        length = pl.when(total > 0).then((total * zones.MICRO).cast(pl.Int64))
        work.frame = work.frame.with_columns(
            pl.when(value >= 0).then(value).when(own >= 0).then(own).alias(name),
            # One missing bound follows from the other (a "missing" 0:00:00 that was midnight).
            pl.coalesce(start, end - length).alias(bounds[0]),
            pl.coalesce(end, start + length).alias(bounds[1]),
        )


def _refuse_other_unit(work: _Work, column: Column, own: pl.Expr, file_name: str) -> None:
    """Refuse a file whose durations are of another unit than the mapping says.

    Single odd rows keep what was reported, with an issue. All of them a thousand times too long
    would be what people are judged by.
    """
    value = pl.col(column.field.name)
    is_told = (value > 0) & (own >= 1)
    for factor, unit, words in ((1000, "ms", "1000 times"), (0.001, "s", "a thousandth of")):
        is_odd = is_told & (value / own / factor).is_between(0.5, 2.0)
        told, odd = work.frame.select(is_told.sum().alias("told"), is_odd.sum().alias("odd")).row(0)
        if told >= FEWEST_TOLD and odd >= MOSTLY * told:
            raise contract.RefusedError(
                f"{file_name}: in {odd} of {told} rows column '{column.columns[0]}' is about "
                f"{words} what the row's own times say: write 'unit: {unit}' in the mapping, or "
                "correct the export"
            )


def _service_only_when_answered(work: _Work) -> None:
    """Without an answer there is no service: such times and durations are the source's dirt."""
    answered = pl.col("outcome") == "answered"
    present = [name for name in records.LEG_TIMES if name in work.frame.columns]
    for name in records.SERVICE:
        work.issue(~answered & (pl.col(name) > 0), f"unanswered:{name}")
    emptied = [*records.SERVICE, *(n for n in ("answered_at", "released_at") if n in present)]
    work.frame = work.frame.with_columns(
        pl.when(answered).then(pl.col(name)).alias(name) for name in emptied
    )
    latest = pl.max_horizontal(pl.col(name) for name in present)
    if "ended_at" in present:
        latest = pl.coalesce(pl.col("ended_at"), latest)
    number = pl.col("leg_number").fill_null(1) if "leg_number" in work.frame.columns else pl.lit(1)
    work.frame = work.frame.with_columns(
        latest.alias("ended_at"), number.cast(pl.Int32).alias("leg_number")
    )


# ------------------------------------------------------------------------------ agents, surveys
def _check_states(work: _Work) -> None:
    seconds = (pl.col("ended_at") - pl.col("started_at")) / zones.MICRO
    work.problem(seconds < 0, "disorder", None, "the state ends before it starts")
    work.problem(
        seconds > records.LONGEST_STATE_SECONDS,
        "too_long",
        None,
        f"the state lasts longer than {records.LONGEST_STATE_SECONDS // 3600} hours",
    )


def _check_plan(work: _Work) -> None:
    seconds = (pl.col("ends_at") - pl.col("starts_at")) / zones.MICRO
    work.problem(seconds <= 0, "disorder", None, "the planned stretch does not end after it starts")
    work.problem(
        seconds > records.LONGEST_PLANNED_SECONDS,
        "too_long",
        None,
        f"the planned stretch is longer than {records.LONGEST_PLANNED_SECONDS // 3600} hours",
    )
    # Else a plan that is sent again would not find all of the one that it replaces.
    apart = (pl.col("business_day") - pl.col("shift_date")).dt.total_days()
    work.problem(
        ~apart.is_between(-1, 1),
        "other_shift",
        None,
        "the planned stretch begins more than a day away from the date of its shift",
    )


def _check_scores(work: _Work) -> None:
    if "score" not in work.frame.columns:
        return
    for kind, (low, high) in contract.SURVEY_SCALES.items():
        score = pl.col("score")
        work.problem(
            (pl.col("survey_type") == kind) & ((score < low) | (score > high)),
            "out_of_scale",
            None,
            f"the score of {kind} is not between {low} and {high}",
        )


def _name_by_line(work: _Work) -> None:
    """A carrier's line without an id is named by its content: sent again, it is the same one."""
    given = [name for name in ("carrier_call_id",) if name in work.frame.columns]
    line = pl.col("row_hash").bin.encode("hex")
    work.frame = work.frame.with_columns(pl.coalesce(*given, line).alias("carrier_call_id"))


def _once_a_day(rows: pl.DataFrame, zone: str, end: str) -> pl.DataFrame:
    """What runs over midnight once for each local day, so that a day finds all its own."""
    last = _local_day(pl.col(end) - 1, zone)
    days = pl.date_ranges(pl.col("business_day"), pl.max_horizontal(pl.col("business_day"), last))
    return rows.with_columns(days.alias("business_day")).explode("business_day")


# ------------------------------------------------------------------------------ rules, result
def _condition(condition: Condition, work: _Work) -> pl.Expr:
    if condition.field not in work.frame.columns:
        return pl.lit(None in condition.values)
    value = pl.col(condition.field)
    flag = pl.lit(False)
    if condition.above is not None or condition.below is not None:
        flag = pl.lit(True)
        if condition.above is not None:
            flag = flag & (value > condition.above)
        if condition.below is not None:
            flag = flag & (value < condition.below)
        return flag.fill_null(False)
    is_number = work.frame.schema[condition.field].is_numeric()
    for wanted in condition.values:
        if wanted is None:
            flag = flag | value.is_null()
        else:
            flag = flag | (value == (float(wanted) if is_number else wanted))
    return flag.fill_null(False)


def _refine(work: _Work, mapping: RecordMapping) -> None:
    for rule in mapping.refine:
        flag = pl.lit(True)
        for condition in rule.when:
            flag = flag & _condition(condition, work)
        if rule.issue:
            work.issue(flag, rule.issue)
        changes = []
        for name, text in rule.set:
            item = mapping.record.by_name[name]
            kind = {"seconds": pl.Float64(), "instant": pl.Int64()}.get(item.kind, pl.String())
            value = float(text) if text is not None and item.kind == "seconds" else text
            new = pl.lit(value, kind)
            old = pl.col(name) if name in work.frame.columns else pl.lit(None, kind)
            changes.append(pl.when(flag).then(new).otherwise(old).alias(name))
        work.frame = work.frame.with_columns(changes)


def _separate(
    work: _Work, mapping: RecordMapping, raw: RawRows, file_name: str
) -> tuple[pl.DataFrame, list[Rejected]]:
    """Rows that can be staged, and the others with the first reason of each."""
    rejected: list[Rejected] = []
    frame = work.frame
    if work.problems:
        flags = [name for name, *_ in work.problems]
        bad = frame.with_row_index("position").filter(pl.any_horizontal(flags))
        for row in bad.iter_rows(named=True):
            _, code, column, sentence = next(p for p in work.problems if row[p[0]])
            number = row["line_number"]
            shown = ""
            if column:
                text = row[f"c:{column}"]
                told = f"'{redacted(masked(text))[:60]}' " if text else ""
                shown = f"column '{column}' {told}"
            reason = f"{file_name} line {number}: {shown}{sentence}"
            rejected.append(Rejected(number, code, reason, column, raw.contents[row["position"]]))
        frame = frame.filter(~pl.any_horizontal(flags))
    if work.issues:
        joined = pl.concat_str(work.issues, separator=",", ignore_nulls=True)
        issues = pl.when(joined != "").then(joined)
    else:
        issues = pl.lit(None, pl.String)
    frame = frame.with_columns(issues.alias("data_issues"))
    wanted: list[pl.Expr] = []
    for item in mapping.record.fields:
        kind = {"seconds": pl.Float64(), "instant": pl.Int64(), "integer": pl.Int32(),
                "day": pl.Date()}.get(item.kind, pl.String())  # fmt: skip
        present = pl.col(item.name) if item.name in frame.columns else pl.lit(None)
        wanted.append(present.cast(kind).alias(item.name))
    if mapping.record.partitioned:
        wanted += [pl.col("business_day"), pl.col("data_issues")]
    return frame.select("line_number", "row_hash", *wanted), rejected
