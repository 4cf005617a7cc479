"""Figures of benchmarks: told at the end of a run, beside their goals and the saved ones.

A benchmark hands each of its figures to the fixture `figure`. `baseline.json` keeps those of a run
on 2 cores and 24 GiB; `--save-baseline` puts the figures of this run there, in place of the ones of
the same name, and leaves the others. A name says for what size a figure holds, so that a shorter
run is not held against a longer one. Ratios are yardsticks within one run and hold on other
machines too: one that is more than a tenth worse than the saved one is called so. Other units are
told beside theirs and judged by nobody.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

BASELINE = Path(__file__).with_name("baseline.json")
WORSE = 0.1
PROPERTY = "figure"


class Figure(NamedTuple):
    """What was measured; `at_most` or `at_least` is the goal, None where there is none."""

    bench: str
    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def goal(self) -> str:
        """The goal and whether it is reached, for people."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}: {'reached' if self.value <= self.at_most else 'missed'}"
        if self.at_least is not None:
            return f"≥ {self.at_least:g}: {'reached' if self.value >= self.at_least else 'missed'}"
        return ""

    def change(self, saved: float) -> str:
        """This figure against the saved one, for people."""
        change = self.value / saved - 1
        loss = -change if self.at_least is not None else change
        verdict = " worse" if self.unit == "ratio" and loss > WORSE else ""
        return f"{change:+.0%}{verdict}"


class Tell(Protocol):
    """How a benchmark tells a figure; `unit` is "ratio" or one of the field."""

    def __call__(
        self,
        name: str,
        value: float,
        unit: str = "ratio",
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None: ...


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Tell:
    """Tell a figure before a bound is asserted: a goal that is missed has its figure too."""
    bench = request.path.stem.removeprefix("bench_")

    def tell(
        name: str,
        value: float,
        unit: str = "ratio",
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        told = Figure(bench, name, float(value), unit, at_most, at_least)
        request.node.user_properties.append((PROPERTY, tuple(told)))

    return tell


def pytest_addoption(parser: pytest.Parser) -> None:
    """Whether this run is what later ones are held against."""
    parser.addoption(
        "--save-baseline", action="store_true", dest="save_baseline",
        help="keep the figures of this run in tests/bench/baseline.json",
    )  # fmt: skip


def figures(reporter: Any) -> list[Figure]:
    """What the benchmarks of this run have told, also those that missed their bounds."""
    return [
        Figure(*value)
        for report in (*reporter.getreports("passed"), *reporter.getreports("failed"))
        if report.when == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]


def save(found: list[Figure]) -> None:
    """Put figures into the baseline, sorted, so that its history shows what has changed."""
    saved = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    for one in found:
        kept = {"value": float(f"{one.value:.3g}"), "unit": one.unit}
        saved.setdefault(one.bench, {})[one.name] = kept
    text = json.dumps(saved, indent=2, sort_keys=True, ensure_ascii=False)
    BASELINE.write_text(text + "\n", encoding="utf-8")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table of all figures."""
    found = figures(terminalreporter)
    if not found:
        return
    saved = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    terminalreporter.section("figures")
    for one in found:
        old = saved.get(one.bench, {}).get(one.name)
        against = f"saved {old['value']:g}, {one.change(old['value'])}" if old else "none saved"
        unit = "" if one.unit == "ratio" else f" {one.unit}"
        terminalreporter.write_line(
            f"{one.bench:<14} {one.name:<74} {one.value:>10.4g}{unit:<7} {against:<26} {one.goal}"
        )
    if config.getoption("save_baseline"):
        save(found)
        terminalreporter.write_line(f"saved in {BASELINE}")
