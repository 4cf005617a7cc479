"""Files of lines: plain or gzip, hashed, cut into blocks at line ends."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

from callhouse.sources.contract import FileLayout, Inspection, RefusedError

BLOCK_BYTES = 8 << 20
# A text file has line ends; 64 MiB without one is something else.
LONGEST_LINE = 64 << 20
MAGIC = {b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7-Zip archive", b"BZh": "bzip2",
         b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "Zstandard", b"\xd0\xcf\x11\xe0": "an Excel file",
         b"PAR1": "a Parquet file"}  # fmt: skip


class LineFile:
    """One file, open within its block. What is neither text nor gzip is refused at once."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.layout: FileLayout = {}

    def __enter__(self) -> Self:
        self._handle: IO[bytes] = self.path.open("rb")
        start = self._handle.read(8)
        self.is_gzip = start.startswith(b"\x1f\x8b")
        for magic, kind in MAGIC.items():
            if start.startswith(magic):
                self._handle.close()
                raise RefusedError(f"{self.name} is {kind}: send text, plain or as .gz")
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def inspect(self) -> Inspection:
        """Hash the content; an empty file has nothing to land."""
        digest = hashlib.sha256()
        size = 0
        for block in self._blocks():
            digest.update(block)
            size += len(block)
        if not size:
            raise RefusedError(f"{self.name} is empty: get the file again, or remove it")
        return Inspection(digest.hexdigest(), size, self._stat())

    def is_unchanged(self, seen: Inspection) -> bool:
        """Whether the file is still as it was inspected."""
        return seen.stat == self._stat()

    def _stat(self) -> tuple[int, int]:
        status = os.fstat(self._handle.fileno())
        return status.st_size, status.st_mtime_ns

    def _uncompressed(self, size: int = BLOCK_BYTES) -> Iterator[bytes]:
        self._handle.seek(0)
        stream: IO[bytes] | gzip.GzipFile = self._handle
        if self.is_gzip:
            stream = gzip.GzipFile(fileobj=self._handle)
        try:
            while chunk := stream.read(size):
                yield chunk
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise RefusedError(
                f"{self.name} is cut off or damaged ({error}): get the file again; "
                "nothing of it was landed"
            ) from None

    def _chunks(self) -> Iterator[bytes]:
        """The file's uncompressed bytes in a superset of ASCII, without byte order mark."""
        first = True
        for chunk in self._uncompressed():
            if first and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise RefusedError(f"{self.name} line 1 is UTF-16: send UTF-8")
            yield chunk.removeprefix(codecs.BOM_UTF8) if first else chunk
            first = False

    def _blocks(self) -> Iterator[bytes]:
        """Bytes cut at line ends; only the last block may end without one."""
        rest: list[bytes] = []
        held = 0
        old_mac: bool | None = None
        for chunk in self._chunks():
            if old_mac is None:
                old_mac = b"\n" not in chunk and b"\r" in chunk
            if old_mac:
                chunk = chunk.replace(b"\r", b"\n")
            end = chunk.rfind(b"\n") + 1
            if end:
                yield b"".join((*rest, chunk[:end]))
                rest, held = [], 0
            rest.append(chunk[end:])
            held += len(chunk) - end
            if held > LONGEST_LINE:
                raise RefusedError(
                    f"{self.name} has {LONGEST_LINE >> 20} MiB without a line end: "
                    "this is no text of lines; check what the export wrote"
                )
        if held:
            yield b"".join(rest)


class HeldFile(LineFile):
    """Content that is in memory, and is no file. Subclasses set `content` and `content_hash`.

    The hash is the caller's: the same content at another time may be another unit.
    """

    content: bytes
    content_hash: str

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def inspect(self) -> Inspection:
        """What the caller says of it."""
        return Inspection(self.content_hash, len(self.content), (len(self.content), 0))

    def is_unchanged(self, seen: Inspection) -> bool:  # noqa: ARG002  # the protocol's
        """Always: it was read."""
        return True

    def _chunks(self) -> Iterator[bytes]:
        yield self.content
