"""What is asked of a paged interface, how its answers are read, and which pages fit together."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.sources import registry
from callhouse.sources.delimited import mapping, pages

GOOD = """
feed: cloud
vendor: delimited
label: A vendor in the cloud
time_zone: Asia/Shanghai
pages:
  - url: https://vendor.example/records
    file: calls
    query: {Action: List}
    start: 2026-11-28
    from: StartTime
    to: EndTime
    format: epoch_milliseconds
    page: PageNumber
    size_parameter: PageSize
    size: 2
    most_pages: 3
    records: Data.List
    total: Data.TotalCount
    again: 2
    auth: bearer
records:
  - record: legs
    files: calls_*.csv
    delimiter: comma
    columns:
      call_id: Contact.Id
      arrived_at: {column: StartTime, format: epoch_milliseconds}
      outcome: outcome
      queue_id: {join: [Queues.0.Name, Skills], with: /}
"""
SECRET = "only-for-the-test"
NOW = datetime.datetime(2026, 11, 27, 19, 10, tzinfo=datetime.UTC)
Answer = Callable[[dict[str, str]], httpx.Response]


def load(tmp_path: Path, text: str = GOOD) -> mapping.Feed:
    file = tmp_path / "cloud.yaml"
    file.write_text(text, encoding="utf-8")
    return mapping.load(file)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pages.Pages]:
    """`Pages` of a mapping whose vendor answers as told, with the requests it got."""
    client = httpx.Client

    def make(answer: Answer, text: str = GOOD) -> pages.Pages:
        def handle(request: httpx.Request) -> httpx.Response:
            return answer(dict(request.url.params) | {"auth": request.headers["authorization"]})

        monkeypatch.setattr(
            httpx, "Client", lambda **_: client(transport=httpx.MockTransport(handle))
        )
        monkeypatch.setattr(pages, "FIRST_WAIT_SECONDS", 0)
        monkeypatch.setattr(pages, "now", lambda: NOW)
        settings = settings_module.load({
            "CALLHOUSE_HOME": str(tmp_path), "CALLHOUSE_SECRET_FEED_CLOUD": SECRET,
        })  # fmt: skip
        return pages.Pages(settings, load(tmp_path, text))

    return make


def answered(records: list[Any], total: int | None) -> httpx.Response:
    return httpx.Response(200, json={"Data": {"List": records, "TotalCount": total}})


def call(number: int, **more: Any) -> dict[str, Any]:
    return {"Contact": {"Id": f"c{number}"}, "StartTime": 1, "outcome": "answered", **more}


def test_hours_are_half_open_and_due_again_until_they_are_final(tmp_path: Path) -> None:
    (endpoint,) = load(tmp_path).pages
    start = datetime.datetime(2026, 11, 27, 16, tzinfo=datetime.UTC)  # midnight in Shanghai
    hour = datetime.timedelta(hours=1)
    assert endpoint.limits(start) == {"StartTime": "1795795200000", "EndTime": "1795798800000"}
    assert endpoint.address(start).endswith(
        "/records?Action=List&StartTime=1795795200000&EndTime=1795798800000"
    )
    assert list(endpoint.intervals(start + hour)) == []  # five minutes for its last calls
    later = [list(endpoint.intervals(start + n * hour + hour / 2)) for n in range(1, 7)]
    assert [len(found) for found in later] == [1, 2, 3, 4, 5, 6]
    # Read when it is over, and with each of the two hours after it.
    versions = [found[0][1] for found in later]
    assert len(set(versions[:3])) == 3 and set(versions[2:]) == {versions[2]}


def test_the_documented_mapping_is_one(tmp_path: Path) -> None:
    page = settings_module.REPOSITORY / "docs" / "contributors" / "add-a-feed.md"
    (text,) = re.findall(r"```yaml\n(feed: cloud_centre\n.*?)```", page.read_text(), re.DOTALL)
    file = tmp_path / "cloud_centre.yaml"
    file.write_text(text, encoding="utf-8")
    (endpoint,) = mapping.load(file).pages
    assert (endpoint.again, endpoint.most_pages, endpoint.size) == (48, 100, ("PageSize", 100))
    assert isinstance(endpoint.auth, pages.Tokens)


def test_bounds_are_written_as_the_vendor_wants_them(tmp_path: Path) -> None:
    text = GOOD.replace("epoch_milliseconds\n    page", '"%Y-%m-%dT%H:%M:%S%z"\n    page')
    for zone, wanted in (("", "2026-11-27T16:00:00+0000"),
                         ("    time_zone: Asia/Tokyo\n", "2026-11-28T01:00:00+0900")):  # fmt: skip
        (endpoint,) = load(tmp_path, text.replace("    again", zone + "    again")).pages
        assert endpoint.limits(endpoint.start)["StartTime"] == wanted


def test_records_become_lines_of_the_columns_that_the_mapping_names(
    reader: Callable[..., pages.Pages],
) -> None:
    """Numbers stay as they were written; what is not there is empty; the order is not theirs."""
    asked: list[dict[str, str]] = []

    def answer(query: dict[str, str]) -> httpx.Response:
        asked.append(query)
        body = (
            '{"Data": {"TotalCount": "3", "List": ['
            '{"Contact": {"Id": "c2"}, "StartTime": 17958000000001234567, "outcome": true,'
            ' "Queues": [{"Name": "a,b"}], "Skills": ["x", 1, null]},'
            '{"Contact": {"Id": "c1"}, "StartTime": 1.50, "outcome": "two\\nlines", "Other": 1}]}}'
        )
        if query["PageNumber"] == "2":
            body = json.dumps({"Data": {"List": [{"Contact": {"Id": "c3"}, "Skills": {"b": 1}}]}})
        return httpx.Response(200, text=body)

    found = reader(answer)
    first, *others = found.files("https://vendor.example/records?Action=List")
    assert len(others) == 2
    assert found.files(first.address) == [first]
    with found.fetched(first) as path:
        assert path.name == "calls_20261127T160000Z.csv"
        assert path.read_text() == (
            "Contact.Id,StartTime,outcome,Queues.0.Name,Skills\n"
            "c1,1.50,two lines,,\n"
            'c2,17958000000001234567,true,"a,b","x,1,"\n'
            'c3,,,,"{""b"": ""1""}"\n'
        )
    assert not path.exists()
    assert [query["PageNumber"] for query in asked] == ["1", "2"]
    assert all(query["PageSize"] == "2" and query["Action"] == "List" for query in asked)
    assert all(query["auth"] == f"Bearer {SECRET}" for query in asked)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _: answered([call(1), call(2)], 7), "more than 3 pages: set fewer 'minutes'"),
        (lambda _: answered([call(1), call(2)], 4), "page 2 is page 1 again"),
        (lambda _: answered([call(1), call(1)], 2), "page 1 repeats a record"),
        (lambda _: answered([call(1), call(2), call(3)], 2), "hold 3 records, not 2"),
        (lambda _: answered([call(1)], 2), "page 1 has 1 of the 2 records that are left"),
        (lambda _: answered([call(1)], None), "page 1 tells no total at Data.TotalCount"),
        (lambda _: httpx.Response(200, json={"Code": "Busy"}), "no list of records at Data.List"),
        (lambda _: httpx.Response(200, text="<html>"), "page 1 is no whole JSON"),
        (lambda _: httpx.Response(200, text="[" * 100_000), "page 1 is no whole JSON"),
        (lambda _: httpx.Response(503), "page 1 was answered with 503"),
        (lambda _: httpx.Response(429, headers={"Retry-After": "900"}), "asks to wait 900 s"),
        (lambda _: httpx.Response(401), "401: check 'pages' in cloud.yaml and CALLHOUSE_SECRET_"),
        (lambda _: httpx.Response(302, headers={"Location": "https://other.example"}), "with 302"),
    ],
)  # fmt: skip
def test_what_is_no_whole_interval_is_told(
    reader: Callable[..., pages.Pages], answer: Answer, words: str
) -> None:
    found = reader(answer)
    first = found.files("https://vendor.example/records?Action=List")[0]
    with pytest.raises(CallhouseError) as problem, found.fetched(first):
        pass
    assert words in str(problem.value)
    assert SECRET not in str(problem.value) and "\n" not in str(problem.value)


def test_pages_that_shift_once_are_read_again(reader: Callable[..., pages.Pages]) -> None:
    """A call came in ahead of the others between two pages."""
    asked: list[str] = []

    def answer(query: dict[str, str]) -> httpx.Response:
        asked.append(query["PageNumber"])
        calls = [call(n) for n in ((1, 2, 3) if len(asked) == 1 else (0, 1, 2, 3))]
        place = 2 * int(query["PageNumber"]) - 2
        return answered(calls[place : place + 2], len(calls))

    found = reader(answer)
    with found.fetched(found.files("https://vendor.example/records?Action=List")[0]) as path:
        lines = path.read_text().splitlines()[1:]
    assert [line.partition(",")[0] for line in lines] == ["c0", "c1", "c2", "c3"]
    assert asked == ["1", "2", "1", "2"]


def test_without_a_total_the_first_page_that_is_not_full_is_the_last(
    reader: Callable[..., pages.Pages],
) -> None:
    def answer(query: dict[str, str]) -> httpx.Response:
        place = 2 * int(query["PageNumber"]) - 2
        return answered([call(n) for n in range(4)][place : place + 2], None)

    found = reader(answer, GOOD.replace("    total: Data.TotalCount\n", ""))
    with found.fetched(found.files("https://vendor.example/records?Action=List")[0]) as path:
        assert len(path.read_text().splitlines()) == 5


def test_retry_after_is_seconds_or_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "now", lambda: NOW)
    assert pages._seconds("7") == 7
    assert pages._seconds("Fri, 27 Nov 2026 19:10:30 GMT") == 30
    assert pages._seconds("Fri, 27 Nov 2026 19:09:30 GMT") == 0
    assert pages._seconds("soon") is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("https://vendor", "http://vendor", ["pages[1].url", "https://"]),
        ("https://vendor", "https://me:word@vendor", ["pages[1].url", "no password"]),
        ("/records\n", "/records?a=b\n", ["pages[1].url", "'query'"]),
        ("file: calls", "file: states", ["pages[1].file", "no record takes states_2026"]),
        ("file: calls", "file: ../calls", ["pages[1].file", "letters"]),
        ("start: 2026-11-28", "start: soon", ["pages[1].start", "YYYY-MM-DD"]),
        ("    page: PageNumber\n", "", ["'page' or 'token'"]),
        ("page: PageNumber", "token: Next", ["next_token", "goes with 'token'"]),
        ("again: 2", "again: -1", ["pages[1].again", "from 0"]),
        ("again: 2", "agian: 2", ["pages[1].agian", "did you mean 'again'"]),
        ("auth: bearer", "auth: secret", ["pages[1].auth", "none, bearer"]),
        ("auth: bearer", "auth: {client_id: a}", ["pages[1].auth", "token_url"]),
        ("size: 2", "size: many", ["pages[1].size", "whole number"]),
        ("delimiter: comma", "delimiter: comma\n    encoding: gb18030", ["encoding"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    assert GOOD.count(old) >= 1
    with pytest.raises(CallhouseError) as problem:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert "cloud.yaml" in str(problem.value)
    assert all(word in str(problem.value) for word in words), problem.value


def test_a_secret_must_be_given_and_is_the_feeds_own(tmp_path: Path) -> None:
    settings = settings_module.load({"CALLHOUSE_HOME": str(tmp_path)})
    feed = load(tmp_path)
    with pytest.raises(CallhouseError, match="set CALLHOUSE_SECRET_FEED_CLOUD or"):
        pages.Pages(settings, feed)._secret()
    assert not (tmp_path / "secrets").exists()  # none is made up


def test_other_addresses_are_nobodys(tmp_path: Path) -> None:
    settings = settings_module.load({"CALLHOUSE_HOME": str(tmp_path)})
    feed = load(tmp_path)
    assert registry.locations(feed) == ["https://vendor.example/records?Action=List"]
    remote = registry.remote(settings, feed, registry.locations(feed)[0])
    for address in ("https://other.example/records", "https://vendor.example/records"):
        with pytest.raises(CallhouseError, match="is not under 'pages' in cloud"):
            remote.files(address)
    with pytest.raises(CallhouseError, match="that is over; they look like"):
        remote.files("https://vendor.example/records?Action=List&StartTime=1")
    other = next(item for item in registry.feeds(settings) if item.vendor == "asterisk")
    with pytest.raises(CallhouseError, match="read no pages"):
        registry.remote(settings, other, "https://vendor.example/records")
