"""What may be said of who delivers, and what is refused with a sentence."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest

from callhouse import settings as settings_module
from callhouse.capture import devices
from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources import registry, watch
from callhouse.sources.contract import Feed

LOG = "feed: log\nvendor: asterisk\ncountry: CN\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "feeds").mkdir()
    return settings_module.load({"CALLHOUSE_HOME": str(tmp_path)})


def feed(settings: Settings, said: str) -> Feed:
    (settings.feeds_directory / "log.yaml").write_text(f"{LOG}{said}\n", encoding="utf-8")
    return registry.feed(settings, "log")


def test_every_vendor_may_say_how_it_delivers(settings: Settings) -> None:
    found = registry.watch(feed(settings, 'watch: {due: "06:30", days: working, calendar: CN}'))
    assert found is not None
    assert (found.due, found.is_working_days, found.calendar) == (datetime.time(6, 30), True, "CN")
    assert (found.delay_seconds, found.owner) == (None, "data-engineering")
    found = registry.watch(feed(settings, "watch: {delay_seconds: 900, owner: pbx team}"))
    assert found is not None
    assert (found.delay_seconds, found.due, found.owner) == (900, None, "pbx team")
    assert registry.watch(feed(settings, "")) is None


def test_a_log_that_is_followed(settings: Settings) -> None:
    assert registry.tail(feed(settings, "")) is None
    log = registry.tail(feed(settings, "tail: /var/log/asterisk/queue_log"))
    assert str(log) == "/var/log/asterisk/queue_log"
    for said, sentence in (
        ("tail: queue_log", "tail: 'queue_log' is no whole path"),
        ("records: cdr\ntail: /var/log/asterisk/Master.csv", "only a feed of queue logs"),
        ('files: "queue*"\ntail: /var/log/asterisk/full', "takes no file of this name"),
    ):
        with pytest.raises(CallhouseError, match=sentence):
            feed(settings, said)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("{owner: x}", "watch: needs 'delay_seconds'"),
        ('{due: "06:00", delay_seconds: 60}', "not both"),
        ("{delay_seconds: 0}", "watch.delay_seconds: '0' is no number of seconds"),
        ("{delay_seconds: 1.5}", "'1.5' is no number of seconds"),
        ('{due: "25:00"}', "watch.due: '25:00' is no time of day"),
        ('{due: "06:00", days: weekdays}', "'weekdays' is not one of all, working"),
        ('{due: "06:00", calendar: DE}', "'DE' is not one of CN: add its days to holidays.csv"),
        ("{delay_seconds: 60, series: calls.csv}", "'calls.csv' needs {date} or {number}"),
        ("{delay_seconds: 60, ownr: x}", "unknown key (did you mean 'owner'?)"),
    ],
)
def test_a_mistake_is_told_when_the_feed_is_read(
    settings: Settings, said: str, sentence: str
) -> None:
    with pytest.raises(CallhouseError) as problem:
        feed(settings, f"watch: {said}")
    assert str(problem.value).startswith("log.yaml: watch")
    assert sentence in str(problem.value)
    assert len(registry.problems(settings)) == 1
    assert "log" in registry.names(settings)


def test_names_of_a_series() -> None:
    dated = watch.Series("calls+{date}_{number}.csv*")
    assert dated.date_pattern is not None
    assert dated.number_pattern is not None
    for name, parts in {
        "calls+20261129_0007.csv": ("20261129", "0007"),
        "calls+2026-11-29_12.csv.gz": ("2026-11-29", "12"),
    }.items():
        date_part, number = (
            re.match(pattern, name) for pattern in (dated.date_pattern, dated.number_pattern)
        )
        assert date_part
        assert number
        assert (date_part[1], number[1]) == parts
    for name in ("callsX20261129_1.csv", "calls+20261129_.csv", "calls+20261129_1_csv"):
        assert not re.match(dated.date_pattern, name)
    assert watch.Series("part_{number}").date_pattern is None


def test_devices_are_read_and_checked(settings: Settings) -> None:
    feeds = {"log": feed(settings, "watch: {delay_seconds: 900}")}
    assert devices.read(settings.devices_file, feeds) == []

    def declared(*lines: str) -> list[dict[str, object]]:
        text = "devices:\n" + "".join(f"  - {line}\n" for line in lines)
        settings.devices_file.write_text(text, encoding="utf-8")
        return devices.read(settings.devices_file, feeds)

    (found,) = declared("{device: rec, kind: recorder, owner: x, events_of: log, calendar: CN}")
    assert (found["interval_seconds"], found["events_of"]) == (300, "log")
    for line, sentence in {
        "{device: Rec 1, kind: recorder, owner: x}": "use lower-case letters",
        "{device: log, kind: recorder, owner: x}": "'log' is a device already",
        "{device: rec, kind: sbc, owner: x}": "'sbc' is not one of collector, pbx",
        "{device: rec, kind: recorder}": "key 'owner' is missing",
        "{device: rec, kind: pbx, owner: x, interval_seconds: 60}": "at least 120",
        "{device: rec, kind: pbx, owner: x, events_of: other}": "'other' is no feed with `watch`",
        "{device: rec, kind: pbx, owner: x, series: a}": "unknown key",
    }.items():
        with pytest.raises(CallhouseError, match=r"^devices\.yaml: devices\[1\]") as problem:
            declared(line)
        assert sentence in str(problem.value)
