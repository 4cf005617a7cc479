"""Self-service step by step: the nodes of the menu or of the voice bot that a call went through.

Drawn from a stream of their own after the world is played: steps only divide a call's time there.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from callhouse.simulate.chance import stream
from callhouse.simulate.records import Call, Step


def walk(calls: Iterable[Call], seed: int) -> None:
    """Give each call that was in self-service its steps; they follow each other without a gap."""
    chance = stream(seed, "menus")
    for call in calls:
        if call.ivr_start is not None and call.ivr_end is not None:
            call.steps = _steps(call, call.ivr_start, call.ivr_end, chance)


def _steps(call: Call, start: int, end: int, chance: random.Random) -> list[Step]:
    channel = "bot" if call.met_bot else "ivr"
    if call.met_bot:
        nodes = [("greeting", chance.randint(3, 6)), ("intent", chance.randint(5, 14))]
    else:
        nodes = [("welcome", chance.randint(2, 5)), ("main_menu", chance.randint(4, 12))]
    steps, at = [], start
    for node, seconds in nodes:
        if at + seconds >= end:  # hung up, passed on or solved before the next node
            break
        steps.append(Step(channel, node, at, at + seconds, "continued"))
        at += seconds
    place = len(steps)
    last = nodes[place][0] if place < len(nodes) else call.business_type
    steps.append(Step(channel, last, at, end, _outcome(call)))
    return steps


def _outcome(call: Call) -> str:
    first = call.legs[0]
    if first.outcome == "contained" or (
        first.outcome == "abandoned" and first.stage in ("ivr", "bot")
    ):
        return first.outcome
    return "continued"
