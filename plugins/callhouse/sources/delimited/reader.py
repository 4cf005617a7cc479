"""From the bytes of a delimited file to rows of text, with each line's number and bytes.

Lines are the unit of trouble: whatever is wrong with one of them, the others are read.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import polars as pl

from callhouse.sources.contract import CUT_OFF, FileLayout, Inspection, RefusedError, Rejected
from callhouse.sources.delimited.mapping import DELIMITERS, RecordMapping
from callhouse.sources.files import BLOCK_BYTES, LONGEST_LINE, LineFile

try:
    from _md5 import md5  # type: ignore[import-not-found]  # OpenSSL costs twice as much per row
except ImportError:
    from hashlib import md5

LONGEST_QUOTED_ROW = 100  # lines that one quoted field may span
SAMPLE_LINES = 100
# From this share of unreadable lines on, the encoding is wrong, not the lines.
WRONG_ENCODING_SHARE = 0.2


@dataclass(frozen=True)
class Header:
    """The columns of one file. `width` is what every row must have."""

    names: list[str]
    width: int
    line: bytes | None  # the header line, which concatenated exports repeat
    notes: list[str]


@dataclass(frozen=True)
class RawRows:
    """Rows as text, one column per column of the file, plus `line_number` and `row_hash`."""

    frame: pl.DataFrame
    contents: list[bytes]  # bytes of each row of `frame`
    is_padded: bool  # some cells may begin or end with blanks
    rejected: list[Rejected]
    blank_lines: int
    header_rows: int
    position: float


class DelimitedFile(LineFile):
    """One file. Open in its block: `inspect` comes first, then `header`, then `rows`."""

    def __init__(self, path: Path, mapping: RecordMapping, feed_file: str) -> None:
        super().__init__(path)
        self.mapping, self.feed_file = mapping, feed_file
        self.first_line = 1

    # ------------------------------------------------------------------------------ bytes
    def _chunks(self) -> Iterator[bytes]:
        """The file's uncompressed bytes, as UTF-8 where the encoding is not a superset of ASCII."""
        wide = self.mapping.encoding.startswith(("utf-16", "utf-32"))
        decoder = codecs.getincrementaldecoder(self.mapping.encoding)() if wide else None
        first = True
        try:
            for chunk in self._uncompressed(BLOCK_BYTES):
                text = decoder.decode(chunk).encode() if decoder else chunk
                if first:
                    self._refuse_utf16(text)
                    text = text.removeprefix(codecs.BOM_UTF8)
                    first = False
                yield text
            if decoder and (rest := decoder.decode(b"", final=True)):
                yield rest.encode()
        except UnicodeDecodeError as error:
            raise RefusedError(
                f"{self.name} is not {self.mapping.encoding} (byte {error.start} of a block): "
                f"set 'encoding' in {self.feed_file}, or get the file again"
            ) from None

    def _refuse_utf16(self, chunk: bytes) -> None:
        if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise RefusedError(
                f"{self.name} line 1 is UTF-16, but {self.feed_file} says "
                f"{self.mapping.encoding}: set 'encoding: utf-16'"
            )

    # ------------------------------------------------------------------------------ inspection
    def inspect(self) -> Inspection:
        """Hash the content and refuse what no row could be read from."""
        digest = hashlib.sha256()
        size = lines = unreadable = foreign = first_bad = 0
        for block in self._blocks():
            digest.update(block)
            size += len(block)
            if not block.isascii():
                bad, valid_utf8 = self._unreadable_lines(block)
                if bad and not first_bad:
                    first_bad = lines + bad[0] + 1
                unreadable += len(bad)
                foreign += valid_utf8
            lines += block.count(b"\n") + (not block.endswith(b"\n"))
        if not size:
            raise RefusedError(f"{self.name} is empty: get the file again, or remove it")
        is_share = unreadable > 1 and unreadable > WRONG_ENCODING_SHARE * lines
        if is_share or first_bad == 1 or unreadable == lines:
            raise RefusedError(
                f"{self.name} line {first_bad} is not {self.mapping.encoding} ({unreadable} of "
                f"{lines} lines are not){self._guess(first_bad)}: set 'encoding' in "
                f"{self.feed_file}"
            )
        if foreign >= 12 and not unreadable and self.mapping.encoding != "utf-8":
            raise RefusedError(
                f"{self.name} is UTF-8, but {self.feed_file} says {self.mapping.encoding}: "
                "set 'encoding: utf-8'"
            )
        return Inspection(digest.hexdigest(), size, self._stat())

    def _unreadable_lines(self, block: bytes) -> tuple[list[int], int]:
        """Lines that the encoding cannot be, and bytes that could be UTF-8 instead."""
        foreign = 0
        if self._encoding != "utf-8":
            try:
                foreign = len(block) - len(block.decode())
            except UnicodeDecodeError:
                foreign = -(1 << 40)
        try:
            block.decode(self._encoding)
        except UnicodeDecodeError:
            lines = enumerate(block.split(b"\n"))
            return [number for number, line in lines if not self._decodes(line)], foreign
        return [], foreign

    @property
    def _encoding(self) -> str:
        """What the lines are in, however the file was."""
        wide = self.mapping.encoding.startswith(("utf-16", "utf-32"))
        return "utf-8" if wide else self.mapping.encoding

    def _decodes(self, line: bytes) -> bool:
        try:
            line.decode(self._encoding)
        except UnicodeDecodeError:
            return False
        return True

    def _guess(self, line_number: int) -> str:
        """An encoding that the line could have been written in."""
        number = 0
        for block in self._blocks():
            for line in block.split(b"\n"):
                number += 1
                if number < line_number:
                    continue
                for name in ("utf-8", "gb18030"):
                    try:
                        line.decode(name)
                    except UnicodeDecodeError:
                        continue
                    return f"; it can be read as {name}"
                return ""
        return ""

    # ------------------------------------------------------------------------------ header
    def header(self) -> Header:
        """Find the columns, or refuse the file with a sentence that names line and fix."""
        sample: list[bytes] = []
        block = next(self._blocks(), b"")
        for line in block[: 1 << 20].split(b"\n"):
            if line.strip() and len(sample) < SAMPLE_LINES:
                sample.append(line.rstrip(b"\r"))
        if not sample:
            raise RefusedError(f"{self.name} holds only blank lines: get the file again")
        first = [cell.strip() for cell in self._cells(sample[0])]
        is_headerless = self.mapping.header == "no"
        if self.mapping.header == "optional":
            known = len(set(first) & set(self.mapping.names))
            is_headerless = known <= len(self.mapping.names) // 2
        if is_headerless:
            self._check_delimiter(sample[0], first)
            widths = [len(self._cells(line)) for line in sample]
            header = self._headerless(max(set(widths), key=widths.count))
        else:
            header = self._named(sample[0])
        self._keep(header)
        return header

    def _keep(self, header: Header) -> None:
        self.layout = {
            "header": None if header.line is None else header.line.hex(),
            "width": header.width,
            "encoding": self._encoding,
        }

    def _named(self, line: bytes) -> Header:
        """The columns that a header line names."""
        first = [cell.strip() for cell in self._cells(line)]
        self._check_delimiter(line, first)
        while first and not first[-1]:  # a delimiter at the end of the line names no column
            first.pop()
        if lacking := [name for name in self.mapping.needed if name not in first]:
            missing = ", ".join(f"'{name}'" for name in lacking)
            raise RefusedError(
                f"{self.name} line 1 has no column {missing} (it has {_listed(first)}): "
                f"correct the export, or the column names in {self.feed_file}"
            )
        for name in self.mapping.needed:
            if first.count(name) > 1:
                raise RefusedError(
                    f"{self.name} line 1 has column '{name}' twice: correct the export"
                )
        known_names = self.mapping.names or tuple(self.mapping.needed)
        extra = [name for name in first if name not in known_names]
        notes = [f"columns not in the mapping: {_listed(extra)}"] if extra else []
        names = [f"{i}:{name}" if first.count(name) > 1 else name for i, name in enumerate(first)]
        return Header(names, len(names), line, notes)

    def _headerless(self, usual: int) -> Header:
        """The columns that the mapping names, for lines that usually have so many."""
        names = list(self.mapping.names)
        if usual < len(names):
            raise RefusedError(
                f"{self.name}: its lines have {usual} columns, but {self.feed_file} names "
                f"{len(names)}: correct 'names', or get the file again"
            )
        extra = usual - len(names)
        notes = [f"{extra} columns at the end that the mapping does not name"] if extra else []
        return Header([*names, *(f"extra {i + 1}" for i in range(extra))], usual, None, notes)

    def _check_delimiter(self, line: bytes, cells: list[str]) -> None:
        if len(cells) > 1 or len(self.mapping.needed) < 2:
            return
        words = {mark: word for word, mark in DELIMITERS.items()}
        text = line.decode(self._encoding, "replace")
        counts = {mark: text.count(mark) for mark in DELIMITERS.values()}
        best = max(counts, key=lambda mark: counts[mark])
        hint = (
            f"it looks separated by {words[best]}: set 'delimiter: {words[best]}' in "
            f"{self.feed_file}"
            if counts[best]
            else f"get the file again, or correct 'delimiter' in {self.feed_file}"
        )
        wanted = words.get(self.mapping.delimiter, self.mapping.delimiter)
        raise RefusedError(f"{self.name} line 1 has no delimiter {wanted}; {hint}")

    def _cells(self, line: bytes) -> list[str]:
        text = line.decode(self._encoding, "replace")
        if self.mapping.quote is None or self.mapping.quote not in text:
            return text.split(self.mapping.delimiter)
        return next(self._csv_reader([text]))

    def _csv_reader(self, lines: list[str], *, strict: bool = False) -> Iterator[list[str]]:
        csv.field_size_limit(LONGEST_LINE)
        return csv.reader(
            lines, delimiter=self.mapping.delimiter, quotechar=self.mapping.quote, strict=strict
        )

    # ------------------------------------------------------------------------------ rows
    def rows(self, header: Header, size_bytes: int) -> Iterator[RawRows]:
        """Blocks of rows in file order. Line numbers count every line of the file from 1."""
        line_number = self.first_line
        done = 0
        is_first = True
        carried: list[bytes] = []  # lines of a quoted row that goes on in the next block
        for block in self._blocks():
            done += len(block)
            is_last = done >= size_bytes
            lines = block.split(b"\n")
            if not lines[-1]:
                lines.pop()
            lines = carried + lines
            carried = []
            if b"\r" in block:
                lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
            is_whole = len(lines) == block.count(b"\n") and b"\r" not in block
            parser = _BlockParser(self, header, lines, line_number, block if is_whole else None)
            rows, used = parser.parse(
                is_first=is_first,
                is_last=is_last,
                is_cut=is_last and not block.endswith(b"\n"),
                position=done / size_bytes if size_bytes else 1.0,
            )
            is_first = False
            carried = lines[used:]
            line_number += used
            yield rows

    def rows_again(self, kept: Sequence[Rejected], layout: FileLayout | None) -> RawRows:
        """Rows that were set aside, each parsed by itself: none may run on into the next one."""
        if layout is None:
            raise RefusedError(
                f"{self.name} was landed before the columns of files were kept: land its lines "
                "again under their header"
            )
        if layout["header"] is None and self.mapping.header == "yes":
            raise RefusedError(
                f"{self.name} was landed without a header, which {self.feed_file} now asks for: "
                "set 'header: optional', or land its lines again under a header"
            )
        # Lines were readable in the encoding of their landing, except those that say they were not.
        then = DelimitedFile(
            self.path, replace(self.mapping, encoding=layout["encoding"]), self.feed_file
        )
        if layout["header"] is None or self.mapping.header == "no":
            header = then._headerless(layout["width"])
        else:
            header = then._named(bytes.fromhex(layout["header"]))
        parsers: list[_BlockParser] = []
        rejected: list[Rejected] = []
        for row in kept:
            file = self if row.code == "encoding" else then
            lines = row.content.split(b"\n")
            parser = _BlockParser(file, header, lines, row.line_number, None)
            parser._sort_out(is_last=True, is_cut=False)
            if parser.contents == [row.content] and not parser.rejected:
                parsers.append(parser)
            elif [found.content for found in parser.rejected] == [row.content]:
                rejected += parser.rejected
            else:  # its lines are several rows by today's quotes, or none
                rejected.append(row)
        frame = pl.DataFrame(
            [cells for parser in parsers for cells in parser.cells()],
            dict.fromkeys(header.names, pl.String),
            orient="row",
        ).with_columns(
            pl.Series("row_hash", [md5(p.contents[0]).digest() for p in parsers], pl.Binary),  # noqa: S324  # no secret
            pl.Series("line_number", [parser.start for parser in parsers], pl.Int64),
        )
        contents = [parser.contents[0] for parser in parsers]
        return RawRows(
            frame, contents, is_padded=True, rejected=rejected, blank_lines=0, header_rows=0,
            position=1.0,
        )  # fmt: skip


class _BlockParser:
    """Parses some lines of a file. Fast where every line is plain, line by line where not."""

    def __init__(
        self, file: DelimitedFile, header: Header, lines: list[bytes], start: int,
        block: bytes | None,
    ) -> None:  # fmt: skip
        self.file, self.header, self.lines, self.start = file, header, lines, start
        # The bytes of exactly these lines, if they were read as they are.
        self.block = block if block is not None else b"\n".join([*lines, b""])
        self.text = self.block  # what the fast parser gets
        self.delimiter = file.mapping.delimiter.encode()
        self.quote = file.mapping.quote.encode() if file.mapping.quote else None
        self.rejected: list[Rejected] = []
        self.kept: list[int] = []  # indexes of the lines that rows begin on
        self.texts: list[bytes] = []  # what is parsed, in UTF-8
        self.contents: list[bytes] = []  # what was in the file
        self.special: dict[int, list[str]] = {}  # position in `kept` → cells parsed one by one
        self.is_odd = True  # blanks other than those of ASCII may be there
        self.has_blanks = True

    def parse(
        self, *, is_first: bool, is_last: bool, is_cut: bool, position: float
    ) -> tuple[RawRows, int]:
        used, blank, headers = len(self.lines), 0, 0
        if self._is_plain():
            self.texts = self.contents = self.lines
            self.kept = list(range(len(self.lines)))
            if is_first and self.header.line is not None:
                self.texts = self.contents = self.lines[1:]
                self.text = self.block[len(self.lines[0]) + 1 :]
                self.kept, headers = self.kept[1:], 1
        else:
            used, blank, headers = self._sort_out(is_last=is_last, is_cut=is_cut)
            self.text = b"\n".join([*self.texts, b""])
        frame = self._frame()
        is_padded = self.is_odd or (self.has_blanks and self._has_padding(frame))
        rows = RawRows(frame, self.contents, is_padded, self.rejected, blank, headers, position)
        return rows, used

    def _is_plain(self) -> bool:
        """No quote, no blank or odd line: the whole block can go through the fast parser."""
        if self.file._encoding != "utf-8":
            return False
        joined = self.block
        if b"\0" in joined or b"\r" in joined or (self.quote and self.quote in joined):
            return False
        if not joined.isascii():
            try:
                joined.decode()
            except UnicodeDecodeError:
                return False
        if self.header.line is not None and self.start > 1 and self.header.line in joined:
            return False
        wanted, delimiter = self.header.width - 1, self.delimiter
        self.is_odd = not joined.isascii()
        self.has_blanks = b" " in joined or b"\t" in joined
        counts = set(map(bytes.count, self.lines, repeat(delimiter)))
        return counts <= {wanted} and (wanted > 0 or all(self.lines))

    def _has_padding(self, frame: pl.DataFrame) -> bool:
        """Whether some cell begins or ends with a blank."""
        cells = pl.col(self.header.names)
        ends = [
            end(blank).any()
            for blank in (" ", "\t")
            if blank.encode() != self.delimiter
            for end in (cells.str.starts_with, cells.str.ends_with)
        ]
        return any(any(frame.select(end).row(0)) for end in ends)

    def _reject(self, index: int, code: str, reason: str, content: bytes) -> None:
        number = self.start + index
        self.rejected.append(
            Rejected(number, code, f"{self.file.name} line {number}: {reason}", None, content)
        )

    def _sort_out(self, *, is_last: bool, is_cut: bool) -> tuple[int, int, int]:
        """Line by line. Returns lines used (a quoted row may need more), blank lines, headers."""
        encoding, width = self.file._encoding, self.header.width
        blank = headers = index = 0
        while index < len(self.lines):
            line, first = self.lines[index], index
            index += 1
            if not line.strip():
                blank += 1
                continue
            if line == self.header.line:
                headers += 1
                continue
            if b"\0" in line:
                reason = "holds NUL bytes: check the export or its transport"
                self._reject(first, "nul_byte", reason, line)
                continue
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError as error:
                self._reject(
                    first,
                    "encoding",
                    f"byte {error.start + 1} is not {encoding}: correct the export, or 'encoding' "
                    f"in {self.file.feed_file}",
                    line,
                )
                continue
            cells: list[str] | None = None
            if (self.quote and self.quote in line) or "\r" in text:
                cells, taken = self._quoted(first, text, is_last=is_last)
                if taken == 0:  # goes on beyond this block
                    return first, blank, headers
                index = first + taken
                line = b"\n".join(self.lines[first:index])
            found = len(cells) if cells is not None else text.count(self.file.mapping.delimiter) + 1
            if found > width:  # delimiters at the end of the line carry nothing
                cells = cells if cells is not None else text.split(self.file.mapping.delimiter)
                if not any(cell.strip() for cell in cells[width:]):
                    cells, found = cells[:width], width
            if found != width:
                reason, code = f"has {found} columns instead of {width}", "column_count"
                if is_cut and index == len(self.lines):
                    reason, code = f"{reason} (the file ends within this line)", CUT_OFF
                self._reject(first, code, reason + ": correct the line and send it again", line)
                continue
            if cells is not None:
                self.special[len(self.kept)] = cells
            self.kept.append(first)
            self.contents.append(line)
            self.texts.append(text.encode() if encoding != "utf-8" else line)
        return len(self.lines), blank, headers

    def _quoted(self, first: int, text: str, *, is_last: bool) -> tuple[list[str] | None, int]:
        """Cells of a row with quotes, and how many lines it takes (0: ask again with more lines).

        A quoted field may span lines. Where its end does not come, or the result has the wrong
        width, the quote is taken as an ordinary character: one stray quote must not swallow rows.
        """
        if self.quote is None:
            return text.split(self.file.mapping.delimiter), 1
        parts = [text]
        for extra in range(LONGEST_QUOTED_ROW):
            try:
                rows = list(self.file._csv_reader(["\n".join(parts)], strict=True))
            except csv.Error:
                rows = []
            if len(rows) == 1 and len(rows[0]) == self.header.width:
                return rows[0], extra + 1
            if rows and len(rows) == 1 and not extra:
                return rows[0], 1  # well-formed, but of another width
            following = first + extra + 1
            if following >= len(self.lines):
                if is_last or following - first >= LONGEST_QUOTED_ROW:
                    break
                return None, 0
            try:
                parts.append(self.lines[following].decode(self.file._encoding))
            except UnicodeDecodeError:
                break
        return text.split(self.file.mapping.delimiter), 1

    def cells(self) -> list[list[str]]:
        """The rows, one text per column."""
        delimiter = self.file.mapping.delimiter
        return [
            self.special.get(i) or text.decode().split(delimiter)
            for i, text in enumerate(self.texts)
        ]

    def _frame(self) -> pl.DataFrame:
        names = self.header.names
        frame = None
        if self.texts and not self.special:
            frame = self._fast_frame(names)
        if frame is None:
            frame = pl.DataFrame(self.cells(), dict.fromkeys(names, pl.String), orient="row")
        hashes = [md5(content).digest() for content in self.contents]  # noqa: S324  # no secret
        return frame.with_columns(
            pl.Series("row_hash", hashes, dtype=pl.Binary),
            pl.Series("line_number", self.kept, dtype=pl.Int64) + self.start,
        )

    def _fast_frame(self, names: list[str]) -> pl.DataFrame | None:
        """All rows at once; None where the fast parser sees other rows than there are lines."""
        frame = pl.read_csv(
            self.text,
            has_header=False,
            new_columns=names,
            separator=self.file.mapping.delimiter,
            quote_char=None,
            infer_schema=False,
        )
        return frame if frame.shape == (len(self.texts), len(names)) else None


def _listed(names: list[str], most: int = 20) -> str:
    shown = ", ".join(name[:40] or "(no name)" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
