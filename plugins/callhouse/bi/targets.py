"""Targets and the currency of costs as boards show them, read from their seeds."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from callhouse.settings import REPOSITORY

if TYPE_CHECKING:
    from callhouse.semantic import Dataset

SEEDS = REPOSITORY / "dbt_project" / "seeds"
SEED = SEEDS / "targets" / "queue_targets.csv"
COSTS = SEEDS / "costs" / "channel_costs.csv"
EVERY = "*"


@dataclass(frozen=True)
class Target:
    """A bound in 0–1 that a rate is held against."""

    bound: float
    is_minimum: bool


def of(source: Dataset, name: str) -> Target | None:
    """The newest target of all sources and queues for metric `name`; None where it has none.

    A queue's own target holds in its queue only: a line over all of them cannot show it.
    """
    text = next((m.target for m in source.metrics if m.name == name), "")
    direction, _, bound = text.rpartition(" ")
    if direction not in ("at least", "at most"):
        return None
    try:
        value = float(bound)
    except ValueError:
        value = _of_every_queue()[bound]
    return Target(value, direction == "at least")


@cache
def _of_every_queue() -> dict[str, float]:
    with SEED.open(encoding="utf-8", newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["source"] == EVERY and row["queue_id"] == EVERY
        ]
    newest = max(rows, key=lambda row: row["valid_from"])
    return {name: float(text) for name, text in newest.items() if name.endswith("_target")}


@cache
def currency() -> str:
    """The one currency of all costs; a dash while no price is known."""
    with COSTS.open(encoding="utf-8", newline="") as file:
        return next((row["currency"] for row in csv.DictReader(file)), "–")
