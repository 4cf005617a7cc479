"""What changed between two months, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from callhouse.errors import CallhouseError
from callhouse.semantic import Catalogue, Metric, query

if TYPE_CHECKING:
    from callhouse.settings import Settings

LEVEL = 0.05
FEWEST_DAYS = 5  # of daily values on either side
FEWEST_CALLS = 30  # of calls on either side

Days = tuple[date, date]


@dataclass(frozen=True)
class Change:
    """A metric in two months; `p_value` after Holm, None where nothing could be tested.

    `test`: z (two proportions) or welch (daily values). `days`: with values, of both months.
    """

    name: str
    labels: tuple[str, str]  # en, zh
    unit: str
    now: float | None
    before: float | None
    test: str = "none"
    p_value: float | None = None
    days: tuple[int, int] = (1, 1)

    @property
    def compared(self) -> tuple[float, float] | None:
        """Both values as they can be compared: counts by day, because months have more or less."""
        if self.now is None or self.before is None:
            return None
        by = self.days if self.unit == "count" else (1, 1)
        return self.now / by[0], self.before / by[1]

    @property
    def is_significant(self) -> bool:
        """Whether chance alone would rarely do this."""
        return self.p_value is not None and self.p_value < LEVEL

    def label(self, language: str) -> str:
        """Name for people."""
        return self.labels[1 if language == "zh" else 0]


def compare(
    settings: Settings, catalogue: Catalogue, person: str, metrics: Sequence[str], now: Days,
    before: Days,
) -> list[Change]:  # fmt: skip
    """`metrics` in both periods, asked with the person's own login. One they are not told lacks.

    Raises:
        NotToldError: where nothing is left, which would be a page without a line.
    """
    found = []
    not_told: query.NotToldError | None = None
    for name in metrics:
        if name not in catalogue.metrics:
            raise CallhouseError(f"no metric {name!r}: `./callhouse metric` lists them")
        try:
            found.append(
                _compare(settings, catalogue, person, catalogue.metrics[name], now, before)
            )
        except query.NotToldError as error:
            not_told = error
    if not_told and not found:
        raise not_told
    return adjusted(found)


def _compare(
    settings: Settings, catalogue: Catalogue, person: str, metric: Metric, now: Days, before: Days
) -> Change:
    def ask(names: tuple[str, ...], days: Days, by: tuple[str, ...] = ()) -> list[list[float]]:
        question = query.Question(names, by, *days)
        _, rows = query.ask(settings, catalogue, question, person)
        values = [row[len(by) :] for row in rows]
        return [[float(v) for v in row] for row in values if all(v is not None for v in row)]

    daily = [[row[0] for row in ask((metric.name,), days, ("day",))] for days in (now, before)]
    # A month without a day is no month of nothing.
    total, total_before = (
        ask((metric.name,), days)[0][0] if found else None
        for days, found in zip((now, before), daily, strict=True)
    )
    labels = (metric.label_en, metric.label_zh)
    counted = (max(len(daily[0]), 1), max(len(daily[1]), 1))
    change = Change(metric.name, labels, metric.unit, total, total_before, days=counted)
    if change.now is None or change.before is None:
        return change
    if metric.unit == "rate" and metric.numerator:
        parts = (metric.numerator, metric.denominator)
        counts = [ask(parts, days) for days in (now, before)]
        if all(counts):
            p = two_proportions(*(tuple(map(round, rows[0])) for rows in counts))  # type: ignore[arg-type]
            if p is not None:
                return replace(change, test="z", p_value=p)
    p = welch(*daily)
    return change if p is None else replace(change, test="welch", p_value=p)


def two_proportions(first: tuple[int, int], second: tuple[int, int]) -> float | None:
    """Two-sided p of the z test with pooled variance, from (successes, trials) of both.

    None where there are too few trials, or where it is no share.
    """
    (a, n), (b, m) = first, second
    if min(n, m) < FEWEST_CALLS or not 0 <= a <= n or not 0 <= b <= m:
        return None
    share = (a + b) / (n + m)
    spread = math.sqrt(share * (1 - share) * (1 / n + 1 / m))
    if spread == 0:
        return 1.0
    return math.erfc(abs(a / n - b / m) / spread / math.sqrt(2))


def welch(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p of Welch's t test; None where either has too few values or none varies."""
    if min(len(first), len(second)) < FEWEST_DAYS or len({*first, *second}) == 1:
        return None
    # Great Expectations brings it; only this test needs it.
    from scipy import stats

    p = float(stats.ttest_ind(first, second, equal_var=False).pvalue)
    return None if math.isnan(p) else p


def adjusted(changes: Sequence[Change]) -> list[Change]:
    """`changes` with p values after Holm, because several metrics are tested at once."""
    tested = sorted(
        (change for change in changes if change.p_value is not None),
        key=lambda change: change.p_value or 0.0,
    )
    after: dict[str, float] = {}
    highest = 0.0
    for rank, change in enumerate(tested):
        highest = max(highest, min(1.0, (change.p_value or 0.0) * (len(tested) - rank)))
        after[change.name] = highest
    return [replace(c, p_value=after[c.name]) if c.name in after else c for c in changes]
