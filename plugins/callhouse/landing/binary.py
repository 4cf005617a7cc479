"""Rows in COPY's binary form, column-wise.

Binary, because the server would spend more time on reading timestamps as text than on storing
rows. A field is its length (4 bytes, big-endian, -1 for null) and its bytes.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from callhouse.sources.contract import Field

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
TEXT_OID = 25
# PostgreSQL counts from 2000-01-01.
EPOCH_MICROSECONDS = 946_684_800_000_000
EPOCH_DAYS = 10_957
INTEGERS = {pl.Int16: ">i2", pl.Int32: ">i4", pl.Int64: ">i8"}
# A numeric of three base-10,000 digits, in 1/1000: below 10⁸ seconds (contract.LONGEST_SECONDS).
NUMERIC = np.dtype(
    [("length", ">i4"), ("digits", ">i2"), ("weight", ">i2"), ("sign", ">i2"), ("scale", ">i2"),
     ("high", ">i2"), ("low", ">i2"), ("fraction", ">i2")]
)  # fmt: skip
USUAL_SECONDS = 20_000


def encode(
    rows: pl.DataFrame, fields: dict[str, Field], constants: dict[str, bytes]
) -> tuple[list[str], bytes]:
    """(columns, COPY bytes) of `rows`, which is not empty.

    Columns without any value are left out. The order is ours: first what is the same in every
    row of the block (`constants` and more), then fields of equal size, then the others, so that
    as few pieces as possible have to be joined row by row.
    """
    same = dict(constants)
    fixed: dict[str, np.ndarray] = {}
    varying: dict[str, list[pa.Array]] = {}
    for values in rows:
        nulls = values.null_count()
        if nulls == values.len():
            continue
        item = fields.get(values.name)
        if item is not None and item.kind == "json":
            values = _json(values)
        if values.name == "data_issues":
            varying[values.name] = [_text_arrays(values)]
        elif values.dtype == pl.String and not nulls and (values == values[0]).all():
            same[values.name] = values[0].encode()
        elif values.dtype == pl.String:
            varying[values.name] = _texts(values)
        else:
            packed = _packed(values, item)
            if nulls:
                empty = values.is_null().to_arrow()
                whole = _array(packed)
                varying[values.name] = [pc.if_else(empty, _scalar(NULL), whole)]
            else:
                fixed[values.name] = packed
    start = struct.pack(">h", len(same) + len(fixed) + len(varying))
    start += b"".join(struct.pack(">i", len(value)) + value for value in same.values())
    together = np.empty(rows.height, [(name, packed.dtype) for name, packed in fixed.items()])
    for name, packed in fixed.items():
        together[name] = packed
    pieces = [piece for parts in varying.values() for piece in parts]
    joined = pc.binary_join_element_wise(_scalar(start), _array(together), *pieces, _scalar(b""))
    return [*same, *fixed, *varying], b"".join((HEADER, joined.buffers()[2], TRAILER))


def _packed(values: pl.Series, item: Field | None) -> np.ndarray:
    """Fields of equal size, length included; rows without value hold anything."""
    if item is not None and item.kind == "seconds":
        return _numeric(values.fill_null(0).to_numpy())
    if values.dtype == pl.Binary:  # uuids
        content = values.fill_null(bytes(16)).to_arrow().cast(pa.large_binary())
        body = np.frombuffer(content.buffers()[2], "V16")
    elif values.dtype == pl.Date:
        body = (values.cast(pl.Int32).fill_null(0).to_numpy() - EPOCH_DAYS).astype(">i4")
    elif item is not None and item.kind == "instant":
        body = (values.fill_null(0).to_numpy() - EPOCH_MICROSECONDS).astype(">i8")
    else:
        body = values.fill_null(0).to_numpy().astype(INTEGERS[values.dtype.base_type()])
    packed = np.empty(len(body), [("length", ">i4"), ("body", body.dtype)])
    packed["length"], packed["body"] = body.dtype.itemsize, body
    return packed


def _json(values: pl.Series) -> pl.Series:
    """jsonb on the wire is a version number (1) and the text."""
    return (
        values.to_frame()
        .select((pl.lit("\x01") + pl.col(values.name)).alias(values.name))
        .to_series()
    )


def _texts(values: pl.Series) -> list[pa.Array]:
    lengths = values.str.len_bytes().cast(pl.Int32).fill_null(-1).to_numpy().astype(">i4")
    return [_array(lengths), values.fill_null("").to_arrow().cast(pa.large_binary())]


def _text_arrays(values: pl.Series) -> pa.Array:
    """text[] of comma-separated texts. Few distinct values: encoded one by one."""
    coded = values.fill_null("").to_arrow().dictionary_encode()
    fields = []
    for text in coded.dictionary.to_pylist():
        items = text.encode().split(b",")
        body = struct.pack(">iiiii", 1, 0, TEXT_OID, len(items), 1)
        body += b"".join(struct.pack(">i", len(item)) + item for item in items)
        fields.append(struct.pack(">i", len(body)) + body if text else NULL)
    return pa.array(fields, pa.large_binary()).take(coded.indices)


def _numeric(seconds: np.ndarray) -> np.ndarray:
    whole = seconds.astype(np.int64)
    if (whole == seconds).all() and whole.max(initial=0) < USUAL_SECONDS:
        return np.take(_usual_numbers(), whole)
    thousandths = np.rint(seconds * 1000).astype(np.int64)
    whole, fraction = np.divmod(thousandths, 1000)
    return _numbers(whole, fraction).view(f"V{NUMERIC.itemsize}")


@lru_cache(maxsize=1)
def _usual_numbers() -> np.ndarray:
    """The numbers that nearly all durations are, ready to be looked up."""
    whole = np.arange(USUAL_SECONDS)
    return _numbers(whole, np.zeros_like(whole)).view(f"V{NUMERIC.itemsize}")


def _numbers(whole: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    result = np.zeros(len(whole), NUMERIC)
    result["length"], result["digits"], result["weight"] = NUMERIC.itemsize - 4, 3, 1
    result["scale"] = np.where(fraction == 0, 0, 3)
    result["high"], result["low"] = np.divmod(whole, 10_000)
    result["fraction"] = fraction * 10
    return result


def _scalar(content: bytes) -> pa.Scalar:
    return pa.scalar(content, pa.large_binary())


def _array(items: np.ndarray) -> pa.Array:
    """Items of equal size as an Arrow array of bytes."""
    size = items.dtype.itemsize
    offsets = np.arange(0, (len(items) + 1) * size, max(size, 1), dtype=np.int64)
    data = np.ascontiguousarray(items).view(np.uint8)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_binary(), len(items), buffers)
