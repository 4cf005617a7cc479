"""Run suites with Great Expectations on the claimed days, and find the days behind each failure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql
from sqlalchemy import event

from callhouse.errors import CallhouseError
from callhouse.quality import counts, gx
from callhouse.quality.suites import Check, Suite, construct
from callhouse.settings import Settings

Report = Callable[[str], None]

# Rows at fault that a result and its page show; the days come from a query over all of them.
SAMPLE_ROWS = 20
# Same weekday of the weeks before: what a day's volume is compared with.
REFERENCE_WEEKS = 4
# How the query of a batch begins, and no other that the library sends: it writes in capitals.
BATCH = "select * from "
# What a person reads about one failure, at most.
OBSERVED_LENGTH = 500


@dataclass(frozen=True)
class Finding:
    """What one expectation found. `failing_days`: all days of the build where none can be named.

    `error`: it could not be evaluated at all (a missing column, say), so nothing is known.
    `reasons`: what was found on a day, where the expectation counts by day.
    """

    suite: Suite
    check: Check
    is_success: bool
    observed: str | None = None
    failing_days: tuple[date, ...] = ()
    reasons: Mapping[date, str] = field(default_factory=dict)
    error: str | None = None

    def reason(self, day: date) -> str:
        """A sentence for the person who wonders why `day` is held."""
        found = self.reasons.get(day) or self.observed or "failed"
        return f"{self.suite.name}.{self.check.name}: {found}"


@dataclass(frozen=True)
class SuiteRun:
    """One suite's findings, and what its Data Docs page is rendered from."""

    suite: Suite
    findings: tuple[Finding, ...]
    validation: Any


def day_list(days: Iterable[date]) -> str:
    """`days` as SQL literals, so that the planner opens only their partitions."""
    return ", ".join(f"date '{day.isoformat()}'" for day in sorted(days)) or "null::date"


def batch_query(suite: Suite, days: Sequence[date]) -> str:
    """The rows that a suite looks at."""
    # Relation and condition are the suite file's, checked when it was read; days are dates.
    query = f"{BATCH}{suite.relation} where business_day in ({day_list(days)})"
    return f"{query} and ({suite.where})" if suite.where else query


def fill(query: str, suite: Suite, days: Sequence[date]) -> str:
    """A check's query with the claimed days in it; see docs/operators/data-quality.md."""
    weeks = range(1, REFERENCE_WEEKS + 1)
    reference = {day - timedelta(weeks=week) for day in days for week in weeks} - set(days)
    return query.strip("; \n").format(
        rows=f"({batch_query(suite, days)})",
        days=day_list(days),
        reference_days=day_list(reference),
    )


def connect(settings: Settings, context: Any) -> Any:
    """The warehouse as a data source of `context`."""
    password = quote(settings.secret("callhouse_pipeline_password"), safe="")
    # A temporary copy of each batch would cost more than the few queries that read it.
    source = context.data_sources.add_postgres(
        "warehouse",
        connection_string=(
            f"postgresql+psycopg2://callhouse_pipeline:{password}"
            f"@{settings.database_host}:{settings.postgres_port}/callhouse"
            "?connect_timeout=10&application_name=callhouse-audit"
        ),
        create_temp_table=False,
    )
    engine = source.get_execution_engine().engine
    event.listen(engine, "before_cursor_execute", _without_rows, retval=True)
    return source


def _without_rows(
    _connection: Any, _cursor: Any, statement: str, parameters: Any, *_context: Any
) -> tuple[str, Any]:
    """A batch's columns without its rows: to learn their names the library asks for everything."""
    return f"{statement} limit 0" if statement.startswith(BATCH) else statement, parameters


def counted(
    wanted: Sequence[Suite],
    source: Any,
    days: Mapping[str, Sequence[date]],
    connection: psycopg.Connection,
) -> AbstractContextManager[None]:
    """A block within which `wanted` may be run, their queries by two sessions at once."""
    return counts.counted(
        source.get_execution_engine().engine,
        [
            fill(check.query, suite, days[suite.lane])
            for suite in wanted
            for check in suite.checks
            if check.query is not None and _can_compare(check, connection)
        ],
    )


def run_suite(
    suite: Suite, source: Any, days: Sequence[date], connection: psycopg.Connection
) -> SuiteRun:
    """Evaluate one suite: first yes or no, then the failures once more with their rows."""
    query = batch_query(suite, days)
    batch = (
        source.add_query_asset(suite.name, query=query)
        .add_batch_definition_whole_table("claimed days")
        .get_batch()
    )
    waiting = {c.name for c in suite.checks if not _can_compare(c, connection)}
    checks = {c.name: c for c in suite.checks if c.name not in waiting}
    built = {name: _construct(suite, check, days) for name, check in checks.items()}
    first = _validate(batch, suite, list(built.values()), {"result_format": "BOOLEAN_ONLY"})
    failed = [name for name in checks if not first[name].success]
    # SUMMARY and the query behind it, not COMPLETE: that one fetches every row at fault into
    # memory (17 s instead of 6 s for 84,000 of them), and lists 20 of them all the same.
    detailed = {
        "result_format": "SUMMARY",
        "unexpected_index_column_names": ["business_day"],
        "return_unexpected_index_query": True,
        "partial_unexpected_count": SAMPLE_ROWS,
    }
    second = _validate(batch, suite, [built[name] for name in failed], detailed)
    outcomes = {**first, **second}
    findings = [
        Finding(suite, check, True, "nothing to compare with yet")
        if check.name in waiting
        else _judge(suite, check, outcomes[check.name], query, days, connection)
        for check in suite.checks
    ]
    return SuiteRun(suite, tuple(findings), list(outcomes.values()))


def _can_compare(check: Check, connection: psycopg.Connection) -> bool:
    return all(exists(connection, name) for name in check.needs)


def excuse(finding: Finding, changed_days: set[date]) -> Finding:
    """`finding` without the days that landing has changed since they were built."""
    excused = [day for day in finding.failing_days if day in changed_days]
    if not finding.check.excuse_changed_days or not excused or finding.error:
        return finding
    rest = tuple(day for day in finding.failing_days if day not in changed_days)
    text = f"not compared, changed while being built: {', '.join(map(str, excused))}"
    if rest:
        text = f"{finding.observed}; {text}"
    return replace(finding, is_success=not rest, observed=text, failing_days=rest)


def _construct(suite: Suite, check: Check, days: Sequence[date]) -> Any:
    kwargs = dict(check.kwargs)
    if check.query is not None:
        # The library formats the query once more: what is in it by now is literal.
        filled = fill(check.query, suite, days).replace("{", "{{").replace("}", "}}")
        kwargs["unexpected_rows_query"] = filled
    return construct(check, kwargs, f"{suite.file} ({check.name})")


def _validate(
    batch: Any, suite: Suite, expectations: list[Any], result_format: dict[str, Any]
) -> dict[str, Any]:
    if not expectations:
        return {}
    with gx.quiet():
        group = gx.gx.ExpectationSuite(suite.name, expectations=expectations)
        outcome = batch.validate(group, result_format=result_format)
    # Results come in an order of their own.
    return {r.expectation_config.meta["check"]: r for r in outcome.results}


def _judge(
    suite: Suite,
    check: Check,
    outcome: Any,
    query: str,
    days: Sequence[date],
    connection: psycopg.Connection,
) -> Finding:
    if outcome.success:
        return Finding(suite, check, True)
    if error := _exception(outcome):
        if "OperationalError" in error:
            raise CallhouseError(f"the audit lost the warehouse: {_one_line(error)}")
        text = f"could not be checked: {_one_line(error)}"
        return Finding(suite, check, False, text, tuple(days), error=text)
    details = outcome.result
    if check.query is not None:
        return _judge_query(suite, check, details, days, connection)
    if not check.is_by_row:
        observed = f"observed {details.get('observed_value')}"
        return Finding(suite, check, False, _one_line(observed), tuple(days))
    sample = sorted({str(value) for value in details.get("partial_unexpected_list", [])})
    observed = (
        f"{details.get('unexpected_count')} of {details.get('element_count')} rows, "
        f"such as {', '.join(sample[:3])}"
    )
    index_query = details.get("unexpected_index_query")
    counts: dict[date, int] = {}
    if index_query:
        # The library names the rows of a query asset by a query without parentheses.
        rows = index_query.strip().rstrip(";").replace(query, f"({query}) as batch", 1)
        counts = {day: number for day, number, _ in _by_day(connection, rows)}
    return Finding(
        suite,
        check,
        False,
        _one_line(observed),
        _attributed(counts, days),
        {day: f"{number} rows with {check.column} outside the bound ({check.note})"
         for day, number in counts.items()},
    )  # fmt: skip


def _judge_query(
    suite: Suite,
    check: Check,
    details: Mapping[str, Any],
    days: Sequence[date],
    connection: psycopg.Connection,
) -> Finding:
    found = _by_day(connection, fill(check.query or "", suite, days))
    reasons = {day: text for day, _, text in found if day is not None}
    total = details.get("observed_value", sum(number for _, number, _ in found))
    first = next((f"{day}: {text}" for day, _, text in found), "")
    return Finding(
        suite,
        check,
        False,
        _one_line(f"{total} rows, such as {first}"),
        _attributed({day: number for day, number, _ in found}, days),
        reasons,
    )


def _by_day(connection: psycopg.Connection, query: str) -> list[tuple[date, int, str]]:
    """Day, number of rows and one row as text, for what `query` finds."""
    statement = sql.SQL(
        "select business_day, count(*), min((to_jsonb(found) - 'business_day')::text) "
        "from ({}) as found group by business_day order by business_day"
    ).format(sql.SQL(query))
    with connection.transaction():
        rows = connection.execute(statement).fetchall()
    return [(day, int(number), _plain(text)) for day, number, text in rows]


def _plain(text: str) -> str:
    """`{"a": 1, "b": null}` as `a 1, b -`."""
    return text.strip("{}").replace('": ', " ").replace('"', "").replace("null", "-") or "found"


def _attributed(counts: Mapping[date, int], days: Sequence[date]) -> tuple[date, ...]:
    """The days to hold. A failure that is not of the claimed days alone is everyone's."""
    if not counts or not set(counts) <= set(days):
        return tuple(days)
    return tuple(sorted(counts))


def exists(connection: psycopg.Connection, relation: str) -> bool:
    """Whether `schema.relation` is there."""
    row = connection.execute("select to_regclass(%s) is not null", [relation]).fetchone()
    return bool(row and row[0])


def _exception(outcome: Any) -> str | None:
    """The message of an exception inside the library; it nests them by metric."""
    info = outcome.exception_info or {}
    nested = [info] if "raised_exception" in info else list(info.values())
    for entry in nested:
        if isinstance(entry, Mapping) and entry.get("raised_exception"):
            return str(entry.get("exception_message") or "unknown error")
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:OBSERVED_LENGTH]
