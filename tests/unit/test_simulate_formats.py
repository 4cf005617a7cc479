"""The renderings of one world, read back by readers that share nothing with the simulator."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from callhouse import cli, simulate
from callhouse.errors import CallhouseError

Row = dict[str, str]
Json = dict[str, Any]
START = date(2026, 10, 5)
DAYS = 12
FORMATS = ("delimited", "queue_log", "cdr", "cel", "connect")
SHANGHAI = timezone(timedelta(hours=8))
REFUSALS = {
    "FULL": "overflow_full",
    "JOINEMPTY": "overflow_empty",
    "CLOSED": "closed",
    "DIVERT_CA_RATIO": "overflow_diverted",
    "DIVERT_HOLDTIME": "overflow_diverted",
}


def table(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def text(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


def epoch(stamp: str) -> int:
    """Of a local time of the truth."""
    local = datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S").replace(tzinfo=SHANGHAI)
    return int(local.timestamp())


def utc(stamp: str) -> int:
    """Of a time of Amazon Connect, with or without milliseconds."""
    pattern = "%Y-%m-%dT%H:%M:%S.%fZ" if "." in stamp else "%Y-%m-%dT%H:%M:%SZ"
    return int(datetime.strptime(stamp, pattern).replace(tzinfo=UTC).timestamp())


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One world in every format, without and with dirt."""
    folders = {}
    for name in ("clean", "dirty"):
        folders[name] = tmp_path_factory.mktemp(name)
        simulate.write(
            folders[name],
            seed=9,
            start=START,
            days=DAYS,
            calls_per_day=900,
            dirt=name == "dirty",
            formats=FORMATS,
        )
    return folders


@pytest.fixture(scope="module")
def clean(worlds: dict[str, Path]) -> Path:
    return worlds["clean"]


@pytest.fixture(scope="module")
def visits(clean: Path) -> list[Row]:
    rows = table(clean / "truth/visits.csv")
    assert len(rows) > 5000
    return rows


@pytest.fixture(scope="module")
def connections(clean: Path) -> list[Row]:
    return table(clean / "truth/connections.csv")


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


# -- one world ------------------------------------------------------------------------------------


def test_formats_change_neither_the_world_nor_the_other_files(tmp_path: Path) -> None:
    alone, together, without = (tmp_path / name for name in ("alone", "together", "without"))
    for folder, formats in (
        (alone, ("delimited",)),
        (together, FORMATS),
        (without, ("queue_log",)),
    ):
        simulate.write(folder, seed=2, start=START, days=3, calls_per_day=200, formats=formats)
    everything = contents(together)
    assert contents(alone).items() <= everything.items()
    logged = contents(without)
    summary = logged.pop("truth/summary.json")
    assert logged.items() <= everything.items()
    assert json.loads(summary)["files"] == {}
    assert not list(without.glob("calls_*"))


def test_renderings_are_the_same_in_another_process(tmp_path: Path) -> None:
    program = (
        "import sys; from datetime import date; from pathlib import Path; "
        "from callhouse import simulate; simulate.write(Path(sys.argv[1]), seed=5, "
        "start=date(2026, 10, 5), days=3, calls_per_day=300, "
        "formats=('queue_log', 'cdr', 'cel', 'connect'))"
    )
    for name in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / name)],
            check=True,
            env={
                **os.environ,
                "PYTHONHASHSEED": name,
                "PYTHONPATH": str(Path(simulate.__file__).parents[2]),
            },
        )
    first = contents(tmp_path / "1")
    assert {name.split("/")[0] for name in first} >= {*FORMATS[1:], "truth"}
    assert first == contents(tmp_path / "2")


@pytest.mark.parametrize("formats", [(), ("fax",), ("delimited", "fax")])
def test_an_unknown_format_is_named(tmp_path: Path, formats: tuple[str, ...]) -> None:
    with pytest.raises(CallhouseError, match="choose from delimited, queue_log, cdr, cel, connect"):
        simulate.write(tmp_path, formats=formats)


def test_command_line_writes_the_formats_asked_for(tmp_path: Path) -> None:
    arguments = ["simulate", str(tmp_path), "--days", "2", "--calls-per-day", "50", "--no-dirt"]
    result = CliRunner().invoke(cli.app, [*arguments, "--format", "queue_log", "--format", "cel"])
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {
        "agents.csv", "queues.csv", "queue_log", "cel", "truth",
    }  # fmt: skip
    assert "queue_log: 2 files" in result.output


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_another_run_are_not_mixed_in(tmp_path: Path, name: str) -> None:
    simulate.write(tmp_path, start=START, days=9, calls_per_day=50, formats=(name,))
    with pytest.raises(CallhouseError, match="another simulation"):
        simulate.write(tmp_path, start=START, days=2, calls_per_day=50, formats=(name,))


# -- states ---------------------------------------------------------------------------------------


def test_states_tile_the_login_time(clean: Path) -> None:
    by_agent = defaultdict(list)
    for row in table(clean / "truth/agent_states.csv"):
        assert epoch(row["ended_at"]) - epoch(row["started_at"]) == int(row["seconds"]) > 0
        by_agent[row["agent_id"]].append(row)
    assert len(by_agent) > 15
    logins = 0
    for rows in by_agent.values():
        logins += 1
        for earlier, later in pairwise(rows):
            gap = epoch(later["started_at"]) - epoch(earlier["ended_at"])
            assert gap == 0 or gap > 3600  # the same login, or the next shift
            logins += gap > 0
    log = queue_log_lines(clean)
    assert sum(line.event == "AGENTLOGIN" for line in log) == logins
    edges = {
        (row["agent_id"], epoch(row[name]))
        for rows in by_agent.values()
        for row in rows
        for name in ("started_at", "ended_at")
    }
    for line in log:
        if line.event in ("AGENTLOGIN", "AGENTLOGOFF"):
            assert (line.agent.removeprefix("Agent/"), line.at) in edges


def test_states_add_up_per_day_and_agree_with_the_connections(
    clean: Path, connections: list[Row]
) -> None:
    states: Counter[tuple[str, str, str]] = Counter()
    whole: Counter[tuple[str, str]] = Counter()
    for row in table(clean / "truth/agent_states.csv"):
        start, end = epoch(row["started_at"]), epoch(row["ended_at"])
        for day, seconds in by_day(start, end):
            states[row["agent_id"], day, row["state"]] += seconds
        whole[row["agent_id"], row["state"]] += end - start
    names = ("ready", "ring", "dial", "consult", "talk", "hold", "acw", "pause")
    daily = table(clean / "truth/agent_time_daily.csv")
    for row in daily:
        found = [int(row[f"{name}_seconds"]) for name in names]
        assert int(row["login_seconds"]) == sum(found)
        assert found == [states.pop((row["agent_id"], row["business_day"], n), 0) for n in names]
    assert not states
    assert any(row["business_day"] > "2026-10-16" for row in daily)
    talked: Counter[tuple[str, str]] = Counter()
    for row in connections:
        for name in ("talk", "hold", "acw"):
            talked[row["agent_id"], name] += int(row[f"{name}_seconds"])
    assert {key: count for key, count in talked.items() if count} == {
        key: count for key, count in whole.items() if key[1] in ("talk", "hold", "acw")
    }


def by_day(start: int, end: int) -> Iterator[tuple[str, int]]:
    """Seconds per local day."""
    while start < end:
        day = datetime.fromtimestamp(start, SHANGHAI).date()
        until = min(
            end, int(datetime(day.year, day.month, day.day, tzinfo=SHANGHAI).timestamp()) + 86400
        )
        yield day.isoformat(), until - start
        start = until


# -- queue_log ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One line of the log."""

    at: int
    call: str
    queue: str
    agent: str
    event: str
    data: list[str]


def queue_log_files(directory: Path) -> list[Path]:
    """Oldest first."""

    def age(path: Path) -> int:
        parts = path.name.split(".")
        return int(parts[1]) if len(parts) > 1 else 0

    return sorted((directory / "queue_log").iterdir(), key=age, reverse=True)


def parse(line: str) -> Line:
    at, call, queue, agent, event, *data = line.split("|")
    return Line(int(at), call, queue, agent, event, data)


def queue_log_lines(directory: Path) -> list[Line]:
    return [parse(line) for path in queue_log_files(directory) for line in text(path).splitlines()]


@pytest.fixture(scope="module")
def log(clean: Path) -> list[Line]:
    return queue_log_lines(clean)


@dataclass
class Visit:
    """What a reader of the log learns of a visit."""

    call: str
    queue: str
    entered: int
    outcome: str = "incomplete"
    wait: str = ""
    agent: str = ""
    ring: str = ""
    talk: str = ""
    transfer: str = ""
    party: str = ""


def read_visits(log: list[Line]) -> list[Visit]:
    """The log as visits: an entry, perhaps an answer, an end."""
    found: list[Visit] = []
    open_visits: dict[str, Visit] = {}
    for line in log:
        if line.event in REFUSALS:
            found.append(Visit(line.call, line.queue, line.at, REFUSALS[line.event], "0"))
        elif line.event == "ENTERQUEUE":
            assert line.call not in open_visits or open_visits[line.call].outcome != "answered"
            open_visits[line.call] = Visit(line.call, line.queue, line.at)
            found.append(open_visits[line.call])
        elif line.call in open_visits and line.event != "LEAVEEMPTY":
            visit = open_visits[line.call]
            if line.event.startswith("RING") or line.event == "WRAPUPSTART":
                continue
            assert visit.queue == line.queue
            match line.event:
                case "CONNECT":
                    visit.outcome, visit.agent = "answered", line.agent.removeprefix("Agent/")
                    visit.wait, _, visit.ring = line.data
                    assert line.at - visit.entered == int(visit.wait)
                    continue
                case "COMPLETECALLER" | "COMPLETEAGENT":
                    held, visit.talk, _ = line.data
                    visit.party = {"R": "customer", "T": "agent"}[line.event[-1]]
                case "BLINDTRANSFER":
                    _, context, held, visit.talk, _ = line.data
                    assert context == "queues"
                    visit.transfer = "blind"
                case "ATTENDEDTRANSFER":
                    held, visit.talk = line.data[-3:-1]
                    visit.transfer = "attended"
                case "ABANDON":
                    visit.outcome, visit.wait = "abandoned", line.data[2]
                case "EXITWITHTIMEOUT":
                    visit.outcome, visit.wait = "timeout", line.data[2]
                case "EXITWITHKEY":
                    visit.outcome, visit.wait = "exit_key", line.data[3]
                case "EXITEMPTY":
                    visit.outcome, visit.wait = "overflow_empty", line.data[2]
                case other:
                    raise AssertionError(other)
            if visit.talk:
                assert held == visit.wait
                assert line.at - visit.entered == int(visit.wait) + int(visit.talk)
            else:
                assert line.at - visit.entered == int(visit.wait)
            del open_visits[line.call]
    assert all(visit.outcome == "incomplete" for visit in open_visits.values())
    return found


CARRIED = {
    "transferred": "overflow_empty",
    "callback_requested": "exit_key",
}


def test_every_visit_is_in_the_log(
    log: list[Line], visits: list[Row], connections: list[Row]
) -> None:
    """Counts, waits and talk per queue, outcome and quarter of an hour of the entry."""
    talk = {
        (row["call_id"], row["leg_number"]): int(row["talk_seconds"]) + int(row["hold_seconds"])
        for row in connections
    }
    expected: Counter[tuple[str, str, int, str]] = Counter()
    for row in visits:
        outcome = CARRIED.get(row["outcome"], row["outcome"])
        key = row["queue_id"], outcome, epoch(row["entered_at"]) // 900
        expected[*key, "visits"] += 1
        if outcome != "incomplete":
            expected[*key, "wait"] += int(row["wait_seconds"])
        expected[*key, "talk"] += talk.get((row["call_id"], row["leg_number"]), 0)
    found: Counter[tuple[str, str, int, str]] = Counter()
    for visit in read_visits(log):
        key = visit.queue, visit.outcome, visit.entered // 900
        found[*key, "visits"] += 1
        found[*key, "wait"] += int(visit.wait or 0)
        found[*key, "talk"] += int(visit.talk or 0)
    assert +found == +expected
    assert {key[1] for key in expected} == {
        "answered",
        "abandoned",
        "timeout",
        "exit_key",
        "overflow_full",
        "overflow_empty",
        "overflow_diverted",
        "closed",
        "incomplete",
    }


def test_restricted_truth_is_what_a_reader_finds(clean: Path, log: list[Line]) -> None:
    acw: Counter[tuple[str, int]] = Counter()
    for line in log:
        if line.event == "WRAPUPSTART":
            acw[line.agent.removeprefix("Agent/"), line.at] += int(line.data[0])
    rows = table(clean / "truth/queue_log_visits.csv")
    expected = Counter(
        (
            row["unique_id"],
            row["queue_id"],
            row["agent_id"],
            row["outcome"],
            int(row["entered_epoch"]),
            row["wait_seconds"],
            row["ring_seconds"],
            row["talk_seconds"],
            row["transfer_type"],
            row["hangup_party"],
        )
        for row in rows
    )
    found = Counter(
        (
            visit.call,
            visit.queue,
            visit.agent,
            visit.outcome,
            visit.entered,
            visit.wait,
            visit.ring,
            visit.talk,
            visit.transfer,
            visit.party,
        )
        for visit in read_visits(log)
    )
    assert found == expected
    for row in rows:
        if row["acw_seconds"] not in ("", "0"):
            end = sum(int(row[f"{n}"]) for n in ("entered_epoch", "wait_seconds", "talk_seconds"))
            assert acw.pop((row["agent_id"], end)) == int(row["acw_seconds"])
    assert not acw


def test_logins_and_pauses_are_in_the_log(clean: Path, log: list[Line]) -> None:
    seconds: Counter[tuple[str, str, str]] = Counter()
    since: dict[tuple[str, str], int] = {}
    for line in log:
        agent = line.agent.removeprefix("Agent/")
        match line.event:
            case "AGENTLOGIN" | "PAUSEALL":
                assert (agent, line.event) not in since
                since[agent, line.event] = line.at
            case "AGENTLOGOFF" | "UNPAUSEALL":
                begun = since.pop((agent, line.event.replace("LOGOFF", "LOGIN").removeprefix("UN")))
                name = "login" if line.event == "AGENTLOGOFF" else "pause"
                if name == "login":
                    assert int(line.data[1]) == line.at - begun
                    assert (agent, "PAUSEALL") not in since
                for day, part in by_day(begun, line.at):
                    seconds[agent, day, name] += part
    assert not since
    for row in table(clean / "truth/agent_time_daily.csv"):
        for name in ("login", "pause"):
            found = seconds.pop((row["agent_id"], row["business_day"], name), 0)
            assert found == int(row[f"{name}_seconds"])
    assert not seconds


def test_rings_in_vain_are_in_milliseconds(log: list[Line], visits: list[Row]) -> None:
    """The only event whose time is not in seconds."""
    in_vain = [line for line in log if line.event == "RINGNOANSWER"]
    assert len(in_vain) > 20
    assert {line.data[0] for line in in_vain} == {"20000"}
    # A call may enter the same queue again: the first time counts.
    entered: dict[tuple[str, str], int] = {}
    for line in log:
        if line.event == "ENTERQUEUE":
            entered.setdefault((line.call, line.queue), line.at)
    assert all(line.at - 20 >= entered[line.call, line.queue] for line in in_vain)
    cancelled = sorted(int(line.data[0]) for line in log if line.event == "RINGCANCELED")
    given_up = [row for row in visits if row["outcome"] == "abandoned" and row["ring_seconds"]]
    assert [ring for ring in cancelled if ring % 1000] == []
    assert Counter(cancelled) >= Counter(1000 * int(row["ring_seconds"]) for row in given_up)
    assert given_up


def test_attended_transfers_have_their_three_layouts(
    log: list[Line], connections: list[Row]
) -> None:
    by_method = defaultdict(list)
    for line in log:
        if line.event == "ATTENDEDTRANSFER":
            by_method[line.data[0]].append(line)
    assert {method: {len(line.data) for line in found} for method, found in by_method.items()} == {
        "BRIDGE": {5},
        "APP": {5},
        "LINK": {6},
    }
    # What a table with five data columns holds: hold in the fourth, talk before the bar.
    for line in by_method["LINK"]:
        _, _, _, held, rest = "|".join(line.data).split("|", 4)
        talk, position = rest.split("|")
        assert line.data[1].endswith(";1") and line.data[2].endswith(";2")
        assert int(held) >= 0 and int(talk) > 0 and int(position) >= 1
    kinds = Counter(row["transfer_type"] for row in connections)
    assert len(by_method["LINK"]) == kinds["consult"] > 0
    assert len(by_method["BRIDGE"]) + len(by_method["APP"]) == kinds["attended"]


def test_log_is_rotated_daily(clean: Path, worlds: dict[str, Path]) -> None:
    names = [path.name for path in queue_log_files(clean)]
    ages = [f"queue_log.{age}.gz" for age in range(DAYS - 1, 1, -1)]
    assert names == [*ages, "queue_log.1", "queue_log"]
    midnight = int(datetime(2026, 10, 5, tzinfo=SHANGHAI).timestamp())
    for number, path in enumerate(queue_log_files(clean)):
        lines = [parse(line) for line in text(path).splitlines()]
        assert lines[0].event == ("CONFIGRELOAD" if number else "QUEUESTART")
        assert lines[0].at == midnight + number * 86400
        assert all(one.at <= other.at for one, other in pairwise(lines))
        if number < DAYS - 1:
            assert lines[-1].at < midnight + (number + 1) * 86400
    assert lines[-1].at > midnight + DAYS * 86400  # the last shift ends after midnight


def test_refusals_enter_no_queue_and_positions_are_places(log: list[Line]) -> None:
    events = Counter(line.event for line in log)
    assert events.keys() >= {
        *REFUSALS,
        "ENTERQUEUE",
        "CONNECT",
        "COMPLETEAGENT",
        "COMPLETECALLER",
        "ABANDON",
        "EXITWITHTIMEOUT",
        "EXITWITHKEY",
        "EXITEMPTY",
        "LEAVEEMPTY",
        "BLINDTRANSFER",
        "WRAPUPSTART",
        "ADDMEMBER",
        "REMOVEMEMBER",
    }
    assert events["EXITEMPTY"] == events["LEAVEEMPTY"]
    assert events["ADDMEMBER"] == events["REMOVEMEMBER"]
    for line in log:
        if line.event == "ABANDON":
            position, original, _ = map(int, line.data)
            assert 1 <= position <= original + 5  # calls that rang in vain return to the head
    assert any(line.event == "ENTERQUEUE" and int(line.data[2]) > 3 for line in log)


def test_dirt_of_the_log_can_be_undone(worlds: dict[str, Path]) -> None:
    limits = json.loads((worlds["dirty"] / "truth/queue_log_limits.json").read_text())
    kinds = Counter(note["kind"] for note in limits["dirt"])
    assert kinds.keys() == {
        "missing_after_crash",
        "missing_end",
        "missing_logoff",
        "missing_unpause",
        "out_of_order",
        "restart",
        "sent_again",
        "truncated_line",
    }
    files = {path.name: text(path).splitlines() for path in queue_log_files(worlds["dirty"])}
    assert limits["files"] == {name: len(lines) for name, lines in files.items()}
    for note in sorted(limits["dirt"], key=lambda note: -note.get("line", 0)):
        if note["kind"] in ("truncated_line", "restart"):
            assert files[note["file"]].pop(note["line"] - 1) == note["text"]
            assert (note["text"].count("|") < 4) is (note["kind"] == "truncated_line")
        elif note["kind"] == "out_of_order":
            assert files[note["file"]][note["line"] - 1] == note["text"]
        elif note["kind"] == "sent_again":
            line = files[note["file"]][note["line"] - 1]
            assert line in files[note["first_file"]]
    lost = [note["text"] for note in limits["dirt"] if note["kind"].startswith("missing")]
    restored = sorted({line for lines in files.values() for line in lines} | set(lost))
    assert restored == sorted(
        line for path in queue_log_files(worlds["clean"]) for line in text(path).splitlines()
    )


# -- Amazon Connect -------------------------------------------------------------------------------

TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
TIME_OR_NOT = {"anyOf": [TIME, {"type": "null"}]}
ID = {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
ID_OR_NOT = {"anyOf": [ID, {"type": "null"}]}
ARN = {"type": "string", "pattern": "^arn:aws:connect:"}
COUNT = {"type": "integer", "minimum": 0}
ENDPOINT = {
    "type": "object",
    "properties": {
        "Address": {"type": "string", "pattern": r"^(\+[1-9]\d{6,14}|anonymous)$"},
        "Type": {"const": "TELEPHONE_NUMBER"},
    },
    "required": ["Address", "Type"],
}


def exactly(properties: dict[str, Any]) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


RECORD = exactly(
    {
        "AWSAccountId": {"type": "string", "pattern": r"^\d{12}$"},
        "AWSContactTraceRecordFormatVersion": {"const": "2017-03-10"},
        "Agent": {
            "anyOf": [
                {"type": "null"},
                exactly(
                    {
                        "ARN": ARN,
                        "Username": {"type": "string"},
                        "ConnectedToAgentTimestamp": TIME,
                        "AgentInteractionDuration": COUNT,
                        "CustomerHoldDuration": COUNT,
                        "NumberOfHolds": COUNT,
                        "LongestHoldDuration": COUNT,
                        "AfterContactWorkDuration": COUNT,
                        "AfterContactWorkStartTimestamp": TIME,
                        "AfterContactWorkEndTimestamp": TIME,
                        "HierarchyGroups": exactly(
                            {"Level1": exactly({"ARN": ARN, "GroupName": {"type": "string"}})}
                        ),
                        "RoutingProfile": exactly({"ARN": ARN, "Name": {"type": "string"}}),
                    }
                ),
            ]
        },
        "AgentConnectionAttempts": COUNT,
        "Attributes": {"type": "object", "additionalProperties": {"type": "string"}},
        "Channel": {"const": "VOICE"},
        "ConnectedToSystemTimestamp": TIME_OR_NOT,
        "ContactId": ID,
        "CustomerEndpoint": ENDPOINT,
        "DisconnectReason": {
            "enum": [
                None,
                "CUSTOMER_DISCONNECT",
                "AGENT_DISCONNECT",
                "CONTACT_FLOW_DISCONNECT",
                "TELECOM_PROBLEM",
                "OUTBOUND_ATTEMPT_FAILED",
            ]
        },
        "DisconnectTimestamp": TIME,
        "InitialContactId": ID_OR_NOT,
        "InitiationMethod": {"enum": ["INBOUND", "TRANSFER", "QUEUE_TRANSFER", "CALLBACK"]},
        "InitiationTimestamp": TIME,
        "InstanceARN": ARN,
        "LastUpdateTimestamp": TIME,
        "NextContactId": ID_OR_NOT,
        "PreviousContactId": ID_OR_NOT,
        "Queue": {
            "anyOf": [
                {"type": "null"},
                exactly(
                    {
                        "ARN": ARN,
                        "Name": {"type": "string"},
                        "EnqueueTimestamp": TIME,
                        "DequeueTimestamp": TIME,
                        "Duration": COUNT,
                    }
                ),
            ]
        },
        "SystemEndpoint": ENDPOINT,
        "TransferCompletedTimestamp": TIME_OR_NOT,
    }
)


def connect_lines(directory: Path, kind: str) -> list[str]:
    paths = sorted((directory / "connect").glob(f"{kind}_*.jsonl.gz"))
    assert paths
    return [line for path in paths for line in text(path).splitlines()]


@pytest.fixture(scope="module")
def records(clean: Path) -> dict[str, Json]:
    found = [json.loads(line) for line in connect_lines(clean, "contacts")]
    by_id = {record["ContactId"]: record for record in found}
    assert len(by_id) == len(found) > 8000
    return by_id


def outcome(record: Json, records: dict[str, Json]) -> str:
    """How the contact left its queue."""
    following = records.get(record["NextContactId"] or "")
    if record["Agent"]:
        return "answered"
    if following and following["InitiationMethod"] == "QUEUE_TRANSFER":
        return "transferred"
    if exit_by := record["Attributes"].get("queue_exit"):
        return str(exit_by)
    if record["DisconnectReason"] == "TELECOM_PROBLEM":
        return "incomplete"
    assert record["DisconnectReason"] == "CUSTOMER_DISCONNECT"
    assert record["DisconnectTimestamp"] == record["Queue"]["DequeueTimestamp"]
    return "abandoned"


def test_records_follow_the_data_model(records: dict[str, Json]) -> None:
    validator = jsonschema.Draft202012Validator(RECORD)
    for record in records.values():
        validator.validate(record)
    assert not validator.is_valid(next(iter(records.values())) | {"Channel": "FAX"})
    methods = Counter(record["InitiationMethod"] for record in records.values())
    assert len(methods) == 4
    assert any(
        record["Agent"] and record["Agent"]["NumberOfHolds"] > 1 for record in records.values()
    )


def test_every_enqueued_visit_is_in_the_records(
    records: dict[str, Json], visits: list[Row]
) -> None:
    expected: Counter[tuple[str, str, int, str]] = Counter()
    refused = ("overflow_full", "overflow_empty", "overflow_diverted", "closed")
    for row in visits:
        if row["outcome"] not in refused:
            key = row["queue_id"], row["outcome"], epoch(row["entered_at"]) // 900
            expected[*key, "visits"] += 1
            expected[*key, "wait"] += int(row["wait_seconds"])
    found: Counter[tuple[str, str, int, str]] = Counter()
    for record in records.values():
        if queue := record["Queue"]:
            start, end = utc(queue["EnqueueTimestamp"]), utc(queue["DequeueTimestamp"])
            assert queue["Duration"] == end - start
            key = queue["Name"], outcome(record, records), start // 900
            found[*key, "visits"] += 1
            found[*key, "wait"] += queue["Duration"]
    assert +found == +expected
    assert len({key[1] for key in found}) == 7


def test_every_connection_is_in_the_records(
    clean: Path, records: dict[str, Json], connections: list[Row]
) -> None:
    expected = Counter(
        (
            row["agent_id"],
            epoch(row["connected_at"]),
            int(row["talk_seconds"]),
            int(row["hold_seconds"]),
            int(row["acw_seconds"]),
            row["queue_id"],
            row["agent_region_code"],
            row["team_id"],
        )
        for row in connections
    )
    found = Counter(
        (
            agent["Username"],
            utc(agent["ConnectedToAgentTimestamp"]),
            agent["AgentInteractionDuration"],
            agent["CustomerHoldDuration"],
            agent["AfterContactWorkDuration"],
            record["Queue"]["Name"] if record["Queue"] else "",
            agent["HierarchyGroups"]["Level1"]["GroupName"],
            agent["HierarchyGroups"]["Level2"]["GroupName"],
        )
        for record in records.values()
        if (agent := record["Agent"])
    )
    assert found == expected
    for record in records.values():
        if agent := record["Agent"]:
            wrap_up = utc(agent["AfterContactWorkStartTimestamp"])
            assert (
                utc(agent["AfterContactWorkEndTimestamp"]) - wrap_up
                == (agent["AfterContactWorkDuration"])
            )
            assert agent["LongestHoldDuration"] <= agent["CustomerHoldDuration"]
            assert utc(record["LastUpdateTimestamp"]) > utc(agent["AfterContactWorkEndTimestamp"])


def test_chains_are_calls(clean: Path, records: dict[str, Json]) -> None:
    """Every link points back, and the contacts of a chain without call-backs are one call."""
    calls = {row["call_id"]: row for row in table(clean / "truth/calls.csv")}
    call_of = {row["contact_id"]: row for row in table(clean / "truth/connect_contacts.csv")}
    assert call_of.keys() == records.keys()
    heads = 0
    for contact_id, record in records.items():
        if following := record["NextContactId"]:
            assert records[following]["PreviousContactId"] == contact_id
        if record["InitiationMethod"] in ("INBOUND", "CALLBACK"):
            heads += 1
            call = calls[call_of[contact_id]["call_id"]]
            assert utc(record["InitiationTimestamp"]) == epoch(call["arrived_at"])
            assert (call["channel"] == "callback") is (record["InitiationMethod"] == "CALLBACK")
            chain = [record]
            while following := chain[-1]["NextContactId"]:
                if records[following]["InitiationMethod"] == "CALLBACK":
                    break
                chain.append(records[following])
            assert utc(chain[-1]["DisconnectTimestamp"]) == epoch(call["ended_at"])
            assert {call_of[part["ContactId"]]["call_id"] for part in chain} == {call["call_id"]}
            assert sum(part["Agent"] is not None for part in chain) == int(call["connections"])
            for part in chain[:-1]:
                assert part["DisconnectReason"] is None
                assert part["TransferCompletedTimestamp"] == part["DisconnectTimestamp"]
        else:
            assert records[record["PreviousContactId"]]["NextContactId"] == contact_id
        if record["InitiationMethod"] == "INBOUND":
            assert record["InitialContactId"] is record["PreviousContactId"] is None
        else:
            first = records[record["InitialContactId"]]
            assert first["InitiationMethod"] == "INBOUND"
            assert utc(first["InitiationTimestamp"]) < utc(record["InitiationTimestamp"])
    assert heads == len(calls)


def test_newest_version_of_each_record_is_the_clean_one(
    worlds: dict[str, Path], records: dict[str, Json]
) -> None:
    limits = json.loads((worlds["dirty"] / "truth/connect_limits.json").read_text())
    kinds = Counter(note["kind"] for note in limits["dirt"])
    assert kinds.keys() == {
        "sent_again",
        "older_version",
        "older_version_last",
        "truncated_line",
        "unknown_field",
        "event_sent_again",
    }
    newest: dict[str, Json] = {}
    broken = unknown = delivered = 0
    arrived_late = 0
    for line in connect_lines(worlds["dirty"], "contacts"):
        delivered += 1
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            broken += 1
            continue
        known = newest.get(record["ContactId"])
        if known is None or known["LastUpdateTimestamp"] < record["LastUpdateTimestamp"]:
            unknown += record.pop("QualityPreview", None) is not None
            newest[record["ContactId"]] = record
        else:
            arrived_late += known["LastUpdateTimestamp"] > record["LastUpdateTimestamp"]
    assert newest == records
    assert broken == kinds["truncated_line"]
    assert unknown == kinds["unknown_field"]
    assert arrived_late == kinds["older_version_last"]
    assert delivered - len(records) == (
        kinds["sent_again"]
        + kinds["older_version"]
        + kinds["older_version_last"]
        + kinds["truncated_line"]
    )
    clean_events = connect_lines(worlds["clean"], "agent_events")
    dirty_events = connect_lines(worlds["dirty"], "agent_events")
    assert set(dirty_events) == set(clean_events)
    assert len(dirty_events) - len(clean_events) == kinds["event_sent_again"]


def test_agent_events_tell_the_states(clean: Path, records: dict[str, Json]) -> None:
    """States by differencing, with what the stream cannot tell apart put together."""
    same = {"ring": "connecting", "dial": "connecting", "consult": "connecting"}
    words = {
        "CONNECTING": "connecting",
        "CONNECTED": "talk",
        "CONNECTED_ONHOLD": "hold",
        "ENDED": "acw",
    }
    current: dict[str, tuple[str, int]] = {}
    previous: dict[str, Json] = {}
    last: dict[str, int] = {}
    found: Counter[tuple[str, str, str]] = Counter()
    kinds: Counter[str] = Counter()
    identifiers = set()
    for line in connect_lines(clean, "agent_events"):
        event = json.loads(line)
        kinds[event["EventType"]] += 1
        identifiers.add(event["EventId"])
        snapshot, at = event["CurrentAgentSnapshot"], utc(event["EventTimestamp"])
        agent = snapshot["Configuration"]["Username"]
        if agent in previous:
            assert event["PreviousAgentSnapshot"] == previous[agent]
        previous[agent] = snapshot
        if event["EventType"] not in ("LOGIN",):
            assert at - last[agent] <= 120
        last[agent] = at
        state = "ready"
        if snapshot["AgentStatus"]["Type"] == "OFFLINE":
            state = "offline"
        elif snapshot["Contacts"]:
            (contact,) = snapshot["Contacts"]
            assert records[contact["ContactId"]]["InitiationMethod"] == contact["InitiationMethod"]
            state = words[contact["State"]]
        elif snapshot["AgentStatus"]["Type"] == "CUSTOM":
            state = "pause"
        if event["EventType"] == "HEART_BEAT":
            assert current[agent][0] == state
            continue
        name, since = current.get(agent, ("offline", at))
        for day, seconds in by_day(since, at):
            found[agent, day, name] += seconds
        current[agent] = state, at
    assert kinds["LOGIN"] == kinds["LOGOUT"] > 100
    assert kinds["HEART_BEAT"] > kinds["STATE_CHANGE"] / 5 > 0
    assert len(identifiers) == kinds.total()
    assert {state for state, _ in current.values()} == {"offline"}
    expected: Counter[tuple[str, str, str]] = Counter()
    for row in table(clean / "truth/agent_time_daily.csv"):
        for name in ("ready", "ring", "dial", "consult", "talk", "hold", "acw", "pause"):
            key = row["agent_id"], row["business_day"], same.get(name, name)
            expected[key] += int(row[f"{name}_seconds"])
    assert {key: n for key, n in found.items() if key[2] != "offline"} == +expected


# -- Asterisk CDR and CEL -------------------------------------------------------------------------

CDR_HEADER = (
    "accountcode,src,dst,dcontext,clid,channel,dstchannel,lastapp,lastdata,start,answer,end,"
    "duration,billsec,disposition,amaflags,uniqueid,userfield,peeraccount,linkedid,sequence"
)
CEL_HEADER = (
    "eventtype,eventtime,cid_name,cid_num,cid_ani,cid_rdnis,cid_dnid,exten,context,channame,"
    "appname,appdata,amaflags,accountcode,uniqueid,linkedid,peer,userfield,userdeftype,extra"
)


def asterisk_rows(directory: Path, kind: str, header: str) -> list[Row]:
    columns = header.split(",")
    paths = sorted((directory / kind).iterdir())
    assert len(paths) >= DAYS
    rows = list(csv.reader(line for path in paths for line in text(path).splitlines()))
    assert {len(row) for row in rows} == {len(columns)}
    return [dict(zip(columns, row, strict=True)) for row in rows]


def party(channel: str) -> str:
    """`PJSIP/101-0000002a` is 101's."""
    return channel.removeprefix("PJSIP/").rsplit("-", 1)[0]


def test_detail_records_cover_every_call(
    clean: Path, log: list[Line], connections: list[Row]
) -> None:
    """Without a gap from arrival to end, with the agents in their order."""
    records = defaultdict(list)
    sequences = set()
    consultations = 0
    for row in asterisk_rows(clean, "cdr", CDR_HEADER):
        assert int(row["duration"]) == epoch(row["end"]) - epoch(row["start"])
        answered = epoch(row["end"]) - epoch(row["answer"]) if row["answer"] else 0
        assert int(row["billsec"]) == answered
        assert row["disposition"] == ("ANSWERED" if row["answer"] else "NO ANSWER")
        sequences.add((row["uniqueid"], row["linkedid"], row["sequence"]))
        if row["dcontext"] == "agents":
            consultations += 1
        else:
            records[row["linkedid"]].append(row)
    agents = defaultdict(list)
    for row in connections:
        agents[row["call_id"]].append(row["agent_id"])
    in_vain = Counter(line.call for line in log if line.event in ("RINGNOANSWER", "RINGCANCELED"))
    calls = {row["call_id"]: row for row in table(clean / "truth/calls.csv")}
    carried = table(clean / "truth/cdr_calls.csv")
    assert {row["unique_id"] for row in carried} == records.keys()
    assert len(carried) == len(calls) == len(records)
    for row in carried:
        call, found = calls[row["call_id"]], records[row["unique_id"]]
        start, end = epoch(call["arrived_at"]), epoch(call["ended_at"])
        assert max(epoch(part["end"]) for part in found) == end
        connected = sorted(
            (part for part in found if part["disposition"] == "ANSWERED"),
            key=lambda part: int(part["sequence"]),
        )
        if call["channel"] == "callback":
            assert [party(part["channel"]) for part in connected] == agents[row["call_id"]]
            continue
        assert min(epoch(part["start"]) for part in connected) == start
        assert sum(int(part["duration"]) for part in connected) == end - start
        assert all(one["end"] == other["start"] for one, other in pairwise(connected))
        named = [party(part["dstchannel"]) for part in connected if part["dstchannel"]]
        assert named == agents[row["call_id"]] == row["agents"].split()
        assert len(found) - len(connected) == in_vain[row["unique_id"]]
    assert len(sequences) == sum(map(len, records.values())) + consultations
    kinds = Counter(row["transfer_type"] for row in connections)
    assert consultations == kinds["attended"] + kinds["consult"]


def test_channel_events_tell_self_service_connections_and_hang_up(clean: Path) -> None:
    logs = defaultdict(list)
    for row in asterisk_rows(clean, "cel", CEL_HEADER):
        logs[row["linkedid"]].append(row)
    calls = {row["call_id"]: row for row in table(clean / "truth/calls.csv")}
    carried = {row["linked_id"]: row for row in table(clean / "truth/cel_calls.csv")}
    assert len(carried) == len(calls)
    transfers: Counter[str] = Counter()
    for linked_id, events in logs.items():
        assert events[-1]["eventtype"] == "LINKEDID_END"
        times = [float(event["eventtime"]) for event in events]
        assert times == sorted(times)
        if linked_id not in carried:
            assert {event["context"] for event in events} == {"agents"}
            continue
        call = calls[carried[linked_id]["call_id"]]
        own = [event for event in events if event["uniqueid"] == linked_id]
        assert own[0]["eventtype"] == "CHAN_START"
        assert int(times[0]) == epoch(call["arrived_at"])
        assert int(times[-1]) == epoch(call["ended_at"])
        steps = [event for event in own if event["eventtype"] in ("APP_START", "HANGUP")]
        if call["channel"] != "callback":
            assert steps[0]["appname"] == ("AGI" if call["channel"] == "bot" else "Background")
            spent = int(float(steps[1]["eventtime"])) - int(float(steps[0]["eventtime"]))
            assert spent == int(call["ivr_seconds"])
        talked: Counter[str] = Counter()
        for event in own:
            at = int(float(event["eventtime"]))
            if event["eventtype"] == "BRIDGE_ENTER":
                talked["seconds"] -= at
                talked["connections"] += 1
            elif event["eventtype"] == "BRIDGE_EXIT":
                talked["seconds"] += at
        assert talked["connections"] == int(call["connections"])
        assert talked["seconds"] == int(call["talk_seconds"]) + int(call["hold_seconds"])
        hang_up = next(event for event in own if event["eventtype"] == "HANGUP")
        source = json.loads(hang_up["extra"])["hangupsource"]
        outbound = call["channel"] == "callback"
        by = "system" if not source else "customer" if party(source) == "trunk" else "agent"
        assert by == call["hangup_party"], (outbound, source)
        transfers.update(e["eventtype"] for e in events if e["eventtype"].endswith("TRANSFER"))
        started = Counter(e["channame"] for e in events if e["eventtype"] == "CHAN_START")
        ended = Counter(e["channame"] for e in events if e["eventtype"] == "CHAN_END")
        assert started <= ended  # a colleague's channel started in the consultation
    assert carried.keys() <= logs.keys()
    assert transfers["BLINDTRANSFER"] > transfers["ATTENDEDTRANSFER"] > 50


@pytest.mark.parametrize("kind", ["cdr", "cel"])
def test_dirt_of_channel_records_can_be_undone(worlds: dict[str, Path], kind: str) -> None:
    limits = json.loads((worlds["dirty"] / f"truth/{kind}_limits.json").read_text())
    lines = {
        name: Counter(
            line for path in (folder / kind).iterdir() for line in text(path).splitlines()
        )
        for name, folder in worlds.items()
    }
    assert sum(limits["files"].values()) == lines["dirty"].total()
    lost = Counter(
        n["text"] for n in limits["dirt"] if n["kind"] in ("lost_in_batch", "missing_event")
    )
    twice = Counter(n["text"] for n in limits["dirt"] if n["kind"] == "sent_again")
    assert lost and (twice or kind == "cel")
    assert lines["dirty"] + lost == lines["clean"] + twice


# -- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["queue_log", "connect"])
def test_limits_count_what_is_missing(clean: Path, name: str, visits: list[Row]) -> None:
    limits = json.loads((clean / f"truth/{name}_limits.json").read_text(encoding="utf-8"))
    assert limits["format"] == name
    assert len(limits["limits"]) >= 10
    assert limits["dirt"] == []
    assert limits["outcomes"].keys() == {row["outcome"] for row in visits}
    carried = Counter(limits["outcomes"][row["outcome"]] for row in visits)
    counts = limits["counts"]
    assert counts["visits"] == carried.total()
    assert counts["visits_carried"] == carried.total() - carried[""]
    calls = table(clean / "truth/calls.csv")
    assert counts["calls"] == len(calls)
    if name == "queue_log":
        assert counts["calls_carried"] == sum(row["visits"] != "0" for row in calls)
        assert counts["connections_carried"] == carried["answered"] < counts["connections"]
    else:
        assert counts["calls_carried"] == counts["calls"]
        assert counts["connections_carried"] == counts["connections"]


@pytest.mark.parametrize("name", FORMATS[1:])
def test_every_format_has_limits_and_a_truth_of_its_own(clean: Path, name: str) -> None:
    limits = json.loads((clean / f"truth/{name}_limits.json").read_text(encoding="utf-8"))
    assert all(entry["what"] and entry["how"] for entry in limits["limits"])
    assert limits["files"].keys() == {path.name for path in (clean / name).iterdir()}
    (own,) = (clean / "truth").glob(f"{name}_*.csv")
    assert len(table(own)) > 5000


def test_surveys_are_attributes_of_the_last_contact(clean: Path, records: dict[str, Json]) -> None:
    call_of = {
        row["contact_id"]: row["call_id"] for row in table(clean / "truth/connect_contacts.csv")
    }
    surveys = {row["call_id"]: row for row in table(clean / "truth/surveys.csv")}
    seen = 0
    for contact_id, record in records.items():
        told = {k: v for k, v in record["Attributes"].items() if k.startswith("survey")}
        if not told:
            continue
        seen += 1
        survey = surveys[call_of[contact_id]]
        following = record["NextContactId"]
        assert following is None or records[following]["InitiationMethod"] == "CALLBACK"
        assert told["survey_type"] == survey["survey_type"]
        assert utc(told["survey_offered_at"]) == epoch(survey["offered_at"])
        assert told.get("survey_score", "") == survey["score"]
        known = [survey["offered_at"]]
        if survey["answered_at"]:
            assert utc(told["survey_answered_at"]) == epoch(survey["answered_at"])
            known.append(survey["answered_at"])
        assert utc(record["LastUpdateTimestamp"]) > max(map(epoch, known))
    assert seen == len(surveys) > 100
