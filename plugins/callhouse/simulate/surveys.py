"""Surveys after the calls: who is asked, who answers, and what.

Drawn from a stream of their own after the world is played, so that surveys never change a call.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from callhouse.simulate.chance import stream
from callhouse.simulate.records import Call, Leg, Survey

ASKED = {"answered": 0.42, "contained": 0.15}  # by the call's outcome
BY_TEXT = 0.4  # of those asked; the others hear the question before they hang up
ANSWERED = 0.3
LONGEST_DELAY = 20 * 3600


def ask(calls: Iterable[Call], seed: int) -> None:
    """Give some of the calls a survey."""
    chance = stream(seed, "surveys")
    for call in calls:
        # Always the same number of draws up to here: a changed share leaves the other calls alone.
        draw = chance.random()
        if draw < ASKED.get(call.outcome, 0.0):
            call.survey = _survey(call, chance)


def _survey(call: Call, chance: random.Random) -> Survey:
    by_text = chance.random() < BY_TEXT
    offered = call.ended + (chance.randint(60, 900) if by_text else chance.randint(1, 4))
    draw = chance.random()
    kind = "csat" if draw < 0.8 else "nps" if draw < 0.92 else "ces"
    mood = _mood(call, chance)
    # The very pleased and the very angry answer more often.
    likely = ANSWERED + (0.1 if abs(mood - 0.5) > 1.3 else 0.0)
    survey = Survey(f"S{call.call_id}", kind, offered, last_connection(call))
    if chance.random() < likely:
        delay = chance.lognormvariate(6.5, 1.5) if by_text else chance.uniform(4, 30)
        survey.answered = offered + min(LONGEST_DELAY, 3 + int(delay))
        survey.score = _score(kind, mood)
    return survey


def last_connection(call: Call) -> Leg | None:
    """The conversation that the customer remembers."""
    connected = [leg for leg in call.legs if leg.outcome == "answered"]
    return connected[-1] if connected else None


def _mood(call: Call, chance: random.Random) -> float:
    """About 0.5 on average: waiting, transfers and long holds spoil it."""
    waited = sum(leg.wait_seconds for leg in call.legs)
    held = sum(leg.hold_seconds for leg in call.legs)
    mood = chance.gauss(0.8, 0.85) + (0.2 if call.caller.vip else 0.0)
    mood -= 0.011 * min(240, max(0, waited - 20))
    mood -= 0.6 * sum(1 for leg in call.legs if leg.transfer)
    return mood - (0.25 if held > 60 else 0.0)


def _score(kind: str, mood: float) -> int:
    if kind == "csat":
        return 1 + sum(mood > limit for limit in (-1.2, -0.6, 0.0, 0.8))
    if kind == "nps":
        return min(10, max(0, round(7.6 + 1.7 * mood)))
    return min(7, max(1, round(4.9 + 1.1 * mood)))
