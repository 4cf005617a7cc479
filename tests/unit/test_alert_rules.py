"""What a rule of alerts may say, the channels file, and the link: without a database."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from callhouse import settings as settings_module
from callhouse.alerts import channels, link, rules
from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources import document

GOOD: dict[str, Any] = {
    "rule": "long_queue", "metric": "waiting_now", "scope": "queue=service", "above": "10",
    "clear": "5", "severity": "warning", "owner": "lead_queue", "channels": ["mailbox"],
    "reason": "callers give up",
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return settings_module.load({"CALLHOUSE_HOME": str(tmp_path)})


def parse(**changes: Any) -> rules.Rule:
    given = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
    return rules.from_node(document.Node(Path("alerts.yaml"), "rules[1]", given))


def test_a_good_rule_is_read_whole() -> None:
    rule = parse(
        for_seconds="30", escalate_to="director", until="2027-01-31",
        quiet={"from": "22:00", "to": "07:00", "time_zone": "Asia/Shanghai"},
    )  # fmt: skip
    assert (rule.scope_type, rule.scope_id, rule.scope) == ("queue", "service", "queue=service")
    assert (rule.comparison, rule.fire_at, rule.clear_at, rule.for_seconds) == ("above", 10, 5, 30)
    assert (rule.escalate_to, rule.escalate_after_seconds) == ("director", 900)
    assert rule.quiet_from and rule.quiet_from.hour == 22 and rule.quiet_zone == "Asia/Shanghai"
    assert rule.ends and rule.ends.isoformat() == "2027-01-31T00:00:00+00:00"
    assert parse(scope="region=*").scope == "region=*"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metric": "waiting_nwo"}, "did you mean 'waiting_now'"),
        ({"scope": "desk=1"}, "is no scope"),
        ({"scope": "pipeline"}, "not measured of pipeline"),
        ({"metric": "held_days", "scope": "queue=service"}, "not measured of queue"),
        ({"clear": "10"}, "must clear below that"),
        ({"clear": "12"}, "must clear below that"),
        ({"above": None, "below": "10"}, "must clear above that"),
        ({"below": "10"}, "either above or below"),
        ({"above": None}, "either above or below"),
        ({"clear": None}, "'clear' is missing"),
        ({"above": "many"}, "'many' is no number"),
        ({"metric": "service_level_today", "above": "80", "clear": "70"}, "write 80 % as 0.8"),
        ({"severity": "urgent"}, "'urgent' is not one of info, warning, critical"),
        ({"owner": "scope"}, "needs escalate_to"),
        ({"escalate_to": "lead_queue"}, "escalates to its owner"),
        ({"escalate_after_seconds": "60"}, "escalates to nobody"),
        ({"for_seconds": "1h"}, "no number of seconds"),
        ({"from": "2027-02-01", "until": "2027-01-31"}, "end before it begins"),
        ({"until": "soon"}, "is no date"),
        ({"until": "2027-01-31T08:00:00"}, "with offset"),
        ({"quiet": {"from": "22:00", "to": "25:00", "time_zone": "UTC"}}, "no time of the day"),
        ({"quiet": {"from": "22:00", "to": "07:00", "time_zone": "Mars"}}, "no time zone"),
        ({"quiet": {"from": "22:00", "to": "22:00", "time_zone": "UTC"}}, "are none"),
        ({"reason": None}, "'reason' is missing"),
        ({"thresold": "3"}, "unknown key"),
    ],
)
def test_what_a_rule_cannot_say_is_one_sentence(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(CallhouseError) as refused:
        parse(**changes)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_the_shipped_example_can_be_read() -> None:
    found = rules.read_file(rules.EXAMPLE)
    assert len(found) >= 5
    assert {rule.severity for rule in found} == set(rules.SEVERITIES)


def test_channels_are_checked_and_never_told(home: Settings) -> None:
    assert channels.read(home).names == ["mailbox"]
    home.channels_file.write_text(
        'channels:\n  mail: "mailtos://me:geheim@smtp.example.com/?from=a@example.com&to={address}"\n'
        "  room: wecombot://abcdefghijklmnop\n"
        "people:\n  lead_queue: {mail: lead@example.com}\n",
        encoding="utf-8",
    )
    assert channels.read(home).names == ["mailbox", "mail", "room"]
    for text, told in (
        ("channels:\n  room: wecombotx://geheim-abcdefgh\n", "channels.room: is no address"),
        ("channels:\n  room: wecombot://\n", "channels.room: is no address"),
        ("channels:\n  mailbox: json://localhost\n", "cannot be a channel"),
        ("channels: {}\npeople:\n  me: {post: x}\n", "there is no channel post"),
        ("chanels: {}\n", "unknown key"),
    ):
        home.channels_file.write_text(text, encoding="utf-8")
        with pytest.raises(CallhouseError) as refused:
            channels.read(home)
        assert told in str(refused.value) and "geheim" not in str(refused.value)


def test_a_failure_does_not_tell_the_address(
    home: Settings, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Port 1: nothing listens. Apprise's own words would carry user, token or path."""
    home.channels_file.write_text(
        "channels:\n  hook: json://robot:s3cretpass@127.0.0.1:1/hook/T0KENTOKEN\n"
        "  mail: mailto://robot:s3cretpass@127.0.0.1:1/?from=a@example.com&to={address}\n"
        "people:\n  lead_queue: {mail: lead@example.com}\n",
        encoding="utf-8",
    )
    letter = channels.Letter("alert-1-fired-x-hook", "title", "body", True, False)
    for channel in ("hook", "mail"):
        failure = channels.deliver(home, channel, "lead_queue", letter)
        assert failure
        out, err = capfd.readouterr()
        for text in (failure, out, err, caplog.text):
            assert "s3cret" not in text and "T0KEN" not in text
    # Senders side by side hear each other.
    with channels._Overheard() as one, channels._Overheard() as other:
        thread = threading.Thread(target=logging.getLogger("apprise").error, args=("other's",))
        thread.start()
        thread.join()
        logging.getLogger("apprise").error("ours")
    assert one.lines == other.lines == ["ours"]
    assert (
        channels.deliver(home, "mail", "nobody_yet", letter) == "nobody_yet has no address for mail"
    )
    assert (
        channels.deliver(home, "gone", "lead_queue", letter) == "there is no channel gone any more"
    )


def test_a_link_is_of_one_alert_and_cannot_be_made(home: Settings) -> None:
    token = link.token(home, 7)
    assert link.alert_of(home, token) == 7
    assert link.url(home, 7) == f"http://127.0.0.1:8488/alerts/{token}"
    for forged in (
        "7",
        "7-",
        f"8-{token.partition('-')[2]}",
        token[:-1],
        token + "0",
        "x-y",
        "-",
        "²-1",
    ):
        assert link.alert_of(home, forged) is None, forged
