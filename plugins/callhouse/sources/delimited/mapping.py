"""A feed's mapping: how the columns of its files become fields of the intake contract."""

from __future__ import annotations

import codecs
import datetime
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from callhouse.settings import Settings
from callhouse.sources import contract, document, pushes
from callhouse.sources.contract import Field, FileLayout, Reader, Record
from callhouse.sources.delimited import objects, pages
from callhouse.sources.delimited.records import RECORDS
from callhouse.sources.document import Node, near

DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
DEFAULT_PLAUSIBLE_FROM = datetime.date(1990, 1, 1)
INSTANT_WORDS = ("epoch_seconds", "epoch_milliseconds")


@dataclass(frozen=True)
class Column:
    """How one intake field is filled: from columns of the file, a constant, or another field."""

    field: Field
    columns: tuple[str, ...] = ()
    join: str = ""
    constant: str | None = None
    copy: str | None = None
    missing: tuple[str, ...] = ("",)
    codes: tuple[tuple[str, str], ...] = ()
    unknown: str = "keep"
    unreadable: str = "quarantine"
    format: str | None = None
    unit: str = "s"
    decimal: str = "."
    pattern: str | None = None
    caller_kind: str = "id"
    country: str | None = None


@dataclass(frozen=True)
class Clock:
    """Date and times in columns of their own: `times` happen in this order, from `date` on."""

    date: Column
    time_format: str
    times: tuple[Column, ...]
    disorder_seconds: int


@dataclass(frozen=True)
class Condition:
    """`field` is one of `values` (None = empty), or above/below a number."""

    field: str
    values: tuple[str | None, ...] = ()
    above: float | None = None
    below: float | None = None


@dataclass(frozen=True)
class Rule:
    """Where all conditions hold, set these fields (None = empty them), and note an issue."""

    when: tuple[Condition, ...]
    set: tuple[tuple[str, str | None], ...]
    issue: str | None


@dataclass(frozen=True)
class RecordMapping:
    """One kind of file of a feed."""

    record: Record
    files: tuple[str, ...]
    delimiter: str
    encoding: str
    header: str  # yes | no | optional
    names: tuple[str, ...]
    quote: str | None
    plausible_from: datetime.date
    plausible_to: datetime.date | None
    columns: tuple[Column, ...]
    clock: Clock | None
    refine: tuple[Rule, ...]

    def takes(self, name: str) -> bool:
        """Whether a file of this name belongs here."""
        return any(fnmatch(name, pattern) for pattern in self.files)

    @property
    def needed(self) -> list[str]:
        """Columns that the file must have, in the order in which the mapping names them."""
        clock = (self.clock.date, *self.clock.times) if self.clock else ()
        names = [name for column in (*clock, *self.columns) for name in column.columns]
        return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Feed:
    """A source of delimited files. `name` is the source's name everywhere in the warehouse."""

    name: str
    vendor: str
    label: str
    time_zone: str
    records: tuple[RecordMapping, ...]
    file: Path
    is_overridable: bool = False
    pages: tuple[pages.Endpoint, ...] = ()

    @property
    def kinds(self) -> tuple[Record, ...]:
        """What its files may hold, in the order of the mapping."""
        return tuple(mapping.record for mapping in self.records)

    def mapping_for(self, name: str) -> RecordMapping:
        """The record whose file pattern takes `name`; RefusedError where none does."""
        for mapping in self.records:
            if mapping.takes(name):
                return mapping
        patterns = ", ".join(p for mapping in self.records for p in mapping.files)
        raise contract.RefusedError(
            f"{name}: no record of feed {self.name} takes a file of this name ({patterns}): "
            f"rename the file, or add a pattern under 'files' in {self.file.name}"
        )

    def record_for(self, name: str) -> Record:
        """What a file of this name holds; RefusedError where no pattern takes it."""
        return self.mapping_for(name).record

    def open(self, path: Path) -> Reader:
        """The file, ready to be landed."""
        from callhouse.sources.delimited.rows import DelimitedReader  # polars takes long to import

        return DelimitedReader(path, self.mapping_for(path.name), self)

    @property
    def files(self) -> tuple[str, ...]:
        """Patterns of all its records."""
        return tuple(pattern for mapping in self.records for pattern in mapping.files)

    def take(self, record: Record, body: bytes, media: str) -> list[Any]:  # noqa: ARG002
        """JSON objects with the columns of the record's files by name."""
        return objects.taken(body, media)

    def identities(self, record: Record, items: Sequence[Any]) -> set[Hashable]:
        """Keys of the records, or the plans that they are parts of."""
        return objects.identities(self.mapping_for(pushes.name(self, record)), items)

    def open_items(
        self, record: Record, name: str, items: Sequence[Any], content_hash: str,  # noqa: ARG002
        layout: FileLayout | None,
    ) -> Reader:  # fmt: skip
        """Objects that were pushed, as lines of a file with the columns of the newest one."""
        from callhouse.sources.delimited.rows import PushedObjects

        return PushedObjects(name, self.mapping_for(name), self, items, content_hash, layout)


# ------------------------------------------------------------------------------ reading YAML
def load(file: Path, default_zone: str | None = None) -> Feed:
    """Read and check a mapping; CallhouseError names file, key and fix.

    `default_zone` (the instance's) does not count: local times need the zone of their writer.
    """
    del default_zone
    node = document.read(file)
    name = document.feed_name(node)
    zone = document.time_zone(node)
    records = tuple(_record(item) for item in node.blocks("records"))
    if not records:
        raise node.error("records", "needs at least one entry")
    feed = Feed(
        name,
        node.text("vendor", "delimited", ("delimited",)),
        node.text("label"),
        zone,
        records,
        file,
        pages=tuple(pages.read(item, zone, records) for item in node.blocks("pages", [])),
    )
    for what in ("file", "base"):
        if len({getattr(endpoint, what) for endpoint in feed.pages}) < len(feed.pages):
            raise node.error("pages", "two entries have one 'file', or one 'url' and 'query'")
    node.finish()
    return feed


def open_pages(settings: Settings, feed: Feed) -> pages.Pages:
    """The vendor's paged interface, as landing reads it."""
    return pages.Pages(settings, feed)


def _record(node: Node) -> RecordMapping:
    record = RECORDS[node.text("record", choices=tuple(RECORDS))]
    delimiter = node.text("delimiter")
    delimiter = DELIMITERS.get(delimiter, delimiter)
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise node.error("delimiter", f"use {', '.join(DELIMITERS)} or a single ASCII character")
    encoding = node.text("encoding", "utf-8")
    try:
        encoding = codecs.lookup(encoding).name
    except LookupError:
        raise node.error("encoding", f"'{encoding}' is unknown: e.g. utf-8 or gb18030") from None
    header = node.text("header", "true", ("true", "false", "optional"))
    names = node.texts("names", ())
    if header != "true" and not names:
        raise node.error("names", f"header: {header} needs the column names, in order")
    if len(set(names)) < len(names):
        raise node.error("names", "a column name is there twice")
    quote = node.text("quote", '"', ('"', "'", "none"))
    plausible = node.block("plausible_days", {})
    columns_node = node.block("columns", {})
    clock = _clock(node.block("clock"), record) if node.has("clock") else None
    mapping = RecordMapping(
        record=record,
        files=node.texts("files", ("*",)),
        delimiter=delimiter,
        encoding=encoding,
        header={"true": "yes", "false": "no"}.get(header, header),
        names=names,
        quote=None if quote == "none" else quote,
        plausible_from=plausible.date("from") or DEFAULT_PLAUSIBLE_FROM,
        plausible_to=plausible.date("to"),
        columns=tuple(_column(columns_node, name, record) for name in columns_node.value),
        clock=clock,
        refine=tuple(_rule(item, record) for item in node.blocks("refine", [])),
    )
    columns_node.finish()
    plausible.finish()
    node.finish(allowed=("clock",))
    _check(node, mapping)
    return mapping


def _check(node: Node, mapping: RecordMapping) -> None:
    times = mapping.clock.times if mapping.clock else ()
    fields = [column.field.name for column in (*times, *mapping.columns)]
    if twice := {name for name in fields if fields.count(name) > 1}:
        raise node.error("columns", f"field '{twice.pop()}' is mapped twice: remove one")
    for item in mapping.record.fields:
        if item.required and item.name not in fields:
            raise node.error("columns", f"field '{item.name}' is required: map it")
    for column in mapping.columns:
        if column.copy and column.copy not in fields:
            key = f"columns.{column.field.name}"
            raise node.error(key, f"copies '{column.copy}', which is not mapped")
    if mapping.header == "no" or (mapping.header == "optional" and mapping.names):
        for name in mapping.needed:
            if name not in mapping.names:
                raise node.error("names", f"has no '{name}', which a field is mapped to: add it")


def _field(node: Node, name: str, record: Record) -> Field:
    known = record.by_name
    if name not in known:
        raise node.error(
            name,
            f"{record.name} have no such field{near(name, known)}; fields: {', '.join(known)}",
        )
    return known[name]


def _column(parent: Node, name: str, record: Record) -> Column:
    item = _field(parent, name, record)
    value = parent.raw(name)
    if isinstance(value, str):  # short form: the column's name
        value = {"column": value}
    node = Node(parent.file, f"{parent.path}.{name}", value)
    ways = [key for key in ("column", "join", "constant", "copy") if node.has(key)]
    if len(ways) != 1:
        raise node.error("", "say exactly one of column, join, constant, copy")
    options: dict[str, Any] = {}
    if ways == ["constant"]:
        options["constant"] = node.text("constant")
        if item.codes and options["constant"] not in item.codes:
            raise node.error("constant", f"is not one of {', '.join(item.codes)}")
    elif ways == ["copy"]:
        options["copy"] = _field(node, node.text("copy"), record).name
    elif ways == ["join"]:
        options["columns"], options["join"] = node.texts("join"), node.text("with", "-")
    else:
        options["columns"] = (node.text("column"),)
    if "columns" in options:
        options["missing"] = ("", *node.texts("missing", ()))
        options |= _kind_options(node, item)
    node.finish()
    return Column(item, **options)


def _kind_options(node: Node, item: Field) -> dict[str, Any]:
    """Options that only fields of one kind know."""
    options: dict[str, Any] = {}
    if item.kind == "integer":
        options["codes"] = node.pairs("codes")
    elif item.kind in ("code", "text"):
        codes = node.pairs("codes")
        default = "quarantine" if item.required else "keep"
        options["unknown"] = node.text("unknown", default, ("keep", "quarantine"))
        for code, meaning in codes:
            if item.codes and meaning not in item.codes:
                raise node.error(
                    f"codes.{code}",
                    f"'{meaning}' is not one of {', '.join(item.codes)}"
                    + near(meaning, item.codes),
                )
        options["codes"] = codes or tuple((code, code) for code in item.codes)
    elif item.kind in ("instant", "day"):
        usual = "%Y-%m-%d" if item.kind == "day" else "%Y-%m-%d %H:%M:%S"
        options["format"] = node.text("format", usual)
    elif item.kind == "seconds":
        options["unit"] = node.text("unit", "s", ("s", "ms", "hms"))
        options["decimal"] = node.text("decimal", ".", (".", ","))
    elif item.kind == "caller":
        options["caller_kind"] = node.text("kind", choices=("phone", "id"))
        if options["caller_kind"] == "phone":
            options["country"] = document.country(node)
        if node.has("pattern"):
            options["pattern"] = node.text("pattern")
            try:
                re.compile(options["pattern"])
            except re.error as error:
                raise node.error("pattern", f"is no regular expression: {error}") from None
    if item.kind in ("integer", "seconds", "instant", "day") and not item.required:
        options["unreadable"] = node.text("unreadable", "quarantine", ("quarantine", "keep"))
    return options


def _clock(node: Node, record: Record) -> Clock:
    date = node.block("date")
    date_column = Column(
        Field("date", "day", required=True),
        (date.text("column"),),
        format=date.text("format", "%Y-%m-%d"),
    )
    date.finish()
    times = []
    for step in node.blocks("times"):
        item = _field(step, step.text("field"), record)
        if item.kind != "instant":
            raise step.error("field", f"'{item.name}' is no instant")
        times.append(Column(item, (step.text("column"),), missing=("", *step.texts("missing", ()))))
        step.finish()
    first = record.times[0] if record.times else None
    if not times or times[0].field.name != first:
        raise node.error("times", f"must begin with {first}, and go on in the order of time")
    clock = Clock(
        date_column,
        node.text("format", "%H:%M:%S"),
        tuple(times),
        int(node.number("disorder_seconds", "3600")),
    )
    node.finish()
    return clock


def _rule(node: Node, record: Record) -> Rule:
    when, then = node.block("when"), node.block("set", {})
    conditions = []
    for name in when.value:
        item = _field(when, name, record)
        value = when.raw(name)
        if isinstance(value, dict):
            bounds = Node(node.file, f"{when.path}.{name}", value)
            if item.kind not in ("seconds", "integer"):
                raise bounds.error("", "above and below need a field that is a number")
            above = bounds.number("above", "0") if bounds.has("above") else None
            below = bounds.number("below", "0") if bounds.has("below") else None
            bounds.finish(allowed=("above", "below"))
            conditions.append(Condition(name, above=above, below=below))
        else:
            values = tuple(_null(text) for text in when.texts(name))
            for text in values:
                if item.codes and text and text not in item.codes:
                    raise when.error(name, f"'{text}' is not one of {', '.join(item.codes)}")
            conditions.append(Condition(name, values))
    settings = []
    for name in then.value:
        item, text = _field(then, name, record), _null(then.text(name))
        if item.kind not in ("text", "code", "seconds", "instant") or (
            text is not None and item.kind == "instant"
        ):
            raise then.error(name, "only texts, codes and seconds can be set, and times emptied")
        if item.codes and text and text not in item.codes:
            raise then.error(name, f"'{text}' is not one of {', '.join(item.codes)}")
        settings.append((name, text))
    if not conditions or not (settings or node.has("issue")):
        raise node.error("", "needs 'when', and 'set' or 'issue'")
    rule = Rule(tuple(conditions), tuple(settings), node.text("issue", "") or None)
    node.finish()
    return rule


def _null(text: str) -> str | None:
    return None if text in ("", "null", "~") else text
