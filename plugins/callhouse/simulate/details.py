"""The sample feed beside the calls: agents' states and plans, offers, self-service, surveys.

A state is in the file of the day on which it began, an offer or step in that of its call's arrival,
a survey in that of its answer (unanswered: of its offer), which may be a later one than the call's.
A plan is in the file of its shift's day, a change of it in that of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from pathlib import Path

from callhouse.simulate import planning, world
from callhouse.simulate.clock import Clock
from callhouse.simulate.records import Call, World
from callhouse.simulate.rendering import write_text
from callhouse.simulate.states import sessions

STATE_COLUMNS = ("agent", "state", "reason", "call_id", "queue", "started", "ended")
OFFER_COLUMNS = ("call_id", "queue", "agent", "result", "ring_s", "arrived", "offered", "ended")
STEP_COLUMNS = (
    "call_id",
    "step",
    "channel",
    "node",
    "result",
    "seconds",
    "arrived",
    "entered",
    "left",
)
SURVEY_COLUMNS = (
    "survey_id",
    "call_id",
    "type",
    "channel",
    "queue",
    "agent",
    "score",
    "arrived",
    "offered",
    "answered",
)
SCHEDULE_COLUMNS = ("agent", "shift", "activity", "paid", "starts", "ends", "planned")

Dated = tuple[int, tuple[str, ...]]  # second that decides the file, fields


def write(directory: Path, played: World, start: date, days: int) -> list[Path]:
    """Write the daily files of every kind of `played` into `directory`."""
    clock = Clock(start, days + 2)
    end = days * world.DAY
    paths = []
    for kind, (columns, rows) in KINDS.items():
        files: list[list[str]] = [[",".join(columns)] for _ in range(days)]
        for second, fields in rows(played, clock, end):
            # What came after the last midnight is in the last file.
            files[min(second // world.DAY, days - 1)].append(",".join(fields))
        for name, lines in zip(file_names(kind, start, days), files, strict=True):
            paths.append(directory / name)
            write_text(paths[-1], lines)
    return paths


def file_names(kind: str, start: date, days: int) -> list[str]:
    """One file per day."""
    return [f"{kind}_{day.isoformat()}.csv.gz" for day in world.days(start, days)]


def _states(played: World, clock: Clock, end: int) -> Iterator[Dated]:
    """What agents did, up to the last midnight: the export knows no more."""
    done = sorted(
        (state.start, session.agent.agent_id, state)
        for agent in played.agents
        for session in sessions(agent)
        for state in session.states
        if state.start < end
    )
    for start, agent_id, state in done:
        yield (
            start,
            (
                agent_id,
                state.state,
                state.reason,
                state.call.call_id if state.call else "",
                state.leg.queue_id if state.leg else "",
                clock.stamp(start),
                clock.stamp(min(state.end, end)),
            ),
        )


def _by_call(
    rows: Callable[[Call, Clock], Iterable[tuple[str, ...]]],
) -> Callable[[World, Clock, int], Iterator[Dated]]:
    def of_world(played: World, clock: Clock, _end: int) -> Iterator[Dated]:
        for call in played.calls:
            for row in rows(call, clock):
                yield call.arrived, row

    return of_world


def _offers(call: Call, clock: Clock) -> Iterator[tuple[str, ...]]:
    for leg in call.legs:
        for ring in leg.rings:
            yield (
                call.call_id,
                leg.queue_id,
                ring.agent_id,
                ring.result,
                str(ring.end - ring.start),
                clock.stamp(call.arrived),
                clock.stamp(ring.start),
                clock.stamp(ring.end),
            )


def _steps(call: Call, clock: Clock) -> Iterator[tuple[str, ...]]:
    for number, step in enumerate(call.steps, 1):
        yield (
            call.call_id,
            str(number),
            step.channel,
            step.node,
            step.outcome,
            str(step.end - step.start),
            clock.stamp(call.arrived),
            clock.stamp(step.start),
            clock.stamp(step.end),
        )


def _surveys(played: World, clock: Clock, _end: int) -> Iterator[Dated]:
    for call in played.calls:
        survey = call.survey
        if survey is None:
            continue
        yield (
            survey.answered or survey.offered,
            (
                survey.survey_id,
                call.call_id,
                survey.kind,
                call.channel,
                survey.leg.queue_id if survey.leg else "",
                survey.leg.agent_id if survey.leg else "",
                "" if survey.score is None else str(survey.score),
                clock.stamp(call.arrived),
                clock.stamp(survey.offered),
                clock.stamp(survey.answered),
            ),
        )


def _schedules(played: World, clock: Clock, end: int) -> Iterator[Dated]:
    """Every version of every plan, up to the last midnight."""
    for plan in planning.versions(played):
        shift = clock.day(plan.day * world.DAY)
        a_week_before = date.fromisoformat(shift) - timedelta(days=7)
        made = (
            clock.stamp(plan.stretches[0].start) if plan.is_change else f"{a_week_before} 12:00:00"
        )
        for stretch in plan.stretches:
            if stretch.start < end:
                yield (
                    (plan.day + plan.is_change) * world.DAY,
                    (
                        plan.agent.agent_id,
                        shift,
                        stretch.activity,
                        "no" if stretch.activity == planning.UNPAID else "yes",
                        clock.stamp(stretch.start),
                        clock.stamp(min(stretch.end, end)),
                        made,
                    ),
                )


KINDS: dict[str, tuple[tuple[str, ...], Callable[[World, Clock, int], Iterator[Dated]]]] = {
    "agent_states": (STATE_COLUMNS, _states),
    "offers": (OFFER_COLUMNS, _by_call(_offers)),
    "ivr_steps": (STEP_COLUMNS, _by_call(_steps)),
    "surveys": (SURVEY_COLUMNS, _surveys),
    "schedules": (SCHEDULE_COLUMNS, _schedules),
}
