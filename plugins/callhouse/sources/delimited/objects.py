"""Records as JSON objects, and the lines of a delimited file that say the same."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from callhouse.sources import pushes
from callhouse.sources.contract import Unreadable

if TYPE_CHECKING:
    from callhouse.sources.delimited.mapping import RecordMapping


def load(text: str | bytes) -> Any:
    """A JSON document. Numbers stay the text that they were: nothing is rounded."""
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)


def taken(body: bytes, media: str) -> list[dict[str, Any] | Unreadable]:
    """The records of a request."""
    return [
        value if isinstance(value, dict | Unreadable)
        else Unreadable("broken_json", "is no JSON object", pushes.written(value))
        for value in pushes.values(body, media, load)
    ]  # fmt: skip


def identities(mapping: RecordMapping, items: Sequence[Any]) -> set[Hashable]:
    """Cells of the records' keys, or of the plans that they are parts of."""
    columns = key_columns(mapping)
    return {tuple(cells(item, columns)) for item in items if not isinstance(item, Unreadable)}


def at(value: Any, path: str) -> Any:
    """What lies at a dotted path, numbers for places in lists; None where nothing does."""
    if isinstance(value, dict) and path in value:
        return value[path]
    for part in path.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isascii() and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def text(value: Any) -> str:
    """A value as a cell: lists of single values with commas, deeper ones as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return re.sub(r"[\r\n]+", " ", value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return ",".join(text(item) for item in value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def cells(record: Any, columns: Sequence[str]) -> list[str]:
    """The record's values in the order of the columns."""
    return [text(at(record, name)) for name in columns]


def key_columns(mapping: RecordMapping) -> Sequence[str]:
    """Columns that tell one record from another: all of them, where the key is in none."""
    own = {item.field.name: item.columns for item in mapping.columns}
    names = mapping.record.key or mapping.record.plan
    key = [column for name in names for column in own.get(name, ())]
    return key or mapping.needed


def line(mapping: RecordMapping, values: Sequence[str]) -> str:
    """A line with its end. ValueError where the mapping has no quote for what a value holds."""
    if mapping.quote is None:
        if any(mapping.delimiter in value for value in values):
            raise ValueError("a value holds the delimiter, and the feed has no quote")
        return mapping.delimiter.join(values) + "\n"
    written = io.StringIO()
    csv.writer(
        written, delimiter=mapping.delimiter, quotechar=mapping.quote, lineterminator="\n"
    ).writerow(values)
    return written.getvalue()
