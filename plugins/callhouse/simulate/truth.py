"""The simulator's bookkeeping, written from its own state; the pipeline has no part in it.

Column names are those of the marts, so that a comparison is one join. Times are local.
"""

from __future__ import annotations

import csv
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

from callhouse.simulate import planning, world
from callhouse.simulate.clock import Clock
from callhouse.simulate.feed import FeedFiles
from callhouse.simulate.records import Agent, Call, Leg, Planned, World
from callhouse.simulate.rendering import Rendering
from callhouse.simulate.states import STATES, Session, sessions

TARGET_SECONDS = 20
STRICT_SECONDS = 15
SHORT_SECONDS = 5
QUARTER = 900

CALL_COUNTS = (
    "calls",
    "calls_connected",
    "calls_abandoned_before_agent",
    "abandoned_in_ivr",
    "calls_contained",
    "calls_after_hours",
    "calls_transferred",
    "ivr_seconds",
)
VISIT_COUNTS = (
    "queue_visits",
    "calls_offered",
    "calls_answered",
    "calls_abandoned",
    "offered_otherwise",
    "answered_within_target",
    "abandoned_within_target",
    "answered_within_15s",
    "short_abandons",
    "answered_wait_seconds",
    "abandoned_wait_seconds",
)
CONNECTION_COUNTS = (
    "agent_connections",
    "connections_handled",
    "connections_held",
    "transfers",
    "transfers_blind",
    "transfers_attended",
    "transfers_consult",
    "talk_seconds",
    "hold_seconds",
    "acw_seconds",
)
CALL_COLUMNS = (
    "call_id",
    "business_day",
    "arrived_at",
    "ended_at",
    "hotline_id",
    "region_code",
    "withheld",
    "channel",
    "business_type",
    "outcome",
    "abandon_stage",
    "hangup_party",
    "first_queue_id",
    "legs",
    "visits",
    "connections",
    "ivr_seconds",
    "wait_seconds",
    "talk_seconds",
    "hold_seconds",
    "acw_seconds",
)
VISIT_COLUMNS = (
    "call_id",
    "visit_number",
    "leg_number",
    "business_day",
    "queue_id",
    "channel",
    "region_code",
    "agent_id",
    "outcome",
    "abandon_stage",
    "entered_at",
    "left_at",
    "wait_seconds",
    "ring_seconds",
)
CONNECTION_COLUMNS = (
    "call_id",
    "connection_number",
    "leg_number",
    "business_day",
    "queue_id",
    "channel",
    "region_code",
    "agent_id",
    "team_id",
    "agent_region_code",
    "transfer_type",
    "connected_at",
    "ended_at",
    "ring_seconds",
    "talk_seconds",
    "hold_seconds",
    "acw_seconds",
)
OFFER_COLUMNS = (
    "call_id",
    "offer_number",
    "business_day",
    "queue_id",
    "agent_id",
    "team_id",
    "agent_region_code",
    "outcome",
    "offered_at",
    "ended_at",
    "ring_seconds",
)
STEP_COLUMNS = (
    "call_id",
    "step_number",
    "business_day",
    "channel",
    "region_code",
    "node",
    "outcome",
    "entered_at",
    "left_at",
    "step_seconds",
)
SURVEY_COLUMNS = (
    "survey_id",
    "call_id",
    "business_day",
    "survey_type",
    "channel",
    "queue_id",
    "agent_id",
    "region_code",
    "score",
    "offered_at",
    "answered_at",
)
SCHEDULE_COLUMNS = ("agent_id", "shift_date", "activity", "is_paid", "starts_at", "ends_at")
ADHERENCE_COUNTS = (
    "scheduled_seconds",
    "scheduled_work_seconds",
    "paid_seconds",
    "worked_seconds",
    "utilised_seconds",
    "absent_seconds",
    "paused_seconds",
    "worked_break_seconds",
    "outside_seconds",
    "exception_seconds",
)
STATE_COLUMNS = ("agent_id", "state", "reason", "started_at", "ended_at", "seconds", "call_id")

Key = tuple[str, ...]
_Stretches = list[tuple[int, int, str]]  # start, end and what, in order, without overlap
Sums = defaultdict[Key, dict[str, int]]


def write(
    directory: Path,
    played: World,
    files: FeedFiles,
    renderings: Sequence[Rendering],
    start: date,
    days: int,
    parameters: dict[str, Any],
) -> dict[str, Any]:
    """Write all tables and `summary.json` into `directory`; returns the summary."""
    directory.mkdir(parents=True, exist_ok=True)
    clock = Clock(start, days + 2)
    books = _Books(played, clock)
    for call in played.calls:
        books.enter(call)
    _table(directory / "calls.csv", CALL_COLUMNS, books.calls)
    _table(directory / "visits.csv", VISIT_COLUMNS, books.visits)
    _table(directory / "connections.csv", CONNECTION_COLUMNS, books.connections)
    _sums(
        directory / "queue_15min.csv",
        ("business_day", "interval_start_at", "queue_id"),
        VISIT_COUNTS,
        books.by_interval,
    )
    _sums(
        directory / "daily.csv",
        ("business_day", "queue_id", "channel", "region_code"),
        CALL_COUNTS + VISIT_COUNTS + CONNECTION_COUNTS,
        books.by_day,
    )
    _sums(
        directory / "agent_daily.csv",
        ("business_day", "agent_id", "team_id", "agent_region_code"),
        CONNECTION_COUNTS,
        books.by_agent,
    )
    logins = [session for agent in played.agents for session in sessions(agent)]
    _table(directory / "agent_states.csv", STATE_COLUMNS, _states(logins, clock))
    spent = ("login_seconds", *(f"{state}_seconds" for state in STATES))
    _table(
        directory / "agent_time_daily.csv",
        ("business_day", "agent_id", *spent),
        _agent_time(logins, clock, world.DAY),
    )
    _table(
        directory / "agent_time_15min.csv",
        ("business_day", "interval_start_at", "agent_id", *spent),
        _agent_time(logins, clock, QUARTER),
    )
    plans = planning.newest(played)
    end = days * world.DAY
    _table(directory / "schedules.csv", SCHEDULE_COLUMNS, _schedules(plans, clock, end))
    _sums(
        directory / "agent_adherence_daily.csv",
        ("business_day", "agent_id"),
        ADHERENCE_COUNTS,
        _adherence(plans, logins, clock, end),
    )
    _table(directory / "offers.csv", OFFER_COLUMNS, books.offers)
    _table(directory / "ivr_steps.csv", STEP_COLUMNS, books.steps)
    _table(directory / "surveys.csv", SURVEY_COLUMNS, books.surveys)
    for rendering in renderings:
        _rendered(directory, rendering)
    summary = {
        "parameters": parameters,
        "time_zone": world.TIME_ZONE,
        "thresholds": {
            "target_seconds": TARGET_SECONDS,
            "strict_seconds": STRICT_SECONDS,
            "short_abandon_seconds": SHORT_SECONDS,
        },
        "totals": books.totals,
        "days": _days(played, start, days),
        "files": _ledger(files),
        "dirt": files.dirt,
    }
    text = json.dumps(summary, indent=1, ensure_ascii=False)
    (directory / "summary.json").write_text(text + "\n", encoding="utf-8")
    return summary


def _states(logins: Sequence[Session], clock: Clock) -> Iterator[Sequence[object]]:
    for session in logins:
        for state in session.states:
            yield (
                session.agent.agent_id,
                state.state,
                state.reason,
                clock.stamp(state.start),
                clock.stamp(state.end),
                state.end - state.start,
                state.call.call_id if state.call else "",
            )


def _agent_time(logins: Sequence[Session], clock: Clock, length: int) -> list[Sequence[object]]:
    """Seconds of each state by day, or by quarter of an hour, cut where these end."""
    seconds: Sums = defaultdict(lambda: dict.fromkeys(STATES, 0))
    for session in logins:
        for state in session.states:
            at = state.start
            while at < state.end:
                until = min(state.end, (at // length + 1) * length)
                when = (
                    (clock.day(at),) if length == world.DAY else (clock.day(at), clock.quarter(at))
                )
                seconds[(*when, session.agent.agent_id)][state.state] += until - at
                at = until
    return [
        (*key, sum(states.values()), *states.values()) for key, states in sorted(seconds.items())
    ]


def _schedules(
    plans: dict[tuple[str, int], tuple[Planned, ...]], clock: Clock, end: int
) -> Iterator[Sequence[object]]:
    for (agent_id, day), stretches in sorted(plans.items()):
        for stretch in stretches:
            if stretch.start < end:
                yield (
                    agent_id,
                    clock.day(day * world.DAY),
                    stretch.activity,
                    stretch.activity != planning.UNPAID,
                    clock.stamp(stretch.start),
                    clock.stamp(min(stretch.end, end)),
                )


def _adherence(
    plans: dict[tuple[str, int], tuple[Planned, ...]],
    logins: Sequence[Session],
    clock: Clock,
    end: int,
) -> Sums:
    """Moment by moment: what the plan wanted of an agent, and what the agent did.

    Only the days of an agent that a plan touches are judged.
    """
    wanted: defaultdict[str, _Stretches] = defaultdict(list)
    for (agent_id, _), stretches in sorted(plans.items()):
        wanted[agent_id].extend(stretches)
    done: defaultdict[str, _Stretches] = defaultdict(list)
    for session in logins:
        done[session.agent.agent_id].extend((s.start, s.end, s.state) for s in session.states)
    sums: Sums = defaultdict(lambda: dict.fromkeys(ADHERENCE_COUNTS, 0))
    for agent_id, planned in wanted.items():
        judged = {
            day
            for start, until, _ in planned
            for day in range(start // world.DAY, (until - 1) // world.DAY + 1)
        }
        borders = {day * world.DAY for day in judged} | {(day + 1) * world.DAY for day in judged}
        for start, until, _ in (*planned, *done[agent_id]):
            borders |= {start, until}
        moments = sorted(border for border in borders if border <= end)
        for at, until in pairwise(moments):
            if at // world.DAY in judged:
                account = sums[clock.day(at), agent_id]
                _add(_judged(_at(planned, at), _at(done[agent_id], at), until - at), account)
    return sums


def _at(stretches: _Stretches, moment: int) -> str:
    """What holds at a moment, or empty: nothing is planned, or the agent is not logged in."""
    place = bisect_right(stretches, moment, key=lambda stretch: stretch[0]) - 1
    return stretches[place][2] if place >= 0 and moment < stretches[place][1] else ""


def _judged(plan: str, state: str, seconds: int) -> dict[str, int]:
    """The seconds, entered where they belong."""
    expected = plan not in ("", "absence")
    exceptions = {
        "absent_seconds": plan == "work" and not state,
        "paused_seconds": plan == "work" and state == "pause",
        "worked_break_seconds": expected and plan != "work" and state not in ("", "pause"),
        "outside_seconds": not expected and state != "",
    }
    facts = exceptions | {
        "scheduled_seconds": expected,
        "scheduled_work_seconds": plan == "work",
        "paid_seconds": plan not in ("", planning.UNPAID),
        "worked_seconds": state not in ("", "pause"),
        "utilised_seconds": state in ("ready", "talk", "hold", "acw"),
        "exception_seconds": any(exceptions.values()),
    }
    return {name: seconds * holds for name, holds in facts.items()}


def _rendered(directory: Path, rendering: Rendering) -> None:
    """What of the truth a format holds, and what was done to its files."""
    for name, (columns, rows) in rendering.carried.items():
        _table(directory / f"{rendering.name}_{name}.csv", columns, rows)
    limits = {
        "format": rendering.name,
        "limits": [{"what": what, "how": how} for what, how in rendering.limits],
        "outcomes": rendering.outcomes,
        "counts": rendering.counts,
        "files": rendering.lines,
        "dirt": rendering.dirt,
    }
    text = json.dumps(limits, indent=1, ensure_ascii=False)
    path = directory / f"{rendering.name}_limits.json"
    path.write_text(text + "\n", encoding="utf-8")


class _Books:
    """Detail rows and sums, entered call by call."""

    def __init__(self, played: World, clock: Clock) -> None:
        self._clock = clock
        self._agents: dict[str, Agent] = {agent.agent_id: agent for agent in played.agents}
        self._team_region = {team.team_id: team.region for team in world.TEAMS}
        self.calls: list[Sequence[object]] = []
        self.offers: list[Sequence[object]] = []
        self.steps: list[Sequence[object]] = []
        self.surveys: list[Sequence[object]] = []
        self.visits: list[Sequence[object]] = []
        self.connections: list[Sequence[object]] = []
        self.totals: dict[str, int] = dict.fromkeys(
            CALL_COUNTS + VISIT_COUNTS + CONNECTION_COUNTS, 0
        )
        self.by_interval: Sums = defaultdict(lambda: dict.fromkeys(VISIT_COUNTS, 0))
        self.by_day: Sums = defaultdict(lambda: dict.fromkeys(self.totals, 0))
        self.by_agent: Sums = defaultdict(lambda: dict.fromkeys(CONNECTION_COUNTS, 0))

    def enter(self, call: Call) -> None:
        """Book one call with its visits and connections."""
        day = self._clock.day(call.arrived)
        self._details(call, day)
        visits = [(number, leg) for number, leg in enumerate(call.legs, 1) if leg.queue_id]
        connections = [
            (number, leg) for number, leg in enumerate(call.legs, 1) if leg.outcome == "answered"
        ]
        for visit_number, (leg_number, leg) in enumerate(visits, 1):
            self._visit(call, day, visit_number, leg_number, leg)
        for connection_number, (leg_number, leg) in enumerate(connections, 1):
            self._connection(call, day, connection_number, leg_number, leg)
        first_queue = visits[0][1].queue_id if visits else ""
        self.calls.append(
            (
                call.call_id,
                day,
                self._clock.stamp(call.arrived),
                self._clock.stamp(call.ended),
                call.hotline,
                call.caller.region,
                int(call.caller.withheld),
                call.channel,
                call.business_type,
                call.outcome,
                call.stage,
                call.hangup_by,
                first_queue,
                len(call.legs),
                len(visits),
                len(connections),
                call.ivr_seconds,
                sum(leg.wait_seconds for _, leg in visits),
                sum(leg.talk_seconds for _, leg in connections),
                sum(leg.hold_seconds for _, leg in connections),
                sum(leg.acw_seconds for _, leg in connections),
            )
        )
        gave_up = call.outcome == "abandoned"
        counts = {
            "calls": 1,
            "calls_connected": int(call.outcome == "answered"),
            "calls_abandoned_before_agent": int(gave_up),
            "abandoned_in_ivr": int(gave_up and call.stage in ("ivr", "bot")),
            "calls_contained": int(call.outcome == "contained"),
            "calls_after_hours": int(call.outcome == "closed"),
            "calls_transferred": int(call.transferred),
            "ivr_seconds": call.ivr_seconds,
        }
        key = (day, first_queue, call.channel, call.caller.region)
        _add(counts, self.totals, self.by_day[key])

    def _details(self, call: Call, day: str) -> None:
        rings = sorted(
            (ring.start, ring.agent_id, leg.queue_id, ring)
            for leg in call.legs
            for ring in leg.rings
        )
        for number, (_, agent_id, queue_id, ring) in enumerate(rings, 1):
            team = self._agents[agent_id].team_on(call.arrived // world.DAY)
            self.offers.append(
                (
                    call.call_id,
                    number,
                    day,
                    queue_id,
                    agent_id,
                    team,
                    self._team_region[team],
                    ring.result,
                    self._clock.stamp(ring.start),
                    self._clock.stamp(ring.end),
                    ring.end - ring.start,
                )
            )
        for number, step in enumerate(call.steps, 1):
            self.steps.append(
                (
                    call.call_id,
                    number,
                    day,
                    step.channel,
                    call.caller.region,
                    step.node,
                    step.outcome,
                    self._clock.stamp(step.start),
                    self._clock.stamp(step.end),
                    step.end - step.start,
                )
            )
        if survey := call.survey:
            self.surveys.append(
                (
                    survey.survey_id,
                    call.call_id,
                    day,
                    survey.kind,
                    call.channel,
                    survey.leg.queue_id if survey.leg else "",
                    survey.leg.agent_id if survey.leg else "",
                    call.caller.region,
                    "" if survey.score is None else survey.score,
                    self._clock.stamp(survey.offered),
                    self._clock.stamp(survey.answered),
                )
            )

    def _visit(self, call: Call, day: str, visit_number: int, leg_number: int, leg: Leg) -> None:
        answered, abandoned = leg.outcome == "answered", leg.outcome == "abandoned"
        offered = leg.outcome != "closed"
        wait = leg.wait_seconds
        self.visits.append(
            (
                call.call_id,
                visit_number,
                leg_number,
                day,
                leg.queue_id,
                call.channel,
                call.caller.region,
                leg.agent_id,
                leg.outcome,
                leg.stage,
                self._clock.stamp(leg.queue_start),
                self._clock.stamp(leg.queue_end),
                wait,
                "" if leg.ring_seconds is None else leg.ring_seconds,
            )
        )
        counts = {
            "queue_visits": 1,
            "calls_offered": int(offered),
            "calls_answered": int(answered),
            "calls_abandoned": int(abandoned),
            "offered_otherwise": int(offered and not answered and not abandoned),
            "answered_within_target": int(answered and wait <= TARGET_SECONDS),
            "abandoned_within_target": int(abandoned and wait <= TARGET_SECONDS),
            "answered_within_15s": int(answered and wait <= STRICT_SECONDS),
            "short_abandons": int(abandoned and wait <= SHORT_SECONDS),
            "answered_wait_seconds": wait if answered else 0,
            "abandoned_wait_seconds": wait if abandoned else 0,
        }
        interval = (day, self._clock.quarter(leg.queue_start or 0), leg.queue_id)
        _add(
            counts,
            self.totals,
            self.by_interval[interval],
            self.by_day[(day, leg.queue_id, call.channel, call.caller.region)],
        )

    def _connection(
        self, call: Call, day: str, connection_number: int, leg_number: int, leg: Leg
    ) -> None:
        team = self._agents[leg.agent_id].team_on(call.arrived // world.DAY)
        region = self._team_region[team]
        talk, hold, acw = leg.talk_seconds, leg.hold_seconds, leg.acw_seconds
        self.connections.append(
            (
                call.call_id,
                connection_number,
                leg_number,
                day,
                leg.queue_id,
                call.channel,
                call.caller.region,
                leg.agent_id,
                team,
                region,
                leg.transfer,
                self._clock.stamp(leg.answered),
                self._clock.stamp(leg.released),
                "" if leg.ring_seconds is None else leg.ring_seconds,
                talk,
                hold,
                acw,
            )
        )
        counts = {
            "agent_connections": 1,
            "connections_handled": int(talk + hold + acw > 0),
            "connections_held": int(hold > 0),
            "transfers": int(leg.transfer != ""),
            "transfers_blind": int(leg.transfer == "blind"),
            "transfers_attended": int(leg.transfer == "attended"),
            "transfers_consult": int(leg.transfer == "consult"),
            "talk_seconds": talk,
            "hold_seconds": hold,
            "acw_seconds": acw,
        }
        _add(
            counts,
            self.totals,
            self.by_agent[(day, leg.agent_id, team, region)],
            self.by_day[(day, leg.queue_id, call.channel, call.caller.region)],
        )


def _add(counts: dict[str, int], *accounts: dict[str, int]) -> None:
    for account in accounts:
        for name, count in counts.items():
            account[name] += count


def _table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _sums(path: Path, keys: Sequence[str], counts: Sequence[str], sums: Sums) -> None:
    _table(
        path,
        (*keys, *counts),
        ((*key, *(sums[key][count] for count in counts)) for key in sorted(sums)),
    )


def _days(played: World, start: date, days: int) -> list[dict[str, Any]]:
    """What kind of day each was."""
    described = []
    for offset, day in enumerate(world.days(start, days)):
        surge = played.surges.get(offset)
        kind = "holiday" if world.is_holiday(day) else "spike" if surge else "ordinary"
        entry: dict[str, Any] = {"business_day": day.isoformat(), "kind": kind}
        described.append(entry | {"surge": asdict(surge)} if surge else entry)
    return described


def _ledger(files: FeedFiles) -> dict[str, dict[str, int]]:
    """What landing should find per file: rows = staged + duplicates + quarantined."""
    ledger = {}
    for name, rows in files.rows.items():
        kinds = [entry["kind"] for entry in files.dirt if entry["file"] == name]
        duplicates = kinds.count("exact_duplicate") + kinds.count("sent_again")
        quarantined = kinds.count("impossible_date") + kinds.count("truncated_line")
        ledger[name] = {
            "rows": rows,
            "staged": rows - duplicates - quarantined,
            "duplicates": duplicates,
            "quarantined": quarantined,
            "phantom": kinds.count("phantom"),
            "late": kinds.count("late_row"),
        }
    return ledger
