"""What a report is: read from YAML in version control and from the instance's own folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from callhouse.errors import CallhouseError
from callhouse.reports.schedule import PERIODS, Schedule
from callhouse.security import check_person
from callhouse.settings import LANGUAGES, REPOSITORY, Settings

SHIPPED = REPOSITORY / "superset" / "reports"
NAME = re.compile(r"[a-z][a-z0-9_]{1,60}")
KEYS = {"title", "board", "chart", "changes", "period", "filters", "rows", "schedule", "owner",
        "recipients"}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """A board, a saved chart or the changes of metrics, for whom and when.

    Exactly one of `board` (slug), `chart` (name) and `changes` (metrics) is given. `filters`: value
    of a filter of the board by the filter's name. `rows`: tiles whose rows are attached; none: all
    tables. Without recipients it is a template.
    """

    name: str
    title: dict[str, str]
    period: str
    schedule: Schedule
    board: str = ""
    chart: str = ""
    changes: tuple[str, ...] = ()
    filters: dict[str, str] = field(default_factory=dict)
    rows: tuple[str, ...] = ()
    owner: str = ""
    recipients: tuple[str, ...] = ()
    is_own: bool = False

    @property
    def shows(self) -> str:
        """What it shows, for lists and the audit trail."""
        return self.board or self.chart or f"changes of {', '.join(self.changes)}"


def directory(settings: Settings) -> Path:
    """The instance's own reports; a file here replaces the shipped one of the same name."""
    own = settings.environment.get("CALLHOUSE_REPORTS")
    return Path(own).expanduser() if own else settings.home / "reports" / "declared"


def load(settings: Settings) -> dict[str, Report]:
    """Every report by its name; CallhouseError names a malformed file."""
    found: dict[str, Report] = {}
    for folder in (SHIPPED, directory(settings)):
        for file in sorted(folder.glob("*.yaml")):
            found[file.stem] = read(file, is_own=folder != SHIPPED)
    return found


def find(settings: Settings, name: str) -> Report:
    """The report called `name`, or CallhouseError."""
    known = load(settings)
    if name not in known:
        raise CallhouseError(f"there is no report {name!r}; there are: {', '.join(known)}")
    return known[name]


def read(file: Path, *, is_own: bool = False) -> Report:
    """The report that `file` describes; CallhouseError if malformed."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CallhouseError(f"{file.name} is no YAML: {' '.join(str(error).split())}") from None
    return parse(file.stem, content, is_own=is_own)


def parse(name: str, content: Any, *, is_own: bool = False) -> Report:
    """The report that `content` describes; CallhouseError says what cannot be."""

    def fail(problem: str) -> CallhouseError:
        return CallhouseError(f"report {name}: {problem}")

    if not NAME.fullmatch(name):
        raise CallhouseError(f"{name!r} is no name of a report: use a-z, 0-9 and _")
    if not isinstance(content, dict):
        raise fail("must be a mapping with title, period, schedule and board, chart or changes")
    if unknown := set(content) - KEYS:
        raise fail(f"unknown keys {', '.join(sorted(unknown))}")
    title = content.get("title")
    if not isinstance(title, dict) or not all(str(title.get(lang) or "") for lang in LANGUAGES):
        raise fail(f"needs a title in {' and '.join(LANGUAGES)}")
    shown = [key for key in ("board", "chart", "changes") if content.get(key)]
    if len(shown) != 1:
        raise fail("needs exactly one of board, chart, changes")
    period = content.get("period")
    if period not in PERIODS:
        raise fail(f"period {period!r} is not one of {', '.join(PERIODS)}")
    if shown == ["changes"] and period != "last_month":
        raise fail("changes are told of last_month")
    filters = content.get("filters") or {}
    if filters and shown == ["chart"]:
        raise fail("a chart is filtered where it is saved, only boards take filters")
    recipients = tuple(check_person(str(one)) for one in content.get("recipients") or ())
    owner = str(content.get("owner") or "")
    if recipients and not owner:
        raise fail("needs an owner, who is told when it fails")
    try:
        schedule = Schedule.parse(content.get("schedule"))
    except CallhouseError as error:
        raise fail(str(error)) from None
    return Report(
        name=name,
        title={language: str(title[language]) for language in LANGUAGES},
        period=period,
        schedule=schedule,
        board=str(content.get("board") or ""),
        chart=str(content.get("chart") or ""),
        changes=tuple(content.get("changes") or ()),
        filters={str(key): str(value) for key, value in filters.items()},
        rows=tuple(content.get("rows") or ()),
        owner=check_person(owner) if owner else "",
        recipients=recipients,
        is_own=is_own,
    )


def write(settings: Settings, name: str, content: dict[str, Any]) -> Report:
    """Keep an own report as YAML, after it was checked."""
    report = parse(name, content, is_own=True)
    folder = directory(settings)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / f"{name}.yaml").write_text(f"---\n{text}", encoding="utf-8")
    return report


def content_of(report: Report) -> dict[str, Any]:
    """`report` as `parse` reads it."""
    content: dict[str, Any] = {
        "title": report.title, "board": report.board, "chart": report.chart,
        "changes": list(report.changes), "period": report.period, "filters": report.filters,
        "rows": list(report.rows), "schedule": report.schedule.as_yaml(), "owner": report.owner,
        "recipients": list(report.recipients),
    }  # fmt: skip
    return {key: value for key, value in content.items() if value}


def remove(settings: Settings, name: str) -> bool:
    """Remove an own report. True if a shipped one of that name takes its place."""
    report = find(settings, name)
    if not report.is_own:
        raise CallhouseError(f"report {name} is a template that ships: it sends nothing by itself")
    (directory(settings) / f"{name}.yaml").unlink()
    return (SHIPPED / f"{name}.yaml").exists()
