"""The simulated centre: reproducible, balanced, shaped like a real one, and honest about dirt."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import phonenumbers
import pytest
from phonenumbers import geocoder

from callhouse import simulate
from callhouse.errors import CallhouseError
from callhouse.simulate import details, feed, world

Row = dict[str, str]
START = date(2026, 10, 5)
TABLES = (
    "calls",
    "visits",
    "connections",
    "queue_15min",
    "daily",
    "agent_daily",
    "agent_states",
    "agent_time_daily",
    "agent_time_15min",
    "offers",
    "ivr_steps",
    "surveys",
    "schedules",
    "agent_adherence_daily",
)
PROVINCES = {
    "CN-GD": "Guangdong",
    "CN-SH": "Shanghai",
    "CN-BJ": "Beijing",
    "CN-SC": "Sichuan",
    "CN-ZJ": "Zhejiang",
    "CN-JS": "Jiangsu",
    "CN-HB": "Hubei",
    "CN-HN": "Hunan",
    "CN-FJ": "Fujian",
    "CN-SD": "Shandong",
    "CN-CQ": "Chongqing",
    "CN-SN": "Shaanxi",
}


@dataclass(frozen=True)
class Sample:
    """A written simulation, read back."""

    result: simulate.SimulationResult
    truth: dict[str, list[Row]]
    summary: dict[str, Any]

    def days(self, kind: str) -> set[str]:
        return {day["business_day"] for day in self.summary["days"] if day["kind"] == kind}


def read(directory: Path) -> dict[str, list[Row]]:
    tables = {}
    for table in TABLES:
        with (directory / f"{table}.csv").open(encoding="utf-8", newline="") as file:
            tables[table] = list(csv.DictReader(file))
    return tables


def lines(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def legs(path: Path) -> list[Row]:
    return list(csv.DictReader(lines(path)))


def instant(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - local times of the feed


def seconds(start: str, end: str) -> int:
    return int((instant(end) - instant(start)).total_seconds())


def total(rows: list[Row], column: str) -> int:
    return sum(int(row[column]) for row in rows)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Three weeks at full size: the end of National Day's holidays, ordinary days, spike days."""
    result = simulate.write(
        tmp_path_factory.mktemp("sample"), seed=7, start=START, days=21, calls_per_day=3000
    )
    summary = json.loads((result.truth / "summary.json").read_text(encoding="utf-8"))
    return Sample(result, read(result.truth), summary)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One small world twice: without and with dirt."""
    clean, dirty = tmp_path_factory.mktemp("clean"), tmp_path_factory.mktemp("dirty")
    for directory, dirt in ((clean, False), (dirty, True)):
        simulate.write(directory, seed=3, start=START, days=17, calls_per_day=400, dirt=dirt)
    return clean, dirty


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


# -- reproducible --------------------------------------------------------------------------------


def test_same_arguments_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    # Another hash seed: an iteration over a set would show here and nowhere else.
    program = (
        "import sys; from datetime import date; from pathlib import Path; "
        "from callhouse import simulate; simulate.write(Path(sys.argv[1]), seed=5, "
        "start=date(2026, 10, 5), days=4, calls_per_day=300)"
    )
    for name, hash_seed in (("first", "1"), ("second", "2")):
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / name)],
            check=True,
            env={
                **os.environ,
                "PYTHONHASHSEED": hash_seed,
                "PYTHONPATH": str(Path(simulate.__file__).parents[2]),
            },
        )
    first = contents(tmp_path / "first")
    assert len(first) == 4 * (1 + len(details.KINDS)) + 2 + len(TABLES) + 1
    assert first == contents(tmp_path / "second")


def test_another_seed_gives_another_world(tmp_path: Path) -> None:
    for seed in (1, 2):
        simulate.write(tmp_path / str(seed), seed=seed, start=START, days=1, calls_per_day=300)
    assert (tmp_path / "1/truth/calls.csv").read_bytes() != (
        tmp_path / "2/truth/calls.csv"
    ).read_bytes()


def test_archives_carry_no_clock_time(sample: Sample) -> None:
    assert len(sample.result.call_files) == 21
    assert {path.read_bytes()[4:8] for path in sample.result.call_files} == {b"\0\0\0\0"}


def test_progress_is_told_once_a_day(tmp_path: Path) -> None:
    told: list[str] = []
    simulate.write(tmp_path, start=START, days=3, calls_per_day=50, progress=told.append)
    assert [line[:10] for line in told] == ["2026-10-05", "2026-10-06", "2026-10-07"]


@pytest.mark.parametrize(("days", "calls_per_day"), [(0, 100), (5, 0)])
def test_nothing_to_simulate_is_said(tmp_path: Path, days: int, calls_per_day: int) -> None:
    with pytest.raises(CallhouseError, match="at least 1"):
        simulate.write(tmp_path, days=days, calls_per_day=calls_per_day)


def test_files_of_another_run_are_not_mixed_in(tmp_path: Path) -> None:
    simulate.write(tmp_path, start=START, days=3, calls_per_day=50)
    with pytest.raises(CallhouseError, match=r"agent_states_2026-10-07\.csv\.gz"):
        simulate.write(tmp_path, start=START, days=2, calls_per_day=50)


# -- balanced ------------------------------------------------------------------------------------


def test_every_offered_call_has_one_fate(sample: Sample) -> None:
    fates = Counter(row["outcome"] for row in sample.truth["visits"])
    totals = sample.result.totals
    assert totals["queue_visits"] == fates.total()
    assert totals["calls_offered"] == fates.total() - fates["closed"]
    assert totals["calls_answered"] == fates["answered"] > 0
    assert totals["calls_abandoned"] == fates["abandoned"] > 0
    for row in sample.truth["queue_15min"] + sample.truth["daily"]:
        assert int(row["calls_offered"]) == (
            int(row["calls_answered"]) + int(row["calls_abandoned"]) + int(row["offered_otherwise"])
        )


def test_sums_equal_the_detail(sample: Sample) -> None:
    """Each aggregate once more, from the written detail rows."""
    by_quarter: Counter[tuple[str, ...]] = Counter()
    by_day: Counter[tuple[str, ...]] = Counter()
    by_agent: Counter[tuple[str, ...]] = Counter()
    for row in sample.truth["visits"]:
        wait, answered = int(row["wait_seconds"]), row["outcome"] == "answered"
        entered = instant(row["entered_at"])
        quarter = entered - timedelta(minutes=entered.minute % 15, seconds=entered.second)
        facts = {
            "queue_visits": 1,
            "answered_within_target": int(answered and wait <= 20),
            "answered_within_15s": int(answered and wait <= 15),
            "short_abandons": int(row["outcome"] == "abandoned" and wait <= 5),
            "answered_wait_seconds": wait * answered,
        }
        for name, count in facts.items():
            by_quarter[row["business_day"], str(quarter), row["queue_id"], name] += count
            by_day[
                row["business_day"], row["queue_id"], row["channel"], row["region_code"], name
            ] += count
    for row in sample.truth["connections"]:
        facts = {name: int(row[name]) for name in ("talk_seconds", "hold_seconds", "acw_seconds")}
        facts["agent_connections"] = 1
        for name in ("blind", "attended", "consult"):
            facts[f"transfers_{name}"] = int(row["transfer_type"] == name)
        for name, count in facts.items():
            by_agent[
                row["business_day"], row["agent_id"], row["team_id"], row["agent_region_code"], name
            ] += count
            by_day[
                row["business_day"], row["queue_id"], row["channel"], row["region_code"], name
            ] += count
    for row in sample.truth["calls"]:
        by_day[
            row["business_day"], row["first_queue_id"], row["channel"], row["region_code"], "calls"
        ] += 1
    for table, keys, expected in (
        ("queue_15min", ("business_day", "interval_start_at", "queue_id"), by_quarter),
        ("daily", ("business_day", "queue_id", "channel", "region_code"), by_day),
        ("agent_daily", ("business_day", "agent_id", "team_id", "agent_region_code"), by_agent),
    ):
        names = {key[-1] for key in expected}
        found = {
            (*(row[key] for key in keys), name): int(row[name])
            for row in sample.truth[table]
            for name in names
        }
        assert found == {key: expected[key] for key in found}
        assert expected.keys() <= found.keys()


def test_totals_equal_every_table(sample: Sample) -> None:
    totals = sample.result.totals
    assert totals["calls"] == len(sample.truth["calls"])
    assert totals["agent_connections"] == len(sample.truth["connections"])
    for name, count in totals.items():
        assert total(sample.truth["daily"], name) == count
    for table in ("queue_15min", "agent_daily"):
        for name in totals.keys() & sample.truth[table][0].keys():
            assert total(sample.truth[table], name) == totals[name]


def test_components_fit_into_the_call(sample: Sample) -> None:
    for row in sample.truth["calls"]:
        parts = [int(row[f"{part}_seconds"]) for part in ("ivr", "wait", "talk", "hold")]
        assert min(parts) >= 0
        assert sum(parts) <= seconds(row["arrived_at"], row["ended_at"])


def test_clean_files_hold_exactly_the_truth(pair: tuple[Path, Path]) -> None:
    """Counted from the files by the documented rules, with none of the simulator's code."""
    clean, _ = pair
    truth = read(clean / "truth")
    visits, connections, calls = [], [], defaultdict(list)
    for path in sorted(clean.glob("calls_*.csv.gz")):
        for leg in legs(path):
            assert path.name == f"calls_{leg['arrived'][:10]}.csv.gz"
            calls[leg["call_id"]].append(leg)
    for call_legs in calls.values():
        assert [leg["leg"] for leg in call_legs] == [
            str(number) for number in range(1, len(call_legs) + 1)
        ]
        for leg in call_legs:
            if leg["queue"]:
                assert int(leg["wait_s"]) == seconds(leg["queue_start"], leg["queue_end"])
                visits.append((leg["call_id"], leg["queue"], leg["outcome"], leg["wait_s"]))
            if leg["outcome"] == "answered":
                assert int(leg["talk_s"]) + int(leg["hold_s"]) == seconds(
                    leg["answered"], leg["released"]
                )
                connections.append(
                    (
                        leg["call_id"],
                        leg["agent"],
                        leg["transfer"],
                        leg["talk_s"],
                        leg["hold_s"],
                        leg["acw_s"],
                    )
                )
            if leg["ivr_s"]:
                assert int(leg["ivr_s"]) == seconds(leg["ivr_start"], leg["ivr_end"])
            assert not leg["ring_s"] or int(leg["ring_s"]) <= int(leg["wait_s"])
    assert list(calls) == [row["call_id"] for row in truth["calls"]]
    assert visits == [
        (row["call_id"], row["queue_id"], row["outcome"], row["wait_seconds"])
        for row in truth["visits"]
    ]
    assert connections == [
        (
            row["call_id"],
            row["agent_id"],
            row["transfer_type"],
            row["talk_seconds"],
            row["hold_seconds"],
            row["acw_seconds"],
        )
        for row in truth["connections"]
    ]
    assert [row["outcome"] for row in truth["calls"]] == [
        "answered"
        if any(leg["outcome"] == "answered" for leg in call_legs)
        else call_legs[-1]["outcome"]
        for call_legs in calls.values()
    ]


def test_no_agent_is_in_two_places(sample: Sample) -> None:
    work = defaultdict(list)
    for row in sample.truth["connections"]:
        end = instant(row["ended_at"]) + timedelta(seconds=int(row["acw_seconds"]))
        work[row["agent_id"]].append((instant(row["connected_at"]), end))
    assert 50 <= len(work) <= 70
    for stretches in work.values():
        for (_, end), (begin, _) in pairwise(sorted(stretches)):
            assert end <= begin


def test_team_is_that_of_the_day(sample: Sample) -> None:
    with sample.result.agents_file.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["valid_from"])
    moved = [agent for agent, count in Counter(row["agent"] for row in rows).items() if count > 1]
    assert len(moved) == 2
    for connection in sample.truth["connections"]:
        if connection["agent_id"] in moved:
            valid = [
                row
                for row in rows
                if row["agent"] == connection["agent_id"]
                and row["valid_from"] <= connection["business_day"]
            ]
            assert connection["team_id"] == valid[-1]["team"]
            assert connection["agent_region_code"] == valid[-1]["region"]


# -- shaped --------------------------------------------------------------------------------------


def test_days_have_two_peaks_and_a_lunch_dip(sample: Sample) -> None:
    weekdays = {day for day in sample.days("ordinary") if date.fromisoformat(day).weekday() < 5}
    assert len(weekdays) >= 8
    hours = Counter(
        int(row["arrived_at"][11:13])
        for row in sample.truth["calls"]
        if row["business_day"] in weekdays and row["channel"] != "callback"
    )
    morning = max(hours[hour] for hour in (9, 10, 11))
    afternoon = max(hours[hour] for hour in (14, 15, 16))
    lunch = min(hours[hour] for hour in (12, 13))
    assert hours.most_common(1)[0][0] in (9, 10, 11)
    assert lunch < 0.8 * afternoon < 0.8 * morning
    assert 0 < max(hours[hour] for hour in range(5)) < 0.1 * morning


def test_volume_follows_the_week_and_the_calendar(sample: Sample) -> None:
    volume = Counter(row["business_day"] for row in sample.truth["calls"])
    ordinary = sample.days("ordinary")
    mondays = [volume[day] for day in ordinary if date.fromisoformat(day).weekday() == 0]
    sundays = [volume[day] for day in ordinary if date.fromisoformat(day).weekday() == 6]
    assert min(mondays) > 1.25 * max(sundays)
    mean = sum(volume[day] for day in ordinary) / len(ordinary)
    assert 2700 < mean < 3300
    holidays = sample.days("holiday")
    assert holidays == {"2026-10-05", "2026-10-06", "2026-10-07"}
    assert max(volume[day] for day in holidays) < 0.75 * mean
    served = Counter(
        row["queue_id"]
        for row in sample.truth["visits"]
        if row["business_day"] in holidays and row["outcome"] == "answered"
    )
    assert set(served) == {"service", "cards", "vip"}
    spikes = sample.days("spike")
    assert len(spikes) == 2
    assert min(volume[day] for day in spikes) > 1.25 * mean


def rates(rows: list[Row]) -> tuple[float, float]:
    """Service level and abandon rate."""
    waited = total(rows, "calls_answered") + total(rows, "calls_abandoned")
    return (total(rows, "answered_within_target") / waited, total(rows, "calls_abandoned") / waited)


def test_service_is_good_on_ordinary_days_and_poor_on_spike_days(sample: Sample) -> None:
    by_day = defaultdict(list)
    for row in sample.truth["daily"]:
        by_day[row["business_day"]].append(row)
    ordinary = sorted(rates(by_day[day])[0] for day in sample.days("ordinary"))
    assert 0.75 <= ordinary[len(ordinary) // 2] <= 0.9
    assert ordinary[0] > 0.55
    assert max(rates(by_day[day])[0] for day in sample.days("spike")) < 0.7
    assert 0.03 <= rates(sample.truth["daily"])[1] <= 0.08


def test_longer_queues_lose_more_callers(sample: Sample) -> None:
    """Abandonment comes from waiting: intervals with long waits lose a larger share."""
    quiet: list[Row] = []
    busy: list[Row] = []
    for row in sample.truth["queue_15min"]:
        if int(row["calls_answered"]):
            asa = int(row["answered_wait_seconds"]) / int(row["calls_answered"])
            (quiet if asa < 10 else busy if asa > 60 else []).append(row)
    assert len(busy) > 100
    assert rates(busy)[1] > 5 * rates(quiet)[1]


def test_everything_that_can_happen_does(sample: Sample) -> None:
    truth = sample.truth
    assert {row["outcome"] for row in truth["visits"]} == {
        "answered",
        "abandoned",
        "timeout",
        "exit_key",
        "overflow_full",
        "overflow_empty",
        "overflow_diverted",
        "closed",
        "transferred",
        "callback_requested",
        "incomplete",
    }
    assert {row["outcome"] for row in truth["calls"]} >= {
        "answered",
        "abandoned",
        "contained",
        "closed",
        "voicemail",
        "callback_requested",
    }
    assert {row["channel"] for row in truth["calls"]} == {
        "ivr",
        "bot",
        "human",
        "callback",
        "voicemail",
    }
    assert {row["abandon_stage"] for row in truth["calls"]} == {
        "",
        "ivr",
        "bot",
        "queue",
        "ring",
        "voicemail",
    }
    assert {row["transfer_type"] for row in truth["connections"]} == {
        "",
        "blind",
        "attended",
        "consult",
    }
    assert {row["hangup_party"] for row in truth["calls"]} == {"customer", "agent", "system"}
    assert {row["queue_id"] for row in truth["visits"]} == set(world.QUEUES)
    assert max(int(row["legs"]) for row in truth["calls"]) >= 3
    assert total(truth["daily"], "short_abandons") > 100
    midnight = [row for row in truth["calls"] if row["ended_at"][:10] > row["business_day"]]
    assert any(int(row["talk_seconds"]) for row in midnight)


def test_queues_answer_only_while_open(sample: Sample) -> None:
    for row in sample.truth["visits"]:
        day = date.fromisoformat(row["entered_at"][:10])
        hours = world.opening(world.QUEUES[row["queue_id"]], day)
        second = seconds(f"{day} 00:00:00", row["entered_at"])
        is_open = hours is not None and hours[0] <= second < hours[1]
        assert (row["outcome"] == "closed") is not is_open


def test_people_call_again(sample: Sample) -> None:
    callers: Counter[str] = Counter()
    for path in sample.result.call_files:
        callers.update({leg["call_id"]: leg["caller"] for leg in legs(path)[:-1]}.values())
    repeated = [count for caller, count in callers.items() if caller and count > 1]
    assert 0.2 < sum(repeated) / callers.total() < 0.95
    assert max(count for caller, count in callers.items() if caller not in ("", "anonymous")) < 150


# -- numbers -------------------------------------------------------------------------------------


def region_of(number: str) -> str:
    parsed = phonenumbers.parse(number, "CN")
    assert phonenumbers.is_valid_number(parsed), number
    country = phonenumbers.region_code_for_number(parsed)
    if country != "CN":
        return str(country)
    place = geocoder.description_for_number(parsed, "en").rsplit(", ", 1)[-1]
    return {name: code for code, name in PROVINCES.items()}[place]


def test_prefixes_belong_to_their_regions() -> None:
    assert len(world.REGIONS) == 18
    for region in world.REGIONS:
        for prefix in region.mobiles:
            digits = (
                11
                if prefix[0] == "1"
                else {"+852": 12, "+659": 11, "+819": 13, "+121": 12, "+442": 13}[prefix[:4]]
            )
            assert region_of(prefix + "1" * (digits - len(prefix))) == region.code
        for area in region.landlines:
            assert region_of(area + "81234567") == region.code


def test_every_caller_has_the_region_that_the_truth_says(pair: tuple[Path, Path]) -> None:
    clean, _ = pair
    region = {row["call_id"]: row["region_code"] for row in read(clean / "truth")["calls"]}
    seen = Counter[str]()
    for path in clean.glob("calls_*.csv.gz"):
        for leg in legs(path):
            withheld = leg["caller"] in ("", "anonymous")
            assert region[leg["call_id"]] == ("unknown" if withheld else region_of(leg["caller"]))
            seen[region[leg["call_id"]]] += 1
    assert seen.keys() >= {*PROVINCES, "HK", "unknown"}


# -- beside the calls ----------------------------------------------------------------------------


def day_files(directory: Path, kind: str) -> list[tuple[str, list[Row]]]:
    """(day, rows) of the files of one kind."""
    found = sorted(directory.glob(f"{kind}_2*.csv.gz"))
    assert len(found) == 17
    return [(path.name[len(kind) + 1 : len(kind) + 11], legs(path)) for path in found]


def test_steps_fill_the_time_in_self_service(pair: tuple[Path, Path]) -> None:
    clean, _ = pair
    truth = read(clean / "truth")
    steps = defaultdict(list)
    for day, rows in day_files(clean, "ivr_steps"):
        for row in rows:
            assert row["arrived"][:10] == day
            steps[row["call_id"]].append(row)
    ends = Counter[tuple[str, str]]()
    for call in truth["calls"]:
        of_call = steps.get(call["call_id"], [])
        assert [row["step"] for row in of_call] == [str(n + 1) for n in range(len(of_call))]
        assert total(of_call, "seconds") == int(call["ivr_seconds"])
        for one, following in pairwise(of_call):
            assert one["left"] == following["entered"] and one["result"] == "continued"
        if of_call:
            expected = "continued"
            if call["outcome"] == "contained" or call["abandon_stage"] in ("ivr", "bot"):
                expected = call["outcome"]
                assert call["channel"] == of_call[0]["channel"]
            assert of_call[-1]["result"] == expected
            assert len({row["channel"] for row in of_call}) == 1
            ends[of_call[0]["channel"], expected] += 1
    assert len(ends) == 6
    assert min(ends.values()) > 5


def test_each_answer_has_its_offer(pair: tuple[Path, Path]) -> None:
    """Every answered visit rang at its agent for the time that the visit says."""
    clean, _ = pair
    truth = read(clean / "truth")
    rung = defaultdict(list)
    for day, rows in day_files(clean, "offers"):
        for row in rows:
            assert row["arrived"][:10] == day
            assert seconds(row["offered"], row["ended"]) == int(row["ring_s"])
            rung[row["call_id"], row["agent"], row["ended"], row["result"]].append(row)
    answered = [row for row in truth["visits"] if row["outcome"] == "answered"]
    assert len(answered) > 1000
    for visit in answered:
        (offer,) = rung[visit["call_id"], visit["agent_id"], visit["left_at"], "answered"]
        assert (offer["ring_s"], offer["queue"]) == (visit["ring_seconds"], visit["queue_id"])
    results = Counter(key[3] for key, rows in rung.items() for _ in rows)
    assert results["answered"] == len(answered)
    assert 0 < results["no_answer"] < 0.05 * len(answered) and results["cancelled"] > 0


def test_the_time_of_a_quarter_adds_up_to_the_day(pair: tuple[Path, Path]) -> None:
    clean, _ = pair
    truth = read(clean / "truth")
    spent = [column for column in truth["agent_time_daily"][0] if column.endswith("_seconds")]
    sums: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in truth["agent_time_15min"]:
        assert 0 < int(row["login_seconds"]) <= 900
        sums[row["business_day"], row["agent_id"]].update({c: int(row[c]) for c in spent})
    for row in truth["agent_time_daily"]:
        assert sums.pop((row["business_day"], row["agent_id"])) == {c: int(row[c]) for c in spent}
    assert not sums


def test_states_end_with_the_last_midnight(pair: tuple[Path, Path]) -> None:
    clean, _ = pair
    login, shown = Counter[str](), 0
    for day, rows in day_files(clean, "agent_states"):
        for row in rows:
            assert row["started"][:10] == day
            assert row["ended"] <= "2026-10-22 00:00:00"
            login[row["agent"]] += seconds(row["started"], row["ended"])
            shown += 1
    expected = Counter[str]()
    for row in read(clean / "truth")["agent_time_daily"]:
        if row["business_day"] < "2026-10-22":
            expected[row["agent_id"]] += int(row["login_seconds"])
    assert login == expected
    assert shown > 10_000


def test_plans_are_in_the_file_of_their_shift_and_changes_in_the_next(
    pair: tuple[Path, Path],
) -> None:
    """The newest version of each shift, read from the files, is the truth's."""
    clean, _ = pair
    newest: dict[tuple[str, str], tuple[str, set[tuple[str, ...]]]] = {}
    changes = 0
    for day, rows in day_files(clean, "schedules"):
        for row in rows:
            is_change = row["planned"][:10] >= row["shift"]
            changes += is_change
            after = str(instant(f"{row['shift']} 00:00:00") + timedelta(days=int(is_change)))[:10]
            assert day == min(after, "2026-10-21")
            assert row["starts"] < row["ends"] <= "2026-10-22 00:00:00"
            assert (row["activity"] == "absence") == is_change
            assert row["paid"] == ("no" if row["activity"] == "lunch" else "yes")
            key = row["agent"], row["shift"]
            version, stretches = newest.get(key, ("", set()))
            if row["planned"] > version:
                version, stretches = row["planned"], set()
            stretches.add((row["activity"], row["starts"], row["ends"]))
            newest[key] = version, stretches
    found = {(*key, *stretch) for key, (_, stretches) in newest.items() for stretch in stretches}
    assert found == {
        (r["agent_id"], r["shift_date"], r["activity"], r["starts_at"], r["ends_at"])
        for r in read(clean / "truth")["schedules"]
    }
    assert 2 < changes < 0.05 * len(newest)


def test_time_against_the_plan_adds_up(pair: tuple[Path, Path]) -> None:
    """What is planned, by the plan; what was worked, by the states; the rest by their relations."""
    clean, _ = pair
    truth = read(clean / "truth")
    planned, paid = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in truth["schedules"]:
        at, end = instant(row["starts_at"]), instant(row["ends_at"])
        while at < end:
            until = min(end, datetime.combine(at.date() + timedelta(days=1), datetime.min.time()))
            key = str(at.date()), row["agent_id"]
            length = int((until - at).total_seconds())
            planned[key] += length * (row["activity"] != "absence")
            paid[key] += length * (row["is_paid"] == "True")
            at = until
    spent = {(r["business_day"], r["agent_id"]): r for r in truth["agent_time_daily"]}
    away = 0
    for row in truth["agent_adherence_daily"]:
        key = row["business_day"], row["agent_id"]
        value = {name: int(number) for name, number in row.items() if name.endswith("_seconds")}
        states = {name: int(number) for name, number in spent.get(key, {}).items()
                  if name.endswith("_seconds")}  # fmt: skip
        assert value["scheduled_seconds"] == planned.pop(key)
        assert value["paid_seconds"] == paid[key]
        login, pause = states.get("login_seconds", 0), states.get("pause_seconds", 0)
        assert value["worked_seconds"] == login - pause
        assert value["utilised_seconds"] == sum(
            states.get(f"{state}_seconds", 0) for state in ("ready", "talk", "hold", "acw")
        )
        assert value["exception_seconds"] == sum(
            value[f"{kind}_seconds"] for kind in ("absent", "paused", "worked_break", "outside")
        )
        assert value["absent_seconds"] + value["paused_seconds"] <= value["scheduled_work_seconds"]
        assert value["outside_seconds"] <= login
        away += value["absent_seconds"] == value["scheduled_work_seconds"] > 0
    assert not planned and away > 3


def test_surveys_are_about_calls_that_were_served(pair: tuple[Path, Path]) -> None:
    clean, _ = pair
    calls = {row["call_id"]: row for row in read(clean / "truth")["calls"]}
    scales = {"csat": (1, 5), "nps": (0, 10), "ces": (1, 7)}
    asked, answered, late = Counter[str](), Counter[str](), 0
    for day, rows in day_files(clean, "surveys"):
        for row in rows:
            call = calls[row["call_id"]]
            assert call["outcome"] in ("answered", "contained")
            assert row["arrived"] == call["arrived_at"] and row["offered"] > call["ended_at"]
            asked[row["type"]] += 1
            if row["score"]:
                low, high = scales[row["type"]]
                assert low <= int(row["score"]) <= high
                assert row["answered"] > row["offered"]
                answered[row["type"]] += 1
            else:
                assert row["answered"] == ""
            assert min((row["answered"] or row["offered"])[:10], "2026-10-21") == day
            late += day > row["arrived"][:10]
    assert asked.keys() == scales.keys() == answered.keys()
    assert late > 0
    assert 0.2 < answered.total() / asked.total() < 0.45


def test_long_waits_and_transfers_spoil_the_mood(sample: Sample) -> None:
    calls = {row["call_id"]: row for row in sample.truth["calls"]}
    scores: dict[str, list[int]] = {"quick": [], "slow": [], "transferred": []}
    for survey in sample.truth["surveys"]:
        call = calls[survey["call_id"]]
        if survey["survey_type"] != "csat" or not survey["score"] or survey["channel"] != "human":
            continue
        group = "slow" if int(call["wait_seconds"]) > 90 else "quick"
        group = "transferred" if int(call["connections"]) > 1 else group
        scores[group].append(int(survey["score"]))
    assert min(map(len, scores.values())) > 50
    means = {group: sum(found) / len(found) for group, found in scores.items()}
    assert means["quick"] > means["slow"] + 0.3
    assert means["quick"] > means["transferred"] + 0.3


# -- dirt ----------------------------------------------------------------------------------------


def test_dirt_changes_no_truth(pair: tuple[Path, Path]) -> None:
    clean, dirty = pair
    for table in TABLES:
        assert (clean / f"truth/{table}.csv").read_bytes() == (
            dirty / f"truth/{table}.csv"
        ).read_bytes()
    assert json.loads((clean / "truth/summary.json").read_text())["dirt"] == []


def test_every_piece_of_dirt_is_where_it_is_recorded(sample: Sample) -> None:
    directory = sample.result.directory
    kinds = Counter(entry["kind"] for entry in sample.summary["dirt"])
    assert kinds == sample.result.dirt
    assert set(kinds) == {
        "exact_duplicate",
        "truncated_line",
        "impossible_date",
        "negative_duration",
        "unknown_business_type",
        "late_row",
        "sent_again",
        "phantom",
    }
    files = {path.name: lines(path) for path in sample.result.call_files}
    for entry in sample.summary["dirt"]:
        content = files[entry["file"]]
        line = content[entry["line"] - 1]
        row = dict(zip(feed.CALL_COLUMNS, line.split(","), strict=False))
        assert row["call_id"] == entry["call_id"]
        match entry["kind"]:
            case "exact_duplicate":
                assert line in content[: entry["line"] - 1]
            case "truncated_line":
                assert entry["line"] == len(content)
                assert any(other.startswith(line) for other in content[:-1])
                assert not gzip.decompress((directory / entry["file"]).read_bytes()).endswith(b"\n")
            case "impossible_date":
                with pytest.raises(ValueError, match="day"):
                    instant(row["arrived"])
            case "negative_duration":
                assert int(row[entry["column"]]) == entry["value"] < 0
                start, end = {
                    "ivr_s": ("ivr_start", "ivr_end"),
                    "wait_s": ("queue_start", "queue_end"),
                    "talk_s": ("answered", "released"),
                }[entry["column"]]
                assert seconds(row[start], row[end]) == entry["warehouse"] == -entry["value"]
            case "unknown_business_type":
                assert row["business_type"] == entry["value"]
                assert entry["value"] not in world.BUSINESS_TYPES
            case "late_row":
                assert f"calls_{row['arrived'][:10]}.csv.gz" == entry["expected_file"]
                assert entry["expected_file"] < entry["file"]
            case "sent_again":
                assert line in files[entry["first_file"]]
            case "phantom":
                assert row["outcome"] == "phantom"


def test_dirt_undone_by_the_documented_rules_gives_the_clean_files(
    pair: tuple[Path, Path],
) -> None:
    clean, dirty = pair
    expected = {
        (leg["call_id"], leg["leg"]): leg
        for path in clean.glob("calls_*.csv.gz")
        for leg in legs(path)
    }
    found: dict[tuple[str, str], Row] = {}
    for path in sorted(dirty.glob("calls_*.csv.gz")):
        for leg in legs(path):
            if leg["ended"] is None or leg["arrived"][5:10] == "02-31":
                continue  # quarantined
            if leg["outcome"] == "phantom":
                continue
            for column, start, end in (
                ("ivr_s", "ivr_start", "ivr_end"),
                ("wait_s", "queue_start", "queue_end"),
                ("talk_s", "answered", "released"),
            ):
                if leg[column].startswith("-"):
                    leg[column] = str(seconds(leg[start], leg[end]))
            found[leg["call_id"], leg["leg"]] = leg
    assert found.keys() == expected.keys()
    different = [key for key, leg in found.items() if leg != expected[key]]
    assert different
    for key in different:
        assert found[key]["business_type"] not in world.BUSINESS_TYPES
        assert found[key] | {"business_type": ""} == expected[key] | {"business_type": ""}


def test_ledger_balances(sample: Sample) -> None:
    ledger = sample.summary["files"]
    assert len(ledger) == 21
    for path in sample.result.call_files:
        entry = ledger[path.name]
        assert entry["rows"] == len(lines(path)) - 1
        assert entry["rows"] == entry["staged"] + entry["duplicates"] + entry["quarantined"]
    staged = sum(entry["staged"] - entry["phantom"] for entry in ledger.values())
    assert staged == total(sample.truth["calls"], "legs")
