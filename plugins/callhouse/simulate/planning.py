"""Plans of shifts: made a week before, and changed on the day for those who call in sick.

Of those who are ill every second one reports it, and the planners make the shift a paid absence;
the others just do not come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from callhouse.simulate.records import Agent, Planned, World

UNPAID = "lunch"


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of the plan of an agent's shift on day `day` (offset)."""

    agent: Agent
    day: int
    stretches: tuple[Planned, ...]
    is_change: bool


def versions(played: World) -> Iterator[Plan]:
    """Every plan that was ever made, by day and agent, the first version first."""
    days = sorted({day for agent in played.agents for day in agent.plans})
    for day in days:
        for agent in played.agents:
            stretches = agent.plans.get(day)
            if stretches is None:
                continue
            yield Plan(agent, day, tuple(stretches), is_change=False)
            if day in agent.ill and int(agent.agent_id) % 2 == 0:
                absence = Planned(stretches[0].start, stretches[-1].end, "absence")
                yield Plan(agent, day, (absence,), is_change=True)


def newest(played: World) -> dict[tuple[str, int], tuple[Planned, ...]]:
    """The plans that count, by agent and day."""
    return {(plan.agent.agent_id, plan.day): plan.stretches for plan in versions(played)}
