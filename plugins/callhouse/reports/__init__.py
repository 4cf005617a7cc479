"""Reports by mail: boards, saved charts and changes of metrics, each with its recipient's own rows.

Superset's own reports send one format per mail, to addresses typed in by anybody, with the rows of
whoever executes the schedule; hence these (docs/decisions/0054).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import yaml

from callhouse import semantic, warehouse
from callhouse.bi import dashboards, datasets, layout, notes, render
from callhouse.errors import CallhouseError
from callhouse.reports import changes, definitions, mail, pages
from callhouse.reports.definitions import Report
from callhouse.reports.schedule import period
from callhouse.runner import components
from callhouse.security import login_password
from callhouse.security.people import WITHOUT_SCOPES
from callhouse.security.trail import journal
from callhouse.settings import Settings

_SCRIPT = Path(render.__file__).with_name("superset_report.py")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ATTEMPTS = 2  # of drawing; a mail is handed in once
SECONDS_EACH = 900
STALE = timedelta(hours=1)
NOT_LOCKED_YET_SECONDS = 60.0  # a folder this new may be one that its process is about to lock
Say = Callable[[str], None]


@dataclass(frozen=True)
class Recipient:
    """A person as reports see them. `refusal`: why they get nothing now, else None."""

    name: str
    label: str
    language: str
    time_zone: str
    mail: str | None
    may_export: bool
    refusal: str | None


@dataclass(frozen=True)
class Outcome:
    """What became of one mail: sent, kept, failed or refused; `detail` says why or where."""

    report: str
    person: str
    due_at: datetime
    status: str
    row_count: int | None
    is_export: bool
    detail: str | None


@dataclass(frozen=True)
class _Drawn:
    """What Superset and the browser gave for one recipient."""

    picture: bytes
    document: bytes
    tiles: list[dict[str, Any]]


def send_due(settings: Settings, say: Say, now: datetime | None = None) -> list[Outcome]:
    """Send what has become due. Safe to repeat: each moment of each recipient is taken once."""
    now = now or datetime.now(UTC)
    sweep(settings)
    outcomes = _abandoned(settings)
    for report in definitions.load(settings).values():
        if report.recipients:
            due = _due(settings, report, now)
            outcomes += _send(settings, report, due, say)
    return outcomes


def send(
    settings: Settings, report: Report, say: Say, people: Sequence[str] = (),
    as_of: date | None = None,
) -> list[Outcome]:  # fmt: skip
    """Send `report` now, to its recipients or to `people`; `as_of`: as if it were due that day."""
    wanted = tuple(people) or report.recipients
    if not wanted:
        raise CallhouseError(f"report {report.name} has no recipients: name one with --to")
    now = datetime.now(UTC)
    return _send(settings, report, dict.fromkeys(wanted, now), say, as_of)


def recipient(settings: Settings, connection: psycopg.Connection, name: str) -> Recipient:
    """The person `name` as of now; someone unknown is refused like someone who left."""
    row = connection.execute(
        "select p.label, p.level, p.rights, p.closed_at is null, p.language, p.time_zone, p.mail,"
        " exists (select from sec.entitlement as e"
        " where e.person = p.person and e.valid @> clock_timestamp())"
        " from sec.people as p where p.person = %s",
        [name],
    ).fetchone()
    if row is None:
        return Recipient(name, name, settings.language, settings.time_zone, None, False,
                         "is no person of the warehouse")  # fmt: skip
    label, level, rights, is_open, language, zone, address, is_entitled = row
    refusal = None
    if not is_open:
        refusal = "has left"
    elif not is_entitled and level not in WITHOUT_SCOPES:
        refusal = "is not entitled to anything now"
    return Recipient(
        name, label, language or settings.language, zone or settings.time_zone, address,
        "export" in rights, refusal,
    )  # fmt: skip


def _due(settings: Settings, report: Report, now: datetime) -> dict[str, datetime]:
    """Recipients to whom something is due now, with its moment. New ones begin with the next."""
    due = {}
    with warehouse.connect(settings) as connection:
        paused_at, resumed_at = _pause(connection, report.name)
        for name in report.recipients:
            person = recipient(settings, connection, name)
            known = connection.execute(
                "select max(due_at) from ops.report_sends where report = %s and person = %s",
                [report.name, name],
            ).fetchone()
            if known is None or known[0] is None:
                # Someone unknown has no row; they are refused when they are due, below.
                connection.execute(
                    "insert into ops.report_sends (report, person, due_at, status)"
                    " select %s, person, %s, 'subscribed' from sec.people where person = %s"
                    " on conflict do nothing",
                    [report.name, now, name],
                )
                continue
            latest = report.schedule.latest(now, ZoneInfo(person.time_zone))
            begins = max(known[0], resumed_at or known[0])
            if latest > begins and (paused_at is None or resumed_at is not None):
                due[name] = latest
    return due


def _pause(connection: psycopg.Connection, name: str) -> tuple[datetime | None, datetime | None]:
    row = connection.execute(
        "select paused_at, resumed_at from ops.report_pauses where report = %s", [name]
    ).fetchone()
    return (row[0], row[1]) if row else (None, None)


def _abandoned(settings: Settings) -> list[Outcome]:
    """Mails whose process died: nobody knows whether they were handed in, so nobody repeats it."""
    with warehouse.connect(settings) as connection:
        rows = connection.execute(
            "select report, person, due_at from ops.report_sends"
            " where status = 'sending' and started_at < now() - %s",
            [STALE],
        ).fetchall()
        known = definitions.load(settings) if rows else {}
        found = []
        for name, person, due_at in rows:
            outcome = Outcome(name, person, due_at, "failed", None, False,
                              "it was interrupted, and may have been sent")  # fmt: skip
            _record(settings, connection, known.get(name), outcome)
            found.append(outcome)
    for outcome in found:
        if report := known.get(outcome.report):
            _tell_owner(settings, report, outcome)
    return found


def _send(
    settings: Settings, report: Report, due: dict[str, datetime], say: Say,
    as_of: date | None = None,
) -> list[Outcome]:  # fmt: skip
    outcomes: list[Outcome] = []
    taken: dict[str, Recipient] = {}
    with warehouse.connect(settings) as connection:
        for name, due_at in due.items():
            person = recipient(settings, connection, name)
            if person.refusal == "is no person of the warehouse":
                outcomes.append(Outcome(report.name, name, due_at, "refused", None, False,
                                        person.refusal))  # fmt: skip
                continue
            claimed = connection.execute(
                "insert into ops.report_sends (report, person, due_at, status)"
                " values (%s, %s, %s, 'sending') on conflict do nothing returning send_id",
                [report.name, name, due_at],
            ).fetchone()
            if claimed is None:
                continue
            if person.refusal:
                outcomes.append(Outcome(report.name, name, due_at, "refused", None, False,
                                        person.refusal))  # fmt: skip
            else:
                taken[name] = person
    for outcome in outcomes:
        _finish(settings, report, outcome, say)
    if not taken:
        return outcomes
    with drawings(settings) as folder:
        for name, person in taken.items():
            outcome = _one(settings, report, person, due[name], as_of, folder)
            outcomes.append(outcome)
            _finish(settings, report, outcome, say)
    return outcomes


@contextmanager
def drawings(settings: Settings) -> Iterator[Path]:
    """A folder for what is drawn: rows of persons, so nobody else reads it and it is gone after."""
    sweep(settings)
    with tempfile.TemporaryDirectory(dir=_drawings(settings)) as folder, _lock(Path(folder)):
        yield Path(folder)


def sweep(settings: Settings) -> None:
    """Remove what processes that were killed had drawn; those that live hold theirs."""
    for old in _drawings(settings).iterdir():
        with suppress(OSError):
            if time.time() - old.stat().st_mtime >= NOT_LOCKED_YET_SECONDS:
                with _lock(old):
                    shutil.rmtree(old)


def _drawings(settings: Settings) -> Path:
    folder = settings.home / "reports" / "drawings"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold `folder`, against other containers as well; BlockingIOError where somebody does."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def _one(
    settings: Settings, report: Report, person: Recipient, due_at: datetime, as_of: date | None,
    folder: Path,
) -> Outcome:  # fmt: skip
    """Draw and deliver one mail; every trouble becomes an outcome."""
    try:
        drawing = _Drawing(settings, report, person, due_at, as_of, folder)
        drawn = drawing.draw()
        # Minutes may have passed: nothing leaves for somebody whose entitlement ended meanwhile.
        with warehouse.connect(settings) as connection:
            now = recipient(settings, connection, person.name)
        if now.refusal:
            return Outcome(report.name, person.name, due_at, "refused", None, False, now.refusal)
        rows = sum(len(tile["rows"]) for tile in drawn.tiles)
        attached = drawing.tables(drawn.tiles) if now.may_export else {}
        message = drawing.message(drawn, attached, rows)
        kept = mail.deliver(settings, message, now.mail, person.name)
    except CallhouseError as error:
        return Outcome(report.name, person.name, due_at, "failed", None, False, str(error))
    except (psycopg.Error, OSError) as error:
        # What the database says may quote a row.
        problem = f"it could not be made ({type(error).__name__})"
        return Outcome(report.name, person.name, due_at, "failed", None, False, problem)
    status = "kept" if kept else "sent"
    detail = kept or f"to {now.mail}, {message['Message-ID']}"
    return Outcome(report.name, person.name, due_at, status, rows, bool(attached), detail)


def _finish(settings: Settings, report: Report, outcome: Outcome, say: Say) -> None:
    with warehouse.connect(settings) as connection:
        _record(settings, connection, report, outcome)
    if outcome.status in ("failed", "refused"):
        _tell_owner(settings, report, outcome)
    say(f"{outcome.report} to {outcome.person}: {outcome.status}, {outcome.detail}")


def _record(
    settings: Settings, connection: psycopg.Connection, report: Report | None, outcome: Outcome
) -> None:
    """Keep the outcome, for `history` and in the audit trail."""
    connection.execute(
        "update ops.report_sends set status = %s, ended_at = clock_timestamp(), row_count = %s,"
        " is_export = %s, detail = %s where report = %s and person = %s and due_at = %s",
        [outcome.status, outcome.row_count, outcome.is_export, outcome.detail, outcome.report,
         outcome.person, outcome.due_at],
    )  # fmt: skip
    journal.write(
        settings,
        "callhouse",
        {
            "action": "report",
            "person": outcome.person,
            "program": "callhouse reports",
            "object_name": report.shows if report else outcome.report,
            "statement": f"report {outcome.report} due {outcome.due_at.isoformat()}",
            "row_count": outcome.row_count,
            "is_export": outcome.is_export,
            "outcome": outcome.status,
        },
    )


def _tell_owner(settings: Settings, report: Report, outcome: Outcome) -> None:
    """A mail to the owner that says who got nothing and why. Without any row."""
    with warehouse.connect(settings) as connection:
        owner = recipient(settings, connection, report.owner) if report.owner else None
    if owner is None or owner.refusal == "has left":
        return
    words = pages.WORDS[owner.language]
    title = report.title[owner.language]
    message = mail.compose(
        words["failed_subject"].format(title=title),
        [
            words["failed"].format(
                title=title, name=report.name, person=outcome.person, reason=outcome.detail
            ),
            words["failed_more"].format(name=report.name),
        ],
    )
    try:
        mail.deliver(settings, message, owner.mail, owner.name)
    except CallhouseError:
        # The history has it, and the DAG fails: an owner who cannot be reached stops nothing.
        return


# ---------------------------------------------------------------- drawing
class _Drawing:
    """One report for one recipient."""

    def __init__(
        self, settings: Settings, report: Report, person: Recipient, due_at: datetime,
        as_of: date | None, folder: Path,
    ) -> None:  # fmt: skip
        self.settings, self.report, self.person, self.folder = settings, report, person, folder
        self.zone = ZoneInfo(person.time_zone)
        self.start, self.end = period(report.period, as_of or due_at.astimezone(self.zone).date())
        self.words = pages.WORDS[person.language]
        self.link = f"{settings.superset_url}/superset/welcome/"
        self.heading, self.annotations = self._heading()

    def draw(self) -> _Drawn:
        """Picture, PDF and rows; CallhouseError where it cannot be drawn."""
        picture = self.folder / f"{self.person.name}.png"
        document = self.folder / f"{self.person.name}.pdf"
        item: dict[str, Any] = {
            "person": self.person.name,
            "language": self.person.language,
            "time_zone": self.person.time_zone,
            "picture": str(picture),
            "document": str(document),
            "heading": self.heading,
        }
        tiles: list[dict[str, Any]] = []
        if self.report.changes:
            item["html"], tiles = self._changes()
        else:
            item |= self._superset()
        told = _browser(self.settings, item)
        return _Drawn(picture.read_bytes(), document.read_bytes(), tiles or told["tiles"])

    def _heading(self) -> tuple[list[str], list[str]]:
        """Title and lines above everything, and what else is known of the days."""
        settings, person, words = self.settings, self.person, self.words
        with _as(settings, person.name) as connection:
            days = connection.execute(
                "select business_day, status, published_at from bi.data_status"
                " where business_day >= %s and business_day < %s order by 1",
                [self.start, self.end],
            ).fetchall()
        published = [row for row in days if row[2] is not None]
        title = self.report.title[person.language]
        lines = [
            f"{title}: {pages.dates(person.language, self.start, self.end)}",
            words["rows_of"].format(label=person.label),
            words["as_of"].format(
                at=pages.moment(max(row[2] for row in published), person.time_zone),
                zone=person.time_zone, published=len(published),
                days=(self.end - self.start).days,
            ) if published else words["not_yet"],
        ]  # fmt: skip
        notes = []
        for status in ("held", "restated"):
            if named := [day for day, found, _ in days if found == status]:
                notes.append(words[status].format(days=pages.ranges(named)))
        return lines + notes, notes

    def _superset(self) -> dict[str, Any]:
        settings, report = self.settings, self.report
        time_range = f"{self.start} : {self.end}"
        words = translation(settings, settings.language, self.person.language)
        if report.chart:
            return {"chart": report.chart, "time_range": time_range, "words": words}
        self.link = f"{settings.superset_url}/superset/dashboard/{report.board}/"
        return {"board": report.board, "time_range": time_range, "words": words,
                "filters": self._filters()}  # fmt: skip

    def _filters(self) -> dict[str, str]:
        """Value of every filter that is set, by its id (of our boards) or its name."""
        file = render.BOARDS / f"{self.report.board}.yaml"
        if not file.exists():
            return dict(self.report.filters)
        board = layout.load(file, self.person.language)
        known = {one.name: one for one in board.filters if one.kind == "value"}
        if unknown := set(self.report.filters) - set(known):
            raise CallhouseError(f"board {board.slug} has no filter {', '.join(sorted(unknown))}")
        chosen: dict[str, str] = {}
        for name, one in known.items():
            value = self.report.filters.get(name)
            if value is None and one.is_first_value_default:
                seen = self._values(one)
                if not seen:
                    # Its board would wait for a choice for ever.
                    raise CallhouseError(
                        f"{self.person.name} sees no row of {one.dataset}, which board "
                        f"{board.slug} is made of"
                    )
                value, *others = seen
                if others:
                    self.heading.append(
                        self.words["one_of"].format(
                            filter=one.title, value=value, others=", ".join(others), name=name
                        )
                    )
            if value is not None:
                chosen[dashboards.filter_id(board, name)] = value
        return chosen

    def _values(self, one: layout.Filter) -> list[str]:
        """Values of the period that this person sees, in order; if there are none, of any time."""
        statement = f'select distinct "{one.column}" from bi."{one.dataset}"'  # noqa: S608
        within = f"{statement} where business_day >= %s and business_day < %s order by 1"
        with _as(self.settings, self.person.name) as connection:
            rows = (
                connection.execute(within.encode(), [self.start, self.end]).fetchall()
                or connection.execute(f"{statement} order by 1 limit 1".encode()).fetchall()
            )
        return [str(value) for (value,) in rows if value is not None]

    def _changes(self) -> tuple[str, list[dict[str, Any]]]:
        before = period("last_month", self.start)
        found = changes.compare(
            self.settings, semantic.load(self.settings), self.person.name, self.report.changes,
            (self.start, self.end), before,
        )  # fmt: skip
        language = self.person.language
        beside = [*self.annotations, *self._noted(), *self._incidents()]
        page = pages.changes_page(
            self.heading[:3], found, beside, language, (self.start, self.end), before
        )
        columns = ["metric", "now", "before", "difference", "p_value", "test"]
        tile = {
            "name": "changes",
            "title": self.report.title[language],
            "kind": "table",
            "columns": columns,
            "labels": [
                self.words["metric"], f"{self.start:%Y-%m}",
                f"{before[0]:%Y-%m}", self.words["difference"], "p", "test",
            ],
            "times": [],
            "rows": [
                [c.label(language), c.now, c.before,
                 None if c.compared is None else c.compared[0] - c.compared[1],
                 c.p_value, self.words[c.test]]
                for c in found if c.now is not None or c.before is not None
            ],
        }  # fmt: skip
        return page, [tile]

    def _noted(self) -> list[str]:
        """Campaigns and whatever else people noted of the month."""
        with _as(self.settings, self.person.name) as connection:
            found = notes.within(connection, (self.start, self.end))
        return [f"{title} ({first:%Y-%m-%d} – {last:%Y-%m-%d})" for title, first, last in found]

    def _incidents(self) -> list[str]:
        """Incidents of capture in the month, for those who may read of them."""
        with _as(self.settings, self.person.name) as connection:
            rows = connection.execute(
                "select device, kind, opened_at, resolved_at from bi.fct_incidents"
                " where opened_at < %s and coalesce(resolved_at, now()) >= %s order by opened_at",
                [datetime.combine(self.end, datetime.min.time(), self.zone),
                 datetime.combine(self.start, datetime.min.time(), self.zone)],
            ).fetchall()  # fmt: skip
        items = ", ".join(
            f"{device} ({kind}, {pages.moment(opened, self.person.time_zone)})"
            for device, kind, opened, _ in rows
        )
        return [self.words["incidents"].format(items=items)] if items else []

    def tables(self, tiles: list[dict[str, Any]]) -> dict[str, bytes]:
        """CSV files of the tiles that the report names, else of its tables, else of all."""
        wanted = set(self.report.rows)
        file = render.BOARDS / f"{self.report.board}.yaml"
        if wanted and file.exists():
            board = layout.load(file, self.settings.language)
            if unknown := wanted - {tile.name for tile in board.tiles}:
                raise CallhouseError(f"board {board.slug} has no tile {', '.join(sorted(unknown))}")
            wanted = {tile.title for tile in board.tiles if tile.name in wanted}
        chosen = [tile for tile in tiles if tile["name"] in wanted] if wanted else [
            tile for tile in tiles if tile["kind"] == "table"
        ] or tiles  # fmt: skip
        found = {}
        for place, tile in enumerate(chosen, start=1):
            title = re.sub(r"\W+", "_", tile["title"]).strip("_")[:40]
            found[f"{self.report.name}_{place}_{title}.csv"] = mail.table(
                tile["columns"], tile["labels"], _in_seconds(tile), tile["times"],
                self.person.time_zone,
            )  # fmt: skip
        return found

    def message(self, drawn: _Drawn, attached: dict[str, bytes], rows: int) -> Any:
        """The mail."""
        words = self.words
        lines = [
            *self.heading,
            *([] if rows else [words["empty"]]),
            words["attached"].format(csv=words["csv"] if attached else ""),
            *([] if attached else [words["no_csv"]]),
            *([words["owner"].format(owner=self.report.owner)] if self.report.owner else []),
        ]
        name = f"{self.report.name}_{self.start}.pdf"
        return mail.compose(
            self.heading[0], lines, (words["link"], self.link), drawn.picture,
            {name: drawn.document, **attached},
        )  # fmt: skip


def _in_seconds(tile: dict[str, Any]) -> list[list[Any]]:
    """Rows of `tile` with seconds where boards show clocks, which read milliseconds."""
    clocks = [str(column).endswith(datasets.CLOCK) for column in tile["columns"]]
    return [
        [
            v / 1000 if is_clock and v is not None else v
            for is_clock, v in zip(clocks, row, strict=True)
        ]
        for row in tile["rows"]
    ]


@contextmanager
def _as(settings: Settings, person: str) -> Iterator[psycopg.Connection]:
    with warehouse.connect_as(settings, person, login_password(settings, person)) as connection:
        yield connection


def browser(settings: Settings) -> str:
    """Path of a Chromium, or CallhouseError."""
    given = settings.environment.get("CALLHOUSE_CHROMIUM")
    found = given or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        raise CallhouseError("no Chromium draws reports: apt-get install chromium fonts-noto-cjk")
    return found


def _browser(settings: Settings, item: dict[str, Any]) -> dict[str, Any]:
    """Have one item drawn by Superset's environment; CallhouseError with what it says."""
    job = {
        "base": f"http://127.0.0.1:{settings.superset_port}",
        "chromium": browser(settings),
        "items": [item],
    }
    problem = "the program that draws reports said nothing"
    for _ in range(ATTEMPTS):
        try:
            result = subprocess.run(
                [settings.superset_bin / "python", _SCRIPT],
                input=json.dumps(job), capture_output=True, text=True, check=False,
                timeout=SECONDS_EACH, cwd=settings.home,
                env=components.component_environment(settings, "superset"),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            problem = f"it was not drawn within {SECONDS_EACH} s"
            continue
        except OSError as error:
            raise CallhouseError(f"Superset's environment is missing: {error}") from None
        try:
            told: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            lines = result.stderr.strip().splitlines()
            problem = lines[-1][:300] if lines else problem
            continue
        if "problem" not in told:
            return told
        problem = str(told["problem"])
    raise CallhouseError(problem)


# ---------------------------------------------------------------- words
def translation(settings: Settings, known: str, wanted: str) -> dict[str, str]:
    """Words of boards, charts and datasets in language `known`, and what they are in `wanted`.

    Boards are imported in one language; a recipient may read the other.
    """
    if known == wanted:
        return {}
    catalogue = semantic.load(settings)
    pairs: dict[str, str] = {}
    other = render.bundle(catalogue, wanted)
    for path, text in render.bundle(catalogue, known).items():
        _pair(yaml.load(text, Loader=_LOADER), yaml.load(other[path], Loader=_LOADER), pairs)  # noqa: S506
    return pairs


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _pair(one: Any, other: Any, pairs: dict[str, str]) -> None:
    """Texts that differ at the same place; of two translations of a text the first counts."""
    if isinstance(one, dict) and isinstance(other, dict):
        # Keys may be words, too: colours are told by label.
        for (key, value), (other_key, other_value) in zip(one.items(), other.items(), strict=False):
            _pair(key, other_key, pairs)
            _pair(value, other_value, pairs)
    elif isinstance(one, list) and isinstance(other, list):
        for value, other_value in zip(one, other, strict=False):
            _pair(value, other_value, pairs)
    elif isinstance(one, str) and isinstance(other, str) and one != other and one[:1] not in "{[":
        pairs.setdefault(one, other)


# ---------------------------------------------------------------- managing
def pause(settings: Settings, name: str, by: str) -> None:
    """Send nothing of report `name` until it is resumed; what was due meanwhile is not sent."""
    definitions.find(settings, name)
    with warehouse.connect(settings) as connection:
        connection.execute(
            "insert into ops.report_pauses (report, paused_at, paused_by)"
            " values (%s, now(), %s) on conflict (report) do update"
            " set paused_at = now(), paused_by = excluded.paused_by, resumed_at = null",
            [name, by],
        )


def resume(settings: Settings, name: str) -> None:
    """Send report `name` again, from the next time that it is due."""
    with warehouse.connect(settings) as connection:
        connection.execute(
            "update ops.report_pauses set resumed_at = now()"
            " where report = %s and resumed_at is null",
            [name],
        )


def listed(settings: Settings) -> list[dict[str, Any]]:
    """Every report with its schedule, recipients and whether it is paused, for people."""
    with warehouse.connect(settings) as connection:
        rows = []
        for report in definitions.load(settings).values():
            paused_at, resumed_at = _pause(connection, report.name)
            is_paused = paused_at is not None and resumed_at is None
            state = "paused" if is_paused else "sending" if report.recipients else "template"
            rows.append(
                {
                    "report": report.name, "state": state, "title": report.title["en"],
                    "shows": report.shows, "period": report.period,
                    "schedule": report.schedule.sentence(), "owner": report.owner,
                    "recipients": list(report.recipients),
                }
            )  # fmt: skip
    return rows


HISTORY = ("report", "person", "due_at", "status", "started_at", "ended_at", "row_count",
           "is_export", "detail")  # fmt: skip


def history(settings: Settings, name: str | None = None) -> list[dict[str, Any]]:
    """What was due and what became of it, the newest first."""
    with warehouse.connect(settings) as connection:
        rows = connection.execute(
            f"select {', '.join(HISTORY)} from ops.report_sends"  # noqa: S608
            " where %(name)s::text is null or report = %(name)s"
            " order by started_at desc, send_id desc limit 1000".encode(),
            {"name": name},
        ).fetchall()
    return [dict(zip(HISTORY, row, strict=True)) for row in rows]


def summary(settings: Settings) -> dict[str, Any]:
    """For `status`: how many mails go out regularly, where to, and what became of the last ones."""
    server = settings.mail_server
    with warehouse.connect(settings) as connection:
        counts = dict(
            connection.execute(
                "select status, count(*) from ops.report_sends"
                " where started_at > now() - interval '7 days' and status <> 'subscribed'"
                " group by status"
            ).fetchall()
        )
    sending = [report for report in definitions.load(settings).values() if report.recipients]
    return {
        "mail_server": f"{server.host}:{server.port}" if server else None,
        "kept_in": None if server else str(mail.directory(settings)),
        "subscriptions": sum(len(report.recipients) for report in sending),
        "last_seven_days": counts,
    }


def sentence(found: dict[str, Any]) -> str:
    """`summary` for people."""
    counts = ", ".join(f"{number} {status}" for status, number in found["last_seven_days"].items())
    server, folder = found["mail_server"], found["kept_in"]
    where = f"mailed by {server}" if server else f"no mail server, kept in {folder}"
    return (
        f"reports: {found['subscriptions']} subscriptions, {where}; "
        f"last seven days {counts or 'none'}"
    )
