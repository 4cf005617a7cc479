"""Lines of a queue_log as typed events: `epoch|callid|queue|agent|EVENT|data1|…|data5`.

A line is an event whatever file it stands in; what events mean together is told in dbt.
"""

from __future__ import annotations

import codecs
import datetime
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from callhouse.sources.asterisk.mapping import EVENTS, Caller, Feed
from callhouse.sources.contract import (
    CUT_OFF,
    LONGEST_SECONDS,
    Batch,
    FileLayout,
    Inspection,
    Rejected,
)
from callhouse.sources.files import HeldFile, LineFile


@dataclass(frozen=True)
class Layout:
    """Where an event reports durations: numbers of its data fields (1 to 5); None: nowhere."""

    fields: int = 0  # what a whole line has
    wait: int | None = None
    talk: int | None = None
    ring: int | None = None
    ring_unit: float = 1.0
    login: int | None = None
    wrapup: int | None = None


COMPLETE = Layout(3, wait=1, talk=2)
TRANSFER = Layout(5, wait=3, talk=4)
LINK = "ATTENDEDTRANSFER LINK"  # names two channels where others name one: all comes one later
LOGOFF = Layout(2, login=2)
LAYOUTS = {
    "ABANDON": Layout(3, wait=3),
    "AGENTCALLBACKLOGOFF": LOGOFF,
    "AGENTLOGOFF": LOGOFF,
    "ATTENDEDTRANSFER": TRANSFER,
    LINK: Layout(5, wait=4, talk=5),
    "BLINDTRANSFER": TRANSFER,
    "TRANSFER": TRANSFER,
    "COMPLETEAGENT": COMPLETE,
    "COMPLETECALLER": COMPLETE,
    "CONNECT": Layout(3, wait=1, ring=3),
    "ENTERQUEUE": Layout(3),
    "EXITEMPTY": Layout(3, wait=3),
    "EXITWITHKEY": Layout(4, wait=4),
    "EXITWITHTIMEOUT": Layout(3, wait=3),
    "RINGCANCELED": Layout(ring=1, ring_unit=0.001),  # older exchanges do not say how long
    "RINGNOANSWER": Layout(1, ring=1, ring_unit=0.001),
    "WRAPUPSTART": Layout(1, wrapup=1),
}
# Of an agent or of the system: a call id in them is the agent's own channel, or nothing.
WITHOUT_CALL = (
    "ADDMEMBER", "AGENTCALLBACKLOGIN", "AGENTCALLBACKLOGOFF", "AGENTLOGIN", "AGENTLOGOFF",
    "CONFIGRELOAD", "PAUSE", "PAUSEALL", "PAUSEREASON", "PENALTY", "QUEUESTART", "REMOVEMEMBER",
    "RINGINUSE", "SYSCOMPAT", "UNPAUSE", "UNPAUSEALL",
)  # fmt: skip
OF_CALLS = (
    "AGENTDUMP", "CLOSED", "DID", "FULL", "INFO", "JOINEMPTY", "LEAVEEMPTY", "RINGCANCELED",
    "WRAPUPSTART",
)  # fmt: skip
DIVERSION = "DIVERT_"
KNOWN = (*WITHOUT_CALL, *OF_CALLS, *(name for name in LAYOUTS if name != LINK))
# Filled by the dialplan's author, who may write the caller's number: even into the URL of an entry.
# Reasons of pauses are what an agent typed.
FREE_TEXT = (
    "ENTERQUEUE", "PAUSE", "PAUSEALL", "PAUSEREASON", "UNPAUSE", "UNPAUSEALL",
    *(name for name in OF_CALLS if name != "DID"),
)  # fmt: skip
NOTHING = ("", "NONE", "none", "-")
NO_CALL = (*NOTHING, "REALTIME", "MANAGER")
NO_CALLER = (*NOTHING, "anonymous", "Anonymous", "unknown", "Unknown", "unavailable", "<unknown>")
DATA = [f"data{number}" for number in range(1, 6)]
COLUMNS = ["epoch", "reported_call_id", "queue_id", "agent_id", "event", *DATA]
EPOCH = r"^[0-9]{9,11}(\.[0-9]{1,9})?$"
EVENT_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
NUMBER = r"^[0-9]{1,9}(\.[0-9]+)?$"
LONG_NUMBER = re.compile(r"[0-9]{7,}")
DURATIONS = ["wait", "talk", "ring", "login", "wrapup"]
MICRO = 1_000_000


class QueueLog(LineFile):
    """One open queue_log file."""

    def __init__(self, path: Path, feed: Feed) -> None:
        super().__init__(path)
        self.feed, self.notes = feed, list[str]()
        self.record = EVENTS
        self.caller: Caller = feed.caller
        self.first_line = 1

    def batches(self, seen: Inspection) -> Iterator[Batch]:
        """Events, block by block."""
        start, done = self.first_line, 0
        for block in self._blocks():
            done += len(block)
            lines = block.split(b"\n")
            is_cut = bool(lines[-1])
            if not is_cut:
                lines.pop()
            is_last = done >= seen.size_bytes
            numbered = list(enumerate(lines, start))
            start += len(lines)
            cut = {start - 1} if is_last and is_cut else set[int]()
            yield self._convert(numbered, cut, done / seen.size_bytes)

    def again(self, kept: Sequence[Rejected], layout: FileLayout | None) -> Batch:
        """Lines that were set aside.

        Before layouts were kept, another reason could hide that a line was cut off: of such files
        every line has to be whole.
        """
        lines = [(row.line_number, row.content) for row in kept]
        return self._convert(lines, set(), 1.0, short_is_cut=layout is None)

    def _convert(
        self,
        lines: list[tuple[int, bytes]],
        cut: set[int],
        position: float,
        *,
        short_is_cut: bool = False,
    ) -> Batch:
        """A batch of numbered lines; those of `cut` are not whole, nor then are short ones."""
        kept: list[tuple[int, bytes]] = []
        rejected: list[Rejected] = []
        blank = 0
        for number, line in lines:
            stripped = line.rstrip(b"\r")
            if not stripped.strip():
                blank += 1
            elif b"\0" in stripped:
                rejected.append(
                    self._rejected(number, "nul_byte", "holds NUL bytes: check the disk", line)
                )
            else:
                kept.append((number, stripped))
        frame = _typed(kept, self.feed.time_zone)
        bad = _faults(frame, self.feed, cut, short_is_cut=short_is_cut)
        contents = dict(kept) if bad.height else {}
        for number, code, reason in bad.iter_rows():
            rejected.append(self._rejected(number, code, reason, contents[number]))
        rows = frame
        if bad.height:
            rows = frame.join(bad, on="line_number", how="anti", maintain_order="left")
        return Batch(
            rows.drop("epoch", "layout", "fields"),
            rejected,
            read=len(lines) - blank,
            blank_lines=blank,
            position=position,
        )

    def _rejected(self, number: int, code: str, reason: str, line: bytes) -> Rejected:
        return Rejected(number, code, f"{self.name} line {number}: {reason}", None, line)


class QueueLogLines(HeldFile, QueueLog):
    """Lines of a queue_log that grows."""

    def __init__(
        self, name: str, feed: Feed, content: bytes, first_line: int, content_hash: str
    ) -> None:
        QueueLog.__init__(self, Path(name), feed)
        self.content, self.first_line, self.content_hash = content, first_line, content_hash

    def _blocks(self) -> Iterator[bytes]:
        is_start = self.first_line == 1
        yield self.content.removeprefix(codecs.BOM_UTF8) if is_start else self.content


def _typed(lines: list[tuple[int, bytes]], zone: str) -> pl.DataFrame:
    """Every line with the columns of the record; what cannot be read is null."""
    texts = [line.decode("utf-8", "replace") for _, line in lines]
    frame = pl.DataFrame(
        {
            "line_number": pl.Series([number for number, _ in lines], dtype=pl.Int64),
            "row_hash": pl.Series(
                # A table drops empty fields at the end, and a file may have them.
                [hashlib.md5(line.rstrip(b"| ")).digest() for _, line in lines],  # noqa: S324  # no secret
                dtype=pl.Binary,
            ),
            "text": pl.Series(texts, dtype=pl.String),
        }
    ).with_columns(
        pl.col("text").str.count_matches("|", literal=True).alias("fields"),
        pl.col("text").str.splitn("|", len(COLUMNS)).struct.rename_fields(COLUMNS).alias("cells"),
        pl.col("text").str.contains("\ufffd", literal=True).alias("is_garbled"),
    )
    frame = frame.drop("text").unnest("cells").with_columns(pl.col(COLUMNS).str.strip_chars())
    event, call = pl.col("event"), pl.col("reported_call_id")
    is_diversion = event.str.starts_with(DIVERSION)
    is_known = event.is_in(KNOWN) | is_diversion
    is_free = ~is_known | is_diversion | event.is_in(FREE_TEXT)
    is_entry = event == "ENTERQUEUE"
    seconds = pl.col("epoch").str.extract(f"({EPOCH[1:-1]})").cast(pl.Float64, strict=False)
    caller = pl.col("data2")
    frame = frame.with_columns(
        pl.when(event == "ATTENDEDTRANSFER", pl.col("data1") == "LINK")
        .then(pl.lit(LINK))
        .otherwise(event)
        .alias("layout"),
        (seconds * MICRO).round().cast(pl.Int64).alias("event_at"),
        pl.when(~event.is_in(WITHOUT_CALL) & ~call.is_in(NO_CALL)).then(call).alias("call_id"),
        pl.when(~pl.col("queue_id").is_in(NOTHING)).then(pl.col("queue_id")).alias("queue_id"),
        # Who stands on an ENTERQUEUE has no part in the call.
        pl.when(~pl.col("agent_id").is_in(NOTHING) & ~is_entry)
        .then(pl.col("agent_id"))
        .alias("agent_id"),
        pl.when(event == "DID", pl.col("data1") != "").then(pl.col("data1")).alias("hotline_id"),
        pl.when(is_entry & ~caller.is_in(NO_CALLER)).then(caller).alias("caller"),
        is_free.alias("is_free"),
    )
    frame = _with_durations(frame).with_columns(
        *(
            pl.when(is_entry & pl.lit(name in ("data2", "data4", "data5"))).then(None)
            .when("is_free").then(_masked(name)).otherwise(pl.col(name))
            .replace("", None).alias(name)
            for name in DATA
        ),
    )  # fmt: skip
    spent = pl.sum_horizontal(pl.col("wait_seconds", "talk_seconds").fill_null(0.0))
    moment = pl.col("event_at").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return frame.with_columns(
        (pl.col("event_at") - (spent * MICRO).round().cast(pl.Int64)).alias("began_at"),
        moment.dt.convert_time_zone(zone).dt.date().alias("business_day"),
        pl.lit(None, pl.String).alias("caller_region_code"),
        pl.lit(None, pl.String).alias("caller_carrier"),
        pl.concat_str(
            pl.when(~is_known).then(pl.concat_str(pl.lit("unknown_event:"), event)),
            pl.when("is_garbled").then(pl.lit("unreadable:text")),
            *(
                pl.when(pl.col(f"{name}_seconds").is_null() & pl.col(f"{name}_text").is_not_null())
                .then(pl.lit(f"unreadable:{name}_seconds"))
                for name in DURATIONS
            ),
            separator=",",
            ignore_nulls=True,
        ).replace("", None).alias("data_issues"),
    ).drop("is_garbled", *(f"{name}_text" for name in DURATIONS))  # fmt: skip


def _with_durations(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with `<name>_text` and `<name>_seconds` of the events that report such durations.

    Step by step: an expression that stands in another twice is worked out twice.
    """
    texts, units = [], {}
    for name in DURATIONS:
        text, unit = pl.lit(None, pl.String), pl.lit(1.0)
        for event, layout in LAYOUTS.items():
            number = getattr(layout, name)
            if number is not None:
                is_it = pl.col("layout") == event
                text = pl.when(is_it).then(_reported(number)).otherwise(text)
                if name == "ring" and layout.ring_unit != 1.0:
                    unit = pl.when(is_it).then(pl.lit(layout.ring_unit)).otherwise(unit)
        texts.append(text.replace("", None).alias(f"{name}_text"))
        units[name] = unit
    return (
        frame.with_columns(texts)
        .with_columns(
            (
                pl.when(pl.col(f"{name}_text").str.contains(NUMBER))
                .then(pl.col(f"{name}_text"))
                .cast(pl.Float64, strict=False)
                * unit
            ).alias(f"{name}_seconds")
            for name, unit in units.items()
        )
        .with_columns(
            pl.when(pl.col(f"{name}_seconds") < LONGEST_SECONDS).then(pl.col(f"{name}_seconds"))
            for name in DURATIONS
        )
    )


def _reported(number: int) -> pl.Expr:
    """A data field; the fifth holds all that follows, of which the first part is meant."""
    text = pl.col(f"data{number}")
    return text.str.extract(r"^([^|]*)").str.strip_chars() if number == len(DATA) else text


def _masked(name: str) -> pl.Expr:
    """Text with long numbers made unreadable: what nobody vouches for may be a caller's."""
    return pl.col(name).str.replace_all(LONG_NUMBER.pattern, "#######")


def _faults(frame: pl.DataFrame, feed: Feed, cut: set[int], *, short_is_cut: bool) -> pl.DataFrame:
    """Lines that are no events: (line_number, code, reason)."""
    tomorrow = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
    first, last = feed.plausible_from, feed.plausible_to or tomorrow
    needed = pl.col("layout").replace_strict(
        {name: layout.fields for name, layout in LAYOUTS.items()}, default=0, return_dtype=pl.Int64
    )
    day = pl.col("business_day")
    reasons = {
        # First: a line that is cut off must not be read alone once something else is mended.
        CUT_OFF: (
            pl.col("line_number").is_in(pl.Series(list(cut), dtype=pl.Int64))
            | (pl.lit(short_is_cut) & (pl.col("fields") < needed + 4)),
            "the file ends within this line: it lands with the complete file",
        ),
        "column_count": (
            pl.col("fields") < 4,
            "is no event (epoch|callid|queue|agent|EVENT|…): check what wrote it",
        ),
        "unreadable_time": (
            pl.col("event_at").is_null() | ~pl.col("epoch").str.contains(EPOCH),
            "does not begin with seconds since 1970",
        ),
        "unreadable_event": (
            ~pl.col("event").str.contains(EVENT_NAME),
            "has no event name in its fifth field",
        ),
        "implausible_day": (
            (day < first) | (day > last),
            f"lies outside {first} to {last}: see 'plausible_days' in {feed.file.name}",
        ),
    }
    code = reason = pl.lit(None, pl.String)
    for name, (flag, sentence) in reversed(reasons.items()):
        code = pl.when(flag.fill_null(True)).then(pl.lit(name)).otherwise(code)
        reason = pl.when(flag.fill_null(True)).then(pl.lit(sentence)).otherwise(reason)
    return frame.select(
        "line_number", code.alias("code"), reason.alias("reason")
    ).drop_nulls("code")  # fmt: skip
