"""What every rendering of a world hands over, and how its files are written."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

UTC_OFFSET = timedelta(
    hours=8
)  # of the centre's time zone, which has had no summer time since 1991

Table = tuple[Sequence[str], Sequence[Sequence[object]]]


@dataclass(frozen=True)
class Rendering:
    """Files of one format with what they can say: `carried` are the tables of the truth that the
    clean files hold, `limits` the sentences about the rest."""

    name: str
    files: list[Path]
    lines: dict[str, int]  # by file, relative to the format's folder
    dirt: list[dict[str, Any]]
    limits: Sequence[tuple[str, str]]
    outcomes: dict[str, str]  # of queue visits, in the truth → as carried
    carried: dict[str, Table] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def first_second(start: date) -> int:
    """Epoch seconds of the first midnight."""
    midnight = datetime(start.year, start.month, start.day, tzinfo=timezone(UTC_OFFSET))
    return int(midnight.astimezone(UTC).timestamp())


def write_text(path: Path, lines: Sequence[str], whole: bool = True) -> None:
    """Write lines whole or not at all; `.gz` is compressed, without a clock time in it.

    `whole` false leaves out the last line end: the file broke off.
    """
    content = "\n".join(lines).encode()
    if lines and whole:
        content += b"\n"
    if path.suffix == ".gz":
        content = gzip.compress(content, 3, mtime=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
