"""What AWS wraps records in when it pushes them, taken off.

EventBridge rules send `{"detail-type": …, "detail": record}`, EventBridge Pipes an array of Kinesis
records with `data`, Firehose `{"requestId": …, "records": [{"data": base64}]}`; anybody else sends
a record, an array of them, or one per line.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any

from callhouse.sources import pushes
from callhouse.sources.amazon_connect.objects import DECODER, SPACE
from callhouse.sources.contract import Unreadable

Item = str | Unreadable


def opened(body: bytes, media: str) -> list[Item]:
    """The records of a request as texts, in its order."""
    found = pushes.values(body, media, _loaded)
    return [item for value in found for item in _records(value)]


def _loaded(text: str | bytes) -> Any:
    return DECODER.decode(text if isinstance(text, str) else text.decode())


def _records(value: Any) -> Iterator[Item]:
    if isinstance(value, Unreadable):
        yield value
    elif not isinstance(value, dict):
        yield Unreadable("broken_json", "is no JSON object", pushes.written(value))
    elif "detail-type" in value and "detail" in value:
        yield from _records(value["detail"])
    elif "requestId" in value and isinstance(value.get("records"), list):
        for item in value["records"]:
            yield from _data(item)
    elif value.get("eventSource") == "aws:kinesis" or "kinesisSchemaVersion" in value:
        yield from _data(value)
    else:
        yield json.dumps(value)


def _data(wrapped: Any) -> Iterator[Item]:
    """Records of a stream's record: a stream may put several into one."""
    data = wrapped.get("data") if isinstance(wrapped, dict) else None
    if isinstance(data, dict):  # an input template has decoded it
        yield json.dumps(data)
        return
    try:
        text = base64.b64decode(data, validate=True).decode() if isinstance(data, str) else ""
    except (binascii.Error, ValueError):
        text = ""
    place = SPACE.match(text, 0).end()  # type: ignore[union-attr]  # matches nothing, too
    if place == len(text):
        yield Unreadable("no_data", "holds no data in base64", pushes.written(wrapped))
    while place < len(text):
        try:
            value, place = DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            rest = text[place:].encode()
            yield Unreadable("broken_json", "is broken JSON", rest)
            return
        yield from _records(value)
        place = SPACE.match(text, place).end()  # type: ignore[union-attr]
