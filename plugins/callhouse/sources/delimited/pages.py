"""A vendor's paged HTTP interface: JSON pages of an interval become one delimited file.

An interval is to landing what an object is in object storage, with a version that changes when it
is due again. It is handed over when all of its pages are there and fit together, or not at all.
"""

from __future__ import annotations

import datetime
import email.utils
import re
import tempfile
import time
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources import document
from callhouse.sources.delimited import objects
from callhouse.sources.document import Node
from callhouse.sources.storage import RemoteFile

if TYPE_CHECKING:
    import httpx

    from callhouse.sources.delimited.mapping import Feed, RecordMapping

EPOCHS = {"epoch_seconds": 1, "epoch_milliseconds": 1000}
# Readings of a page, and of an interval whose pages do not fit together.
PAGE_TRIES, INTERVAL_TRIES = 4, 3
# Before the second reading of a page; twice as long before each one after it.
FIRST_WAIT_SECONDS = 1.0
# Who is to wait longer is told, and the next look tries again.
LONGEST_WAIT_SECONDS = 60.0
# An answer that trickles in takes no more than this many time-outs.
MOST_TIMEOUTS = 10
LARGEST_PAGE = 256 << 20
OVERLOADED = (408, 425, 429)
REFUSED = (401, 403)


@dataclass(frozen=True)
class Tokens:
    """Where a client gets its token (OAuth 2.0, client credentials)."""

    url: str
    client_id: str
    scope: str | None


@dataclass(frozen=True)
class Endpoint:
    """One address of the vendor's, its intervals and how its answers are read."""

    url: str
    file: str  # what names of its files begin with
    query: tuple[tuple[str, str], ...]
    start: datetime.datetime  # first interval, UTC
    step: datetime.timedelta
    delay: datetime.timedelta  # from the end of an interval to its first reading
    again: int  # readings after the first one, one for each interval that ends
    bounds: tuple[str, str]  # parameters
    format: str
    zone: zoneinfo.ZoneInfo
    page: str | None  # parameter with the number of a page, or
    token: str | None  # with the token that the page before has told
    first_page: int
    size: tuple[str, int] | None  # parameter and records on a page
    most_pages: int
    records: str
    total: str | None
    next_token: str | None
    auth: Tokens | str  # none | bearer
    timeout_seconds: float

    def name(self, start: datetime.datetime) -> str:
        """Name of the file with the interval from `start`."""
        return f"{self.file}_{start:%Y%m%dT%H%M%SZ}.csv"

    def limits(self, start: datetime.datetime) -> dict[str, str]:
        """The interval's bounds as parameters: the end is no part of it."""
        moments = (start, start + self.step)
        return {
            name: str(int(moment.timestamp()) * EPOCHS[self.format])
            if self.format in EPOCHS
            else moment.astimezone(self.zone).strftime(self.format)
            for name, moment in zip(self.bounds, moments, strict=True)
        }

    @property
    def base(self) -> str:
        """Its address without an interval."""
        return f"{self.url}?{urlencode(self.query)}" if self.query else self.url

    def address(self, start: datetime.datetime) -> str:
        """What the interval is called in the ledger of what was read."""
        return f"{self.url}?{urlencode([*self.query, *self.limits(start).items()])}"

    def intervals(self, now: datetime.datetime) -> Iterator[tuple[datetime.datetime, str]]:
        """(start, version) of each that is over. The version changes with every reading due."""
        count = max(0, (now - self.delay - self.start) // self.step)
        newest = self.start + count * self.step
        for number in range(count):
            start = self.start + number * self.step
            yield start, min(newest, start + (1 + self.again) * self.step).isoformat()


# ------------------------------------------------------------------------------ reading YAML
def read(node: Node, zone: str, records: Sequence[RecordMapping]) -> Endpoint:
    """Check an entry of `pages`. `zone`, the feed's, says when the first day begins."""
    start = node.date("start")
    if start is None:
        raise node.error("start", "is missing: write the first day to read, YYYY-MM-DD")
    begin = datetime.datetime.combine(start, datetime.time(), zoneinfo.ZoneInfo(zone))
    size = _whole(node, "size", 0, 0, 100_000)
    endpoint = Endpoint(
        url=_url(node, "url"),
        file=node.text("file"),
        query=node.pairs("query"),
        start=begin.astimezone(datetime.UTC),
        step=datetime.timedelta(minutes=_whole(node, "minutes", 60, 5, 1440)),
        delay=datetime.timedelta(minutes=_whole(node, "delay_minutes", 5, 0, 10_080)),
        again=_whole(node, "again", 24, 0, 10_000),
        bounds=(node.text("from"), node.text("to")),
        format=node.text("format", "%Y-%m-%dT%H:%M:%SZ"),
        zone=zoneinfo.ZoneInfo(document.time_zone(node, "UTC")),
        page=node.text("page", "") or None,
        token=node.text("token", "") or None,
        first_page=_whole(node, "first_page", 1, 0, 1),
        size=(node.text("size_parameter"), size) if size else None,
        most_pages=_whole(node, "most_pages", 1000, 1, 100_000),
        records=node.text("records"),
        total=node.text("total", "") or None,
        next_token=node.text("next_token", "") or None,
        auth=_auth(node),
        timeout_seconds=_whole(node, "timeout_seconds", 30, 1, 600),
    )
    if (endpoint.page is None) == (endpoint.token is None):
        raise node.error("", "needs 'page' or 'token' (the parameter that leads on), not both")
    if (endpoint.token is None) != (endpoint.next_token is None):
        raise node.error("next_token", "goes with 'token': where the answer tells the next one")
    if endpoint.page and not (endpoint.total or endpoint.size):
        raise node.error("", "needs 'total' or 'size', else nothing says which page is the last")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}", endpoint.file):
        raise node.error("file", f"'{endpoint.file}': use letters, digits, _ and -")
    taken = [record for record in records if record.takes(endpoint.name(endpoint.start))]
    if not taken:
        raise node.error("file", f"no record takes {endpoint.name(endpoint.start)}: see 'files'")
    if (taken[0].header, taken[0].encoding, taken[0].quote) != ("yes", "utf-8", '"'):
        raise node.error("file", "its record needs header, encoding and quote as they are usual")
    node.finish(allowed=("size_parameter",))
    return endpoint


def _whole(node: Node, key: str, default: int, least: int, most: int) -> int:
    text = node.text(key, str(default))
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise node.error(key, f"'{text}' is no whole number from {least} to {most}")
    return int(text)


def _url(node: Node, key: str) -> str:
    text = node.text(key)
    parts = urlsplit(text)
    if parts.username or parts.password:
        raise node.error(key, "an address may hold no password: see 'auth'")
    if not parts.hostname or parts.query or parts.fragment or not text.isascii():
        raise node.error(key, "write https://host/path; parameters go into 'query'")
    # A token is worth as much as what it opens.
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise node.error(key, "must begin with https://")
    return text


def _auth(node: Node) -> Tokens | str:
    if not isinstance(node.raw("auth", "none"), dict):
        return node.text("auth", "none", ("none", "bearer"))
    block = node.block("auth")
    found = Tokens(_url(block, "token_url"), block.text("client_id"), block.text("scope", ""))
    block.finish()
    return found


# ------------------------------------------------------------------------------ reading pages
class _AgainError(Exception):
    """A page that is to be asked for again, after `seconds` if the vendor says so."""

    def __init__(self, problem: str, seconds: float | None = None) -> None:
        super().__init__(problem)
        self.seconds = seconds


class _OtherPageError(_AgainError):
    """Another page than the one that was asked for: perhaps an earlier one was not it either."""


class _MismatchError(Exception):
    """Pages that do not fit together: records came or went while they were read."""


@dataclass(frozen=True)
class _Page:
    records: list[Any]
    total: int | None
    next_token: str


_Key = tuple[str, ...]


class _Reading:
    """An interval on its way: the pages that are there, and whether the next one fits."""

    def __init__(self, endpoint: Endpoint, mapping: RecordMapping) -> None:
        self.endpoint, self.mapping = endpoint, mapping
        self.lines: dict[_Key, str] = {}
        self.number = 0  # pages that are there
        self.token = ""  # of the next one
        self.total: int | None = None
        self._key = objects.key_columns(mapping)
        self._before: dict[tuple[_Key, ...], int] = {}  # keys of each page → its number
        self._tokens: set[str] = set()
        self._size = endpoint.size[1] if endpoint.size else None

    @property
    def is_too_long(self) -> bool:
        """Whether the vendor gives no more pages, though there are more."""
        most = self.endpoint.most_pages
        return self.number >= most or bool(self._size and (self.total or 0) > self._size * most)

    def judge(self, page: _Page) -> None:
        """_AgainError where it cannot be the page that was asked for."""
        keys = self._keys(page)
        if keys and keys in self._before:
            raise _OtherPageError(f"is page {self._before[keys]} again")
        if page.next_token and page.next_token in (self.token, *self._tokens):
            raise _OtherPageError("names a next page that was read already")
        total = self.total if self.number else page.total
        if self.endpoint.total and total is None:
            raise _AgainError(f"tells no total at {self.endpoint.total}")
        if self.endpoint.page and total is not None:
            left = total - len(self.lines)
            if len(keys) < min(self._size or 1, left):
                raise _OtherPageError(f"has {len(keys)} of the {left} records that are left")

    def add(self, page: _Page) -> bool:
        """Take the page; whether it was the last one."""
        if not self.number:  # some vendors tell the total on the first page only
            self.total = page.total
        self.number += 1
        keys = self._keys(page)
        if len(set(keys)) < len(keys) or not self.lines.keys().isdisjoint(keys):
            raise _MismatchError(f"page {self.number} repeats a record: its pages have shifted")
        self._before[keys] = self.number
        for key, record in zip(keys, page.records, strict=True):
            self.lines[key] = objects.line(self.mapping, objects.cells(record, self.mapping.needed))
        self._tokens.add(self.token)
        self.token = page.next_token
        if self.endpoint.token:
            is_last = not self.token
        elif self.total is not None:
            is_last = len(self.lines) >= self.total
        else:
            is_last = len(keys) < (self._size or 1)
        if is_last and self.total is not None and len(self.lines) != self.total:
            raise _MismatchError(f"its pages hold {len(self.lines)} records, not {self.total}")
        return is_last

    def _keys(self, page: _Page) -> tuple[_Key, ...]:
        return tuple(tuple(objects.cells(record, self._key)) for record in page.records)


class Pages:
    """The intervals of a feed's endpoints. Its secret is in no mapping and no message."""

    def __init__(self, settings: Settings, feed: Feed) -> None:
        self.settings, self.feed = settings, feed
        self._starts: dict[str, datetime.datetime] = {}  # by address of what `files` has named
        self._token: dict[str, str] = {}  # by address that gave it

    def files(self, address: str, since: datetime.date | None = None) -> list[RemoteFile]:  # noqa: ARG002
        """What is over at an endpoint, oldest first, or the one interval that the address names.

        Days before `since` too: an interval that could not be read is due until it was.
        """
        endpoint = self._endpoint(address)
        found = []
        for start, version in endpoint.intervals(now()):
            found.append(RemoteFile(endpoint.address(start), 0, version, is_latest=True))
            self._starts[found[-1].address] = start
        if address == endpoint.base:
            return found
        named = [file for file in found if file.address == address]
        if not named:
            raise CallhouseError(
                f"{address} is no interval of {self.feed.file.name} that is over; they look like "
                f"{endpoint.address(endpoint.start)}"
            )
        return named

    @contextmanager
    def fetched(self, file: RemoteFile) -> Iterator[Path]:
        """A whole interval as a delimited file, which is removed afterwards."""
        endpoint = self._endpoint(file.address)
        start = self._starts[file.address]
        mapping = self.feed.mapping_for(endpoint.name(start))
        lines = self._interval(endpoint, start, mapping)
        downloads = self.settings.home / "downloads"
        downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=downloads) as folder:
            path = Path(folder) / endpoint.name(start)
            # In an order of its own: the vendor's may change from reading to reading.
            text = "".join([objects.line(mapping, mapping.needed), *sorted(lines)])
            path.write_bytes(text.encode("utf-8", "replace"))
            yield path

    def _endpoint(self, address: str) -> Endpoint:
        for endpoint in sorted(self.feed.pages, key=lambda page: len(page.base), reverse=True):
            mark = "&" if endpoint.query else "?"
            if address == endpoint.base or address.startswith(endpoint.base + mark):
                return endpoint
        raise CallhouseError(f"{address} is not under 'pages' in {self.feed.file.name}: add it")

    def _interval(
        self, endpoint: Endpoint, start: datetime.datetime, mapping: RecordMapping
    ) -> list[str]:
        """Lines of all records of the interval; CallhouseError where one of them may be missing."""
        import httpx

        where, problem = endpoint.address(start), ""
        with httpx.Client(timeout=endpoint.timeout_seconds) as client:
            for attempt in range(INTERVAL_TRIES):
                if attempt:
                    time.sleep(FIRST_WAIT_SECONDS)
                try:
                    return self._whole(client, endpoint, start, mapping)
                except _MismatchError as mismatch:
                    problem = str(mismatch)
                except httpx.InvalidURL:
                    raise CallhouseError(f"{where} is no address: correct 'pages'") from None
        raise CallhouseError(f"{where}: {problem}; nothing of it was landed, the next look tries")

    def _whole(
        self, client: httpx.Client, endpoint: Endpoint, start: datetime.datetime,
        mapping: RecordMapping,
    ) -> list[str]:  # fmt: skip
        reading = _Reading(endpoint, mapping)
        is_last = False
        while not is_last:
            if reading.is_too_long:
                raise CallhouseError(
                    f"{endpoint.address(start)} has more than {endpoint.most_pages} pages: set "
                    f"fewer 'minutes' in {self.feed.file.name}"
                )
            is_last = reading.add(self._page(client, endpoint, start, reading))
        return list(reading.lines.values())

    def _page(
        self, client: httpx.Client, endpoint: Endpoint, start: datetime.datetime, reading: _Reading
    ) -> _Page:
        """The next page, asked for until it comes and can be that one."""
        asked = {**dict(endpoint.query), **endpoint.limits(start)}
        if endpoint.size:
            asked[endpoint.size[0]] = str(endpoint.size[1])
        if endpoint.page:
            asked[endpoint.page] = str(reading.number + endpoint.first_page)
        elif endpoint.token and reading.token:
            asked[endpoint.token] = reading.token
        wait, problem = FIRST_WAIT_SECONDS, ""
        for attempt in range(PAGE_TRIES):
            try:
                page = _parsed(endpoint, self._answer(client, endpoint, asked))
                reading.judge(page)
                return page
            except _AgainError as again:
                problem = f"page {reading.number + 1} {again}"
                if isinstance(again, _OtherPageError) and attempt + 1 == PAGE_TRIES:
                    raise _MismatchError(problem) from None
                seconds = wait if again.seconds is None else again.seconds
                if seconds > LONGEST_WAIT_SECONDS:
                    problem += f" and asks to wait {seconds:.0f} s"
                    break
                if attempt + 1 < PAGE_TRIES:
                    time.sleep(seconds)
                wait *= 2
        raise CallhouseError(
            f"{endpoint.address(start)}: {problem}; nothing of it was landed, the next look tries"
        )

    def _answer(self, client: httpx.Client, endpoint: Endpoint, asked: Mapping[str, str]) -> bytes:
        """Body of the answer, which is one of success."""
        headers = {"Accept": "application/json", **self._authorization(client, endpoint)}
        status, headers_back, body = _exchange(
            client, endpoint.timeout_seconds, "GET", endpoint.url, params=asked, headers=headers
        )
        if status == 200:
            return body
        if status in REFUSED and isinstance(endpoint.auth, Tokens):
            # It may have expired in the middle of an interval.
            self._token.pop(endpoint.auth.url, None)
            raise _AgainError(f"was answered with {status}, the token is refused", 0)
        if status in OVERLOADED or status >= 500:
            raise _AgainError(
                f"was answered with {status}", _seconds(headers_back.get("retry-after"))
            )
        raise CallhouseError(
            f"{endpoint.url} answers with {status}: check 'pages' in {self.feed.file.name} and "
            f"{self._variable}"
        )

    # -------------------------------------------------------------------------- secrets
    @property
    def _variable(self) -> str:
        return f"CALLHOUSE_SECRET_FEED_{self.feed.file.stem.upper()}"

    def _secret(self) -> str:
        """The feed's own secret: a mapping cannot name another one and send it away."""
        found = self.settings.given_secret(f"feed_{self.feed.file.stem}")
        if not found:
            raise CallhouseError(
                f"{self.feed.file.name} needs a secret: set {self._variable} or {self._variable}"
                "_FILE"
            )
        return found

    def _authorization(self, client: httpx.Client, endpoint: Endpoint) -> dict[str, str]:
        if endpoint.auth == "none":
            return {}
        if not isinstance(endpoint.auth, Tokens):
            return {"Authorization": f"Bearer {self._secret()}"}
        if endpoint.auth.url not in self._token:
            self._token[endpoint.auth.url] = self._new_token(client, endpoint, endpoint.auth)
        return {"Authorization": f"Bearer {self._token[endpoint.auth.url]}"}

    def _new_token(self, client: httpx.Client, endpoint: Endpoint, tokens: Tokens) -> str:
        form = {"grant_type": "client_credentials"} | (
            {"scope": tokens.scope} if tokens.scope else {}
        )
        status, headers, body = _exchange(
            client, endpoint.timeout_seconds, "POST", tokens.url, data=form,
            auth=(tokens.client_id, self._secret()),
        )  # fmt: skip
        if status in OVERLOADED or status >= 500:
            raise _AgainError(
                f"got no token ({tokens.url} answers with {status})",
                _seconds(headers.get("retry-after")),
            )
        token = objects.at(_json(body), "access_token") if status == 200 else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise CallhouseError(
                f"{tokens.url} gives no token ({status}): check 'auth' in {self.feed.file.name} "
                f"and {self._variable}"
            )
        return token


def now() -> datetime.datetime:
    """The time by this machine's clock."""
    return datetime.datetime.now(datetime.UTC)


def _exchange(
    client: httpx.Client, timeout: float, method: str, url: str, **asked: Any
) -> tuple[int, Mapping[str, str], bytes]:
    """(status, headers, whole body) of an answer. httpx counts its bytes against their length."""
    import httpx

    until, body = time.monotonic() + MOST_TIMEOUTS * timeout, bytearray()
    try:
        with client.stream(method, url, **asked) as answer:
            for chunk in answer.iter_bytes():
                body += chunk
                if time.monotonic() > until or len(body) > LARGEST_PAGE:
                    raise _AgainError("does not come to an end")
            return answer.status_code, answer.headers, bytes(body)
    except httpx.HTTPError as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise _AgainError(f"cannot be read ({reason})") from None


def _seconds(text: str | None) -> float | None:
    """What Retry-After says: seconds, or a date."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(text) - now()).total_seconds())
    except (ValueError, TypeError):
        return None


def _json(body: bytes) -> Any:
    try:
        return objects.load(body)
    except (ValueError, RecursionError):
        raise _AgainError("is no whole JSON") from None


def _parsed(endpoint: Endpoint, body: bytes) -> _Page:
    answer = _json(body)
    records = objects.at(answer, endpoint.records)
    if not isinstance(records, list) or not all(isinstance(item, dict) for item in records):
        raise _AgainError(f"has no list of records at {endpoint.records}")
    total = objects.at(answer, endpoint.total) if endpoint.total else None
    token = objects.at(answer, endpoint.next_token) if endpoint.next_token else None
    is_number = isinstance(total, str) and total.isascii() and total.isdigit()
    return _Page(records, int(str(total)) if is_number else None, objects.text(token))
