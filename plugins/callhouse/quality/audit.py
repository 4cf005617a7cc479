"""Audits: every suite, the verdict by day, the record in `ops.expectation_results`, the pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psycopg

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.landing import cold
from callhouse.quality import docs, runner, suites
from callhouse.quality.runner import Finding, SuiteRun
from callhouse.quality.suites import Suite
from callhouse.settings import Settings

Report = Callable[[str], None]

# A held day's reason is one line on a dashboard; the pages have everything.
REASONS = 3


@dataclass(frozen=True)
class Result:
    """What one expectation found; a row of `ops.expectation_results`."""

    suite: str
    boundary: str
    expectation: str
    column_name: str | None
    severity: str
    is_success: bool
    observed: str | None
    failing_days: tuple[date, ...]
    note: str


@dataclass(frozen=True)
class AuditReport:
    """The verdict. `failing_days` must not be published; warnings are in `results` only."""

    results: tuple[Result, ...]
    failing_days: dict[date, str]
    data_docs: Path

    def failures_of(self, day: date) -> list[str]:
        """The expectations that hold `day`, each as suite.expectation."""
        return [
            f"{result.suite}.{result.expectation}"
            for result in self.results
            if result.severity == "fail" and not result.is_success and day in result.failing_days
        ]


def audit(
    settings: Settings,
    build_id: int,
    progress: Report | None = None,
    directory: Path | None = None,
) -> AuditReport:
    """Run the suites of its lane in `directory` (default: the checkout's) on a build's days.

    May be repeated; the last results replace those before. CallhouseError means that there is
    no verdict: the warehouse is away, or an expectation that guards publishing cannot run.
    """
    wanted = suites.load(directory or settings.repository / "expectations")
    with warehouse.connect(settings, autocommit=True) as connection:
        days = _days(
            connection,
            "select business_day from ops.build_days where build_id = %s order by business_day",
            build_id,
        )
        if not days:
            raise CallhouseError(f"build {build_id} has no days: there is nothing to audit")
        lane = warehouse.one(
            connection, "select lane from ops.builds where build_id = %s", [build_id]
        )[0]
        return _audit(settings, connection, wanted, {lane: days}, build_id, progress)


def audit_published(
    settings: Settings, progress: Report | None = None, directory: Path | None = None
) -> AuditReport:
    """Run every suite on what is published. Days that wait to be built are left out.

    Archived days are read back first, since facts are compared with what is staged.
    """
    wanted = suites.load(directory or settings.repository / "expectations")
    with (
        warehouse.connect(settings) as holding,
        warehouse.connect(settings, autocommit=True) as connection,
    ):
        cold.hold(holding)
        cold.thaw(settings, holding)
        days = {
            lane: _days(
                connection,
                "select p.business_day from ops.published_days as p where p.lane = %s "
                "and not exists (select from ops.lane_status as s "
                " where s.status in ('held', 'provisional') "
                # What is compared with facts needs them to be up to date as well.
                " and s.lane in ('facts', %s) and s.business_day = p.business_day) "
                "order by p.business_day",
                lane,
                lane,
            )
            for lane in suites.LANES
        }
        if not days["facts"]:
            raise CallhouseError("no day is published and up to date: run `./callhouse transform`")
        published = [suites.of_published(suite) for suite in wanted]
        return _audit(settings, connection, published, days, None, progress)


def _audit(
    settings: Settings,
    connection: psycopg.Connection,
    wanted: Iterable[Suite],
    days: Mapping[str, list[date]],
    build_id: int | None,
    progress: Report | None,
) -> AuditReport:
    say = progress or _nothing
    context = docs.context(settings)
    runs = _run(connection, wanted, runner.connect(settings, context), days, say)
    # After the checks: marks and rows are committed together, so whatever a check has seen beyond
    # the build's rows is marked by now.
    changed = {
        lane: set(
            _days(
                connection,
                "select distinct business_day from ops.dirty_marks where lane = %s and "
                "(build_id is null or %s::bigint is null or build_id <> %s::bigint)",
                lane,
                build_id,
                build_id,
            )
        )
        for lane in days
    }
    findings = [
        runner.excuse(finding, changed[run.suite.lane]) for run in runs for finding in run.findings
    ]
    results = tuple(_result(finding) for finding in findings)
    _record(connection, build_id, results)
    name = f"build-{build_id:08}" if build_id else "published"
    page = docs.build(settings, context, name, runs)
    for result in results:
        if not result.is_success:
            say(f"{result.severity}: {result.suite}.{result.expectation}: {result.observed}")
    _refuse_blind(findings)
    failing = failing_days(findings)
    count = len({day for lane_days in days.values() for day in lane_days})
    say(f"{count - len(failing)} of {count} days pass; pages in {page}")
    return AuditReport(results, failing, page)


def _nothing(line: str) -> None:
    del line


def _run(
    connection: psycopg.Connection,
    wanted: Iterable[Suite],
    source: Any,
    days: Mapping[str, list[date]],
    say: Report,
) -> list[SuiteRun]:
    audited = []
    for suite in map(suites.of_marts, wanted):
        if not days.get(suite.lane):
            continue
        if runner.exists(connection, suite.relation):
            audited.append(suite)
        elif suite.boundary != "staging":  # else a vendor that this instance has no feed of
            raise CallhouseError(
                f"{suite.relation} does not exist, but {suite.file} audits it: build first"
            )
    runs = []
    with runner.counted(audited, source, days, connection):
        for suite in audited:
            run = runner.run_suite(suite, source, days[suite.lane], connection)
            good = sum(finding.is_success for finding in run.findings)
            say(f"{suite.name}: {good} of {len(run.findings)} hold")
            runs.append(run)
    return runs


def failing_days(findings: Sequence[Finding]) -> dict[date, str]:
    """The days that must not be published, each with what is wrong with it."""
    reasons: dict[date, list[str]] = {}
    for finding in findings:
        if finding.check.severity == "fail" and not finding.is_success:
            for day in finding.failing_days:
                reasons.setdefault(day, []).append(finding.reason(day))
    return {day: _sentence(reasons[day]) for day in sorted(reasons)}


def _sentence(reasons: list[str]) -> str:
    more = len(reasons) - REASONS
    return "; ".join([*reasons[:REASONS], *([f"and {more} more"] if more > 0 else [])])


def _refuse_blind(findings: Sequence[Finding]) -> None:
    """A guard that cannot look is no verdict on a day: nothing is published, nothing is held."""
    for finding in findings:
        if finding.error and finding.check.severity == "fail":
            raise CallhouseError(
                f"{finding.suite.file.name}: {finding.check.name} {finding.error}: "
                "correct the suite or the model; the days stay dirty and are built again"
            )


def _result(finding: Finding) -> Result:
    return Result(
        suite=finding.suite.name,
        boundary=finding.suite.boundary,
        expectation=finding.check.name,
        column_name=finding.check.column,
        severity=finding.check.severity,
        is_success=finding.is_success,
        observed=finding.observed,
        failing_days=finding.failing_days,
        note=finding.check.note,
    )


def _days(connection: psycopg.Connection, query: str, *values: object) -> list[date]:
    rows = connection.execute(query.encode(), list(values) or None).fetchall()
    return [row[0] for row in rows]


def _record(
    connection: psycopg.Connection, build_id: int | None, results: Sequence[Result]
) -> None:
    with connection.transaction(), connection.cursor() as cursor:
        # Audits of what is published are history; the audit of a build may be repeated.
        cursor.execute("delete from ops.expectation_results where build_id = %s", [build_id])
        cursor.executemany(
            "insert into ops.expectation_results (build_id, boundary, suite, expectation, "
            "column_name, severity, is_success, observed, failing_days, note) "
            "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    build_id,
                    r.boundary,
                    r.suite,
                    r.expectation,
                    r.column_name,
                    r.severity,
                    r.is_success,
                    r.observed,
                    list(r.failing_days),
                    r.note,
                )
                for r in results
            ],
        )
