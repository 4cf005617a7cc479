"""The chain of entries: how one is hashed, what was anchored elsewhere, and what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from callhouse.errors import CallhouseError

BEGINNING = bytes(32)
# As trail.append hashes them; hash and previous_hash follow when entries are read.
COLUMNS = (
    "entry_id", "happened_at", "recorded_at", "person", "origin", "address", "program", "action",
    "object_name", "statement", "row_count", "is_export", "outcome", "source_position",
)  # fmt: skip


@dataclass(frozen=True)
class Anchor:
    """The head of the chain at one moment."""

    entry_id: int
    hash: str  # hexadecimal
    anchored_at: str


@dataclass(frozen=True)
class Verdict:
    """`problem` names the first entry that is not as it was written; None: all `entries` are."""

    entries: int
    anchors: int
    head: str
    problem: str | None


def canonical(row: Sequence[Any]) -> str:
    """The text of an entry that is hashed: `COLUMNS` as JSON, as PostgreSQL's jsonb prints it."""
    cells = [
        f"{cell.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}" if isinstance(cell, datetime) else cell
        for cell in row
    ]
    return json.dumps(cells, ensure_ascii=False, separators=(", ", ": "))


def hashed(previous: bytes, row: Sequence[Any]) -> bytes:
    """The hash of an entry that follows the one with hash `previous`."""
    return hashlib.sha256(previous + canonical(row).encode()).digest()


def verify(rows: Iterable[Sequence[Any]], anchors: Sequence[Anchor] | None) -> Verdict:
    """Walk `rows` (`COLUMNS`, previous_hash, hash; by entry_id); `anchors` None: there is no file.

    Stops at the first entry that was changed, removed or put in, or that is not the anchored one.
    """
    last, head = 0, BEGINNING
    known = {anchor.entry_id: anchor for anchor in anchors or ()}
    count = len(anchors or ())
    before = 0  # the last anchored entry that is as it was

    def verdict(problem: str | None) -> Verdict:
        return Verdict(last, count, head.hex(), problem)

    for row in rows:
        *values, previous, stored = row
        entry = int(values[0])
        if entry != last + 1:
            return verdict(f"entry {last + 1} is missing: the next one is entry {entry}")
        if bytes(previous) != head:
            return verdict(
                f"entry {entry} does not follow entry {last}: one of them was put in or replaced"
            )
        if hashed(head, values) != bytes(stored):
            return verdict(f"entry {entry} was changed after it was written")
        anchor = known.get(entry)
        if anchor and anchor.hash != bytes(stored).hex():
            return verdict(
                f"entry {entry} is not the one that was anchored at {anchor.anchored_at}: entries "
                f"were rewritten, the first between {before + 1} and {entry}"
            )
        if anchor:
            before = entry
        last, head = entry, bytes(stored)
    newest = max(known, default=0)
    if newest > last:
        return verdict(
            f"entry {last + 1} is missing: the chain is cut off after entry {last}, but entry "
            f"{newest} was anchored at {known[newest].anchored_at}"
        )
    if last and not known:
        why = "there is no anchor file" if anchors is None else "no entry was anchored"
        return verdict(f"entry 1 cannot be vouched for: {why}")
    return verdict(None)


def read_anchors(file: Path) -> list[Anchor] | None:
    """What `anchor` has written; None where the file is not there."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    found: dict[int, Anchor] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) != 3 or not words[0].isdigit() or len(words[1]) != 64:
            continue  # cut off when the machine stopped; the next collect anchored again
        anchor = Anchor(int(words[0]), words[1], words[2])
        if found.setdefault(anchor.entry_id, anchor).hash != anchor.hash:
            raise CallhouseError(
                f"line {number} of {file} anchors entry {anchor.entry_id} a second time, and "
                "otherwise: the trail was rewritten between the two"
            )
    return list(found.values())


def anchor(file: Path, entry_id: int, digest: bytes) -> None:
    """Add the head of the chain to the file, and wait until it is on the disk."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = f"{entry_id} {digest.hex()} {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n"
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = f"\n{line}"
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
