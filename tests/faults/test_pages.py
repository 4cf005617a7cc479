"""A vendor's paged interface that answers badly: pages twice, cut, late, or not at all."""

from __future__ import annotations

import csv
import datetime
import io
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.faults import world
from tests.faults.world import World

from callhouse import landing, warehouse
from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources.delimited import pages

FEED, SECRET = "faulty_pages", "only-for-the-test-0123456789"
ZONE = datetime.timezone(datetime.timedelta(hours=8))
SIZE = 5
MAPPING = """
feed: {feed}
vendor: delimited
label: Faulty pages
time_zone: Asia/Shanghai
pages:
  - url: {url}/calls
    file: calls
    start: {start}
    minutes: 360
    delay_minutes: 0
    again: 2
    from: StartTime
    to: EndTime
    format: epoch_milliseconds
    {way}
    size_parameter: PageSize
    size: {size}
    records: Data.Calls
    total: Data.TotalCount
    timeout_seconds: 1
    auth: {{token_url: "{url}/token", client_id: reader}}
records:
  - record: legs
    files: calls_*.csv
    delimiter: comma
    columns:
      call_id: Contact.Id
      leg_number: Contact.Leg
      outcome: {{column: Disposition, codes: {{Success: answered, Gone: abandoned}}}}
      queue_id: {{column: SkillGroupIds, missing: "[]"}}
      arrived_at: {{column: StartTime, format: epoch_milliseconds}}
      talk_seconds: {{column: TalkTime, unit: ms}}
"""
WAYS = {"page": "page: PageNumber", "token": "{token: NextToken, next_token: Data.NextToken}"}


@dataclass
class Vendor:
    """The calls that the vendor knows, and the next answers that are wrong."""

    calls: list[dict[str, Any]]
    url: str = ""
    # Number of the answer, of those that are no first page of an interval → fault.
    faults: dict[int, str] = field(default_factory=dict)
    answers: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    asked: list[float] = field(default_factory=list)  # when, in seconds
    tokens: list[str] = field(default_factory=list)

    def page(self, query: dict[str, str], *, shift: int = 0) -> bytes:
        """The page that is asked for, or one that is `shift` pages away."""
        low, high = int(query["StartTime"]), int(query["EndTime"])
        found = [call for call in self.calls if low <= call["StartTime"] < high]
        place = int(query.get("PageNumber") or query.get("NextToken") or 1) - 1
        size = int(query["PageSize"])
        shown = found[(place + shift) * size :][:size]
        data: dict[str, Any] = {"Calls": shown}
        if place == 0:
            data["TotalCount"] = len(found)
        if (place + 1) * size < len(found):
            data["NextToken"] = str(place + 2)
        return json.dumps({"Code": "OK", "Data": data}).encode()


@contextmanager
def serving(vendor: Vendor) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # named by the library
            self.rfile.read(int(self.headers["Content-Length"]))
            vendor.tokens.append(f"token-{len(vendor.tokens)}")
            self._send(200, json.dumps({"access_token": vendor.tokens[-1]}).encode())

        def do_GET(self) -> None:  # named by the library
            query = {
                name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()
            }
            if self.headers["Authorization"] != f"Bearer {vendor.tokens[-1]}":
                self._send(401, b"{}")
                return
            fault = ""
            if query.get("PageNumber", "1") != "1" or "NextToken" in query:
                vendor.answers += 1
                vendor.asked.append(time.monotonic())
                fault = vendor.faults.pop(vendor.answers, "")
            vendor.struck[fault] += 1
            body = vendor.page(query, shift={"again": -1, "skipped": 1}.get(fault, 0))
            if fault == "missing":
                data = json.loads(body)["Data"] | {"Calls": []}
                body = json.dumps({"Data": data}).encode()
            if fault == "429":
                self._send(429, b"{}", {"Retry-After": "100" if vendor.faults else "1"})
            elif fault == "503":
                self._send(503, b"<html>")
            elif fault == "expired":
                vendor.tokens.append("another")
                self._send(401, b"{}")
            elif fault == "truncated":  # 200, and its length is right
                self._send(200, body[: len(body) // 2])
            elif fault in ("cut", "slow"):
                self._send(200, body[: len(body) // 2], {"Content-Length": str(len(body))})
                if fault == "slow":
                    self.wfile.flush()
                    time.sleep(1.5)
                self.close_connection = True
            else:
                self._send(200, body)

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    vendor.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def calls_of(simulated: World) -> list[dict[str, Any]]:
    """The world's legs as a vendor tells them: nested, in milliseconds, empty lists."""
    names = next(csv.reader([simulated.headers["calls"].decode()]))
    text = io.StringIO("".join(line.decode() for line in simulated.lines["calls"]))
    found = []
    for row in csv.DictReader(text, names):
        arrived = datetime.datetime.fromisoformat(row["arrived"]).replace(tzinfo=ZONE)
        found.append({
            "Contact": {"Id": row["call_id"], "Leg": int(row["leg"])},
            "Disposition": "Success" if row["outcome"] == "answered" else "Gone",
            "SkillGroupIds": [row["queue"]] if row["queue"] else [],
            "StartTime": int(arrived.timestamp() * 1000), "TalkTime": None,
        })  # fmt: skip
    return sorted(found, key=lambda call: (call["StartTime"], call["Contact"]["Leg"]))


@pytest.fixture
def way(chance: random.Random) -> str:
    """How a page leads to the next one."""
    return chance.choice(list(WAYS))


@pytest.fixture
def vendor(
    emptied: Settings, simulated: World, way: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Vendor]:
    """A feed that reads the world's calls page by page; waits are short."""
    found = Vendor(calls_of(simulated))
    monkeypatch.setattr(pages, "FIRST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(pages, "PAGE_TRIES", 2)
    at(monkeypatch, simulated, hours=18)
    emptied.feeds_directory.mkdir(parents=True, exist_ok=True)
    file = emptied.feeds_directory / f"{FEED}.yaml"
    with serving(found):
        lines = WAYS[way].strip("{}").replace(", ", "\n    ")
        file.write_text(MAPPING.format(
            feed=FEED, url=found.url, start=simulated.start, way=lines, size=SIZE
        ))  # fmt: skip
        yield found
        file.unlink()


def at(monkeypatch: pytest.MonkeyPatch, simulated: World, *, hours: int) -> None:
    """The time is so many hours after the world's first midnight."""
    start = datetime.datetime.combine(simulated.start, datetime.time(), ZONE)
    moment = (start + datetime.timedelta(hours=hours)).astimezone(datetime.UTC)
    monkeypatch.setattr(pages, "now", lambda: moment)


def known(settings: Settings) -> Settings:
    secret = {"CALLHOUSE_SECRET_FEED_FAULTY_PAGES": SECRET}
    return replace(settings, environment={**settings.environment, **secret})


def look(settings: Settings) -> list[str]:
    """What one look came to; a problem is one sentence without a secret."""
    problem, results = "", []
    try:
        results = landing.land_inbox(known(settings), FEED)
    except CallhouseError as error:
        problem = str(error)
    for sentence in (problem, *(str(result.reason) for result in results)):
        assert "\n" not in sentence and SECRET not in sentence and "token-" not in sentence
    print(problem, [(r.name, r.status, r.reason) for r in results])
    return ["problem"] if problem else [result.status for result in results]


def check(settings: Settings, vendor: Vendor, until: datetime.datetime) -> None:
    """Each leg that the vendor knows counts once, as it is now; the ledger is balanced."""
    limit = int(until.timestamp() * 1000)
    wanted = Counter(
        (
            call["Contact"]["Id"], call["Contact"]["Leg"],
            "answered" if call["Disposition"] == "Success" else "abandoned",
            call["TalkTime"] and call["TalkTime"] / 1000, call["StartTime"],
        )
        for call in vendor.calls if call["StartTime"] < limit
    )  # fmt: skip
    with warehouse.connect(settings) as connection:
        rows = connection.execute(
            "select call_id, leg_number, outcome, talk_seconds::float8,"
            " (extract(epoch from arrived_at) * 1000)::int8 from staging.delimited_legs"
            " where source = %s and superseded_by is null", [FEED],
        ).fetchall()  # fmt: skip
    found = Counter(rows)
    assert wanted and not wanted - found, "lost"
    assert not found - wanted, "doubled"
    world.check_ledger(settings)


# Of these it is told what is wrong, or that it is another page than the one that was asked for.
TOLD = ("429", "503", "cut", "slow", "expired", "truncated")
OTHER_PAGES = ("again", "skipped", "missing")


@pytest.mark.parametrize("fault", [*TOLD, *OTHER_PAGES])
def test_a_page_that_is_wrong(
    emptied: Settings, simulated: World, vendor: Vendor, fault: str, chance: random.Random
) -> None:
    """Where it stays so, nothing of the interval lands; where it comes once, nobody notices."""
    times = 2 if fault in TOLD else 1000
    vendor.faults = dict.fromkeys(range(2, 2 + times), fault)
    first = Counter(look(emptied))
    assert first["refused"] == 1 if fault in TOLD else first["refused"] > 1, first
    world.check_ledger(emptied)
    check_intervals(emptied, vendor, simulated)

    number = vendor.answers + chance.randint(1, 2)
    vendor.faults = {number: fault}
    struck = vendor.struck[fault]
    assert set(look(emptied)) == {"landed"}
    assert vendor.struck[fault] == struck + 1
    if fault == "429":  # before, it was told at once: nobody waits 100 s
        assert vendor.asked[number] - vendor.asked[number - 1] >= 1.0  # as Retry-After says
    if fault == "expired":
        assert vendor.tokens[-2:] == ["another", f"token-{len(vendor.tokens) - 1}"]
    check(emptied, vendor, pages.now())
    assert look(emptied) == []


def check_intervals(settings: Settings, vendor: Vendor, simulated: World) -> None:
    """Of each interval everything is staged, or nothing."""
    start = datetime.datetime.combine(simulated.start, datetime.time(), ZONE)
    with warehouse.connect(settings) as connection:
        found = dict(connection.execute(
            "select floor(extract(epoch from arrived_at - %s) / 21600)::int, count(*)::int"
            " from staging.delimited_legs where source = %s group by 1", [start, FEED],
        ).fetchall())  # fmt: skip
    wanted = Counter(
        int(call["StartTime"] / 1000 - start.timestamp()) // 21_600 for call in vendor.calls
    )
    assert {place: wanted[place] for place in found} == found


def test_late_changes(
    emptied: Settings, simulated: World, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is filled in, added or taken back later counts from the next reading on, once."""
    midnight = datetime.datetime.combine(simulated.start, datetime.time(), ZONE).timestamp() * 1000
    recent = [c for c in vendor.calls if 12 <= (c["StartTime"] - midnight) / 3_600_000 < 18]
    changed, late, *_ = recent
    before = dict(changed)
    vendor.calls.remove(late)
    assert set(look(emptied)) == {"landed"}
    check(emptied, vendor, pages.now())

    changed |= {"TalkTime": 61_000, "Disposition": "Success", "SkillGroupIds": ["filled later"]}
    vendor.calls = sorted([*vendor.calls, late], key=lambda call: call["StartTime"])
    at(monkeypatch, simulated, hours=24)
    # The interval of both, the one before it, and the one that is over now.
    assert Counter(look(emptied)) == {"landed": 2, "already_landed": 1}
    check(emptied, vendor, pages.now())

    changed |= before
    at(monkeypatch, simulated, hours=30)
    assert Counter(look(emptied)) == {"landed": 2, "already_landed": 1}
    check(emptied, vendor, pages.now())
    assert look(emptied) == []

    # Killed before it could remember what it had read.
    held = world.staged(emptied)
    with warehouse.connect(emptied) as connection:
        connection.execute("delete from ops.landed_objects where source = %s", [FEED])
    for addresses in ([], [f"{vendor.url}/calls"]):
        results = landing.land(known(emptied), FEED, addresses)
        assert {result.status for result in results} == {"already_landed"}
    assert world.staged(emptied) == held
