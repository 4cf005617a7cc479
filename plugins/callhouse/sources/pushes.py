"""Records that a sender pushes: what the feed's YAML says of it, and what a request may hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from callhouse.errors import CallhouseError
from callhouse.sources.contract import Pushed, Record, RefusedError, Unreadable
from callhouse.sources.document import Node
from callhouse.sources.watch import SHORTEST_INTERVAL, seconds

JSON = ("application/json",)
LINES_OF_JSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
TEXT = ("text/plain",)
# Reasons name so much of what is no JSON.
LONGEST_FAULT = 100


class MediaError(RefusedError):
    """The body is of a media type that the feed does not take."""


Load = Callable[[str | bytes], Any]


@dataclass(frozen=True)
class Receive:
    """How a feed is pushed. `quiet_seconds`: the sender says something at least this often."""

    authorization: Literal["signed", "api_key"]
    quiet_seconds: int | None


def read(node: Node) -> Receive:
    """Check `receive` of a feed: `signed` or `api_key`, or a block with `authorization`."""
    value = node.raw("receive")
    block = node
    key = "receive"
    if isinstance(value, dict):
        block, key = node.block("receive"), "authorization"
    kind = block.text(key, "signed", ("signed", "api_key"))
    quiet = None
    if isinstance(value, dict):
        if block.has("quiet_seconds"):
            quiet = seconds(block, "quiet_seconds", 0)
            if quiet < SHORTEST_INTERVAL:
                raise block.error(
                    "quiet_seconds",
                    f"at least {SHORTEST_INTERVAL}: the watch looks once a minute",
                )
        block.finish(allowed=("quiet_seconds",))
    return Receive("api_key" if kind == "api_key" else "signed", quiet)


def name(feed: Pushed, record: Record) -> str:
    """What pushes of a record are called: a name by which the feed knows the record again."""
    for pattern in feed.files:
        found = pattern.replace("*", "push").replace("?", "0")
        try:
            if feed.record_for(found) is record:
                return found
        except RefusedError:
            continue  # a pattern with [brackets]
    raise CallhouseError(
        f"{feed.file.name}: no name of a file says that {record.name} are pushed: add "
        f"'{record.name}_*' to its 'files'"
    )


def values(body: bytes, media: str, load: Load = json.loads) -> list[Any]:
    """The values of a JSON document, or of one per line; the elements where it is an array."""
    if media in LINES_OF_JSON:
        return [_value(line, load) for line in body.splitlines() if line.strip()]
    if media not in JSON:
        raise MediaError(f"{media or 'no media type'}: send {' or '.join(JSON + LINES_OF_JSON)}")
    try:
        value = load(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the body is no JSON ({_short(error)})") from None
    return value if isinstance(value, list) else [value]


def _value(line: bytes, load: Load) -> Any:
    try:
        return load(line)
    except (ValueError, RecursionError) as error:
        return Unreadable("broken_json", f"is broken JSON ({_short(error)})", line)


def _short(error: Exception) -> str:
    # What json says of a fault quotes nothing of the document but a single character.
    return " ".join(str(error).split())[:LONGEST_FAULT]


def written(value: Any) -> bytes:
    """A value that is no record, as quarantine keeps it."""
    return json.dumps(value, ensure_ascii=True).encode()


def lines(body: bytes, media: str) -> list[bytes]:
    """The lines of a text that are not blank."""
    if media not in TEXT:
        raise MediaError(f"{media or 'no media type'}: send {TEXT[0]}")
    return [line for line in body.split(b"\n") if line.strip()]


def kinds(feed: Pushed) -> dict[str, Record]:
    """What may be pushed, by name."""
    return {record.name: record for record in feed.kinds}
