"""The command line. Every command is a thin wrapper: parse, call the package, print.

Exit codes: 0 well · 1 a problem, told in one sentence · 2 wrong usage · 3 done, but something needs
a person (a refused file, a held day, an unhealthy component, a failed expectation).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pwd
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from callhouse import cli_alerts, cli_callers, cli_reports, cli_reviews, cli_staging
from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.settings import Settings

NEEDS_A_PERSON = 3

app = typer.Typer(
    help="Callhouse: the call-centre data warehouse.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
access = typer.Typer(help="People, what they may see, and their logins.", no_args_is_help=True)
app.add_typer(access, name="access")
quarantine = typer.Typer(help="Rows that could not be read.", no_args_is_help=True)
app.add_typer(quarantine, name="quarantine")
capture = typer.Typer(help="Who delivers: health, incidents, heartbeats.", no_args_is_help=True)
app.add_typer(capture, name="capture")
audit_trail = typer.Typer(help="Who looked at what.", no_args_is_help=True)
app.add_typer(audit_trail, name="audit-trail")
app.add_typer(cli_callers.callers, name="callers")
app.add_typer(cli_alerts.alert, name="alert")
access.command("unmask")(cli_callers.unmask)
app.add_typer(cli_reports.reports, name="report")
app.add_typer(cli_reports.annotate, name="annotate")
app.add_typer(cli_reviews.review, name="review")
app.add_typer(cli_staging.staging, name="staging")
access.command("contact")(cli_reports.contact)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _say(line: str) -> None:
    """A progress line: plain, at once, on stderr, so that stdout stays data."""
    print(line, file=sys.stderr, flush=True)


def _progress(name: str, rows: int, share: float) -> None:
    _say(f"{name}: {rows} rows, {share:.0%}")


def _jsonable(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(type(value).__name__)


def _print_json(value: Any) -> None:
    print(json.dumps(value, default=_jsonable, ensure_ascii=False, indent=2))


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if not sys.stdout.isatty():
        print("\t".join(columns))
        for row in rows:
            print("\t".join("" if cell is None else _cell(cell) for cell in row))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*("" if cell is None else _cell(cell) for cell in row))
    Console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, Decimal | float):
        text = f"{float(value):.4f}"
        return text.rstrip("0").rstrip(".")
    return value.isoformat() if isinstance(value, datetime | date) else str(value)


def _settings() -> Settings:
    return settings_module.load()


@app.command()
def up() -> None:
    """Install, start everything, load sample calls, and print addresses and logins."""
    from callhouse import demo, runner

    settings = _settings()
    demo.declare(settings)
    runner.up(settings, _say)
    demo.load(settings, _say)
    print()
    for name, address in runner.status(settings).addresses.items():
        print(f"{name + ':':<10} {address}")
    for login in demo.logins(settings):
        print(f"{login.product + ':':<10} {login.user} / {login.password}   {login.label}")


@app.command()
def down() -> None:
    """Stop everything that `up` started. Data stays."""
    from callhouse import runner

    runner.down(_settings(), _say)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Health of the components, addresses, freshness and the state of the data."""
    from callhouse import capture as capturing
    from callhouse import reports as reporting
    from callhouse import runner
    from callhouse.alerts import state as alerting
    from callhouse.live import exchanges
    from callhouse.transform import state

    settings = _settings()
    current = runner.status(settings)
    database = {c.name: c.healthy for c in current.components}.get("postgres", False)
    data = state.data_state(settings) if database else {}
    watched = (
        {
            "capture": capturing.summary(settings),
            "alerts": alerting.summary(settings),
            "reports": reporting.summary(settings),
            "exchanges": exchanges.problems(settings),
        }
        if database
        else {}
    )
    if as_json:
        _print_json({**dataclasses.asdict(current), "healthy": current.healthy, **data, **watched})
    else:
        _print_table(
            ("component", "healthy", "detail"),
            [(c.name, "yes" if c.healthy else "NO", c.detail) for c in current.components],
        )
        for name, address in current.addresses.items():
            print(f"{name}: {address}")
        print(f"time zone: {current.time_zone}")
        for line in state.sentences(data) if data else ["data: no warehouse to ask"]:
            print(line)
        if watched:
            print(capturing.sentence(watched["capture"]))
            print(alerting.sentence(watched["alerts"]))
            print(reporting.sentence(watched["reports"]))
            for feed, problem in watched["exchanges"].items():
                print(f"exchange of {feed}: {problem or 'is listened to'}")
    if not current.healthy:
        raise typer.Exit(NEEDS_A_PERSON)


@app.command()
def doctor() -> None:
    """Check the set-up and say how to mend what is wrong."""
    from callhouse import runner

    findings = runner.doctor(_settings())
    for finding in findings:
        print(f"{'ok ' if finding.ok else 'FIX'} {finding.name}: {finding.detail}")
        if finding.fix:
            print(f"    → {finding.fix}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(NEEDS_A_PERSON)


@app.command()
def land(
    source: Annotated[str, typer.Argument(help="Feed name, such as sample_hotline.")],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files (plain or .gz), folders, s3://bucket/prefix, a table or a paged interface; "
            "none: what is due at the feed's locations."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Land files as the DAGs do: every row is staged, quarantined or a duplicate."""
    from callhouse import landing

    results = landing.land(_settings(), source, paths or [], progress=_progress)
    if as_json:
        _print_json([dataclasses.asdict(r) for r in results])
    else:
        _print_table(
            ("file", "record", "status", "read", "staged", "quarantined", "duplicates"),
            [
                (r.name, r.record, r.status, r.read, r.staged, r.quarantined, r.duplicates)
                for r in results
            ],
        )
        for result in results:
            for note in (*result.notes, *((result.reason,) if result.reason else ())):
                print(f"{result.name}: {note}")
    if any(r.status in ("refused", "unfinished") for r in results):
        raise typer.Exit(NEEDS_A_PERSON)


@app.command()
def collect(
    names: Annotated[
        list[str] | None, typer.Argument(help="Feeds with `tail`, or ami:// as location; all.")
    ] = None,
) -> None:
    """Follow logs and listen to exchanges, until SIGTERM or Ctrl-C."""
    import signal
    import threading

    from callhouse.live import collectors

    found = collectors.configured(_settings(), names or [], say=_say)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    for collector in found:
        _say(f"{collector.name}: follows {collector.follows}")
    collectors.collect(_settings(), found, stop, _say)


@app.command()
def receive() -> None:
    """Listen for records that are pushed to feeds with `receive`, until SIGTERM or Ctrl-C."""
    import signal
    import threading

    from callhouse.live import receiver

    settings = _settings()
    found = receiver.intakes(settings, say=_say)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    for intake in found:
        _say(f"{intake.name}: http://{settings.host}:{settings.receiver_port}{intake.path}")
    receiver.serve(settings, found, stop, _say)


live_lane = typer.Typer(help="What is true on the floor now.", no_args_is_help=True)
app.add_typer(live_lane, name="live")


@live_lane.command("rebuild")
def live_rebuild(
    sources: Annotated[
        list[str] | None, typer.Argument(help="Sources that a collector brings; all of them.")
    ] = None,
) -> None:
    """Work the state of the floor out from staging: it is then what it was, or should have been."""
    from callhouse.live import state

    state.install(_settings(), _say)
    for source, visits in state.rebuild(_settings(), sources or []).items():
        print(f"{source}: {visits} queue visits of today and yesterday")


@live_lane.command("secret")
def live_secret(
    feed: Annotated[str, typer.Argument(help="A feed with `receive` in its YAML.")],
) -> None:
    """Print the secret that a sender signs with, or sends as its API key; made at first use."""
    from callhouse.live import signing
    from callhouse.sources import registry

    if not registry.receive(registry.feed(_settings(), feed)):
        raise CallhouseError(f"feed {feed} receives nothing: add `receive: signed` to its YAML")
    print(_settings().secret(signing.secret_name(feed)))


@app.command()
def transform(
    full: Annotated[bool, typer.Option("--full", help="Rebuild every day ever landed.")] = False,
    days: Annotated[
        str | None, typer.Option("--days", help="Rebuild a day or a range FROM..TO (inclusive).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build, audit and publish the days that landing has marked dirty."""
    from callhouse import transform as transforming

    settings = _settings()
    transforming.prepare(settings, _say)
    if full:
        transforming.mark(settings, None, "transform --full")
        transforming.mark_followups(settings, None, "transform --full")
    if days:
        transforming.mark(settings, _days(days), "transform --days")
        transforming.mark_followups(settings, _days(days), "transform --days")
    outcome = transforming.drain(settings, _say)
    builds = (*outcome.builds, *outcome.followups)
    held = {day: reason for b in outcome.builds for day, reason in b.held_days.items()}
    held_followups = {day: reason for b in outcome.followups for day, reason in b.held_days.items()}
    if as_json:
        _print_json(
            {
                "published_days": outcome.published_days,
                "followed_up_days": outcome.followed_up_days,
                "inserted_rows": sum(b.inserted_rows for b in builds),
                "deleted_rows": sum(b.deleted_rows for b in builds),
                "held_days": {day.isoformat(): reason for day, reason in held.items()},
                "held_followups": {
                    day.isoformat(): reason for day, reason in held_followups.items()
                },
                "problems": outcome.problems,
            }
        )
    else:
        changed = sum(b.inserted_rows + b.deleted_rows for b in builds)
        print(
            f"{outcome.published_days} days published, {outcome.followed_up_days} followed up, "
            f"{changed} rows changed"
        )
        for day, reason in held.items():
            print(f"held {day}: {reason}")
        for day, reason in held_followups.items():
            print(f"held follow-ups of {day}: {reason}")
        for problem in outcome.problems:
            print(f"failed: {problem}")
    if held or held_followups or outcome.problems:
        raise typer.Exit(NEEDS_A_PERSON)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CallhouseError(f"{text!r} is no date: write it as 2026-10-05") from None


def _days(text: str) -> list[date]:
    first, _, last = text.partition("..")
    start, end = _day(first), _day(last or first)
    if end < start:
        raise CallhouseError(f"--days {text}: the range ends before it begins")
    return [date.fromordinal(n) for n in range(start.toordinal(), end.toordinal() + 1)]


@app.command()
def audit(as_json: AsJson = False) -> None:
    """Run the expectations on what is staged and published; exit code 3 where one fails."""
    from callhouse import quality

    outcome = quality.audit_published(_settings(), _say)
    if as_json:
        _print_json([dataclasses.asdict(r) for r in outcome.results])
    else:
        _print_table(
            ("suite", "expectation", "column", "severity", "result", "observed"),
            [
                (r.suite, r.expectation, r.column_name, r.severity,
                 "ok" if r.is_success else "FAILED", r.observed)
                for r in outcome.results
            ],
        )  # fmt: skip
        print(f"Data Docs: {outcome.data_docs}")
    if any(not r.is_success and r.severity == "fail" for r in outcome.results):
        raise typer.Exit(NEEDS_A_PERSON)


@app.command()
def release(
    day: Annotated[str, typer.Argument(help="A day that `status` lists as held.")],
    reason: Annotated[str, typer.Option("--reason", help="Why its numbers are right.")],
    followups: Annotated[
        bool, typer.Option("--followups", help="The follow-ups of the day, not its calls.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let a held day be published as it was built; the reason stays with it."""
    from callhouse.transform import releases

    lane = "followups" if followups else "facts"
    found = releases.release(_settings(), _day(day), reason, _account(), lane)
    if as_json:
        _print_json(found._asdict())
    else:
        print(
            f"{found.business_day} {found.sentence}; lets through {', '.join(found.expectations)}"
        )
        print("it is published by the next run, or now: ./callhouse transform")


@app.command()
def metric(
    names: Annotated[list[str] | None, typer.Argument(help="Metrics; none lists them.")] = None,
    by: Annotated[list[str] | None, typer.Option("--by", help="Dimensions to group by.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="First business day.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Day after the last one.")] = None,
    where: Annotated[list[str] | None, typer.Option("--where", help="DIM=VALUE.")] = None,
    person: Annotated[str | None, typer.Option("--as", help="Ask with this login.")] = None,
    as_json: AsJson = False,
) -> None:
    """Answer saved metrics by dimensions, with the expressions that the dashboards use."""
    from callhouse import semantic
    from callhouse.semantic import query

    settings = _settings()
    catalogue = semantic.load(settings)
    if not names and not by:
        _print_table(
            ("metric", "label", "dimensions from"),
            [(m.name, m.label_en, m.relation) for m in catalogue.metrics.values()],
        )
        return
    question = query.Question(
        metrics=tuple(_split(names)),
        by=tuple(_split(by)),
        start=_day(start) if start else None,
        end=_day(end) if end else None,
        where=tuple(query.condition(text) for text in where or ()),
    )
    columns, rows = query.ask(settings, catalogue, question, person)
    if as_json:
        _print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        _print_table(columns, rows)


def _split(values: Sequence[str] | None) -> list[str]:
    return [part for value in values or () for part in value.split(",") if part]


@app.command()
def psql(
    command: Annotated[str | None, typer.Option("-c", help="Run one statement.")] = None,
    person: Annotated[str | None, typer.Option("--as", help="Use this person's login.")] = None,
) -> None:
    """SQL on the warehouse; with --as the rows are those the person may see."""
    from callhouse import security
    from callhouse.runner import postgres

    settings = _settings()
    user = security.check_person(person) if person else "callhouse_pipeline"
    password = (
        security.login_password(settings, person)
        if person
        else settings.secret("callhouse_pipeline_password")
    )
    binaries = postgres.find_binaries(settings)
    client = str(binaries.directory / "psql") if binaries else "psql"
    arguments = [client, "-h", settings.database_host, "-p", str(settings.postgres_port),
                 "-U", user, "-d", "callhouse", "-v", "ON_ERROR_STOP=1"]  # fmt: skip
    if command:
        arguments += ["-c", command]
    environment = {**os.environ, "PGPASSWORD": password}
    if not person:
        # People's logins have it anyway.
        options = os.environ.get("PGOPTIONS", "")
        environment["PGOPTIONS"] = f"{options} -c log_min_duration_statement=0"
        environment["PGAPPNAME"] = f"callhouse psql {_account()}"
    _note(sys.argv[1:], "started")  # psql takes the place of this process
    try:
        os.execvpe(client, arguments, environment)  # noqa: S606
    except FileNotFoundError:
        raise CallhouseError("no psql here: install postgresql-client") from None


@app.command()
def simulate(
    directory: Annotated[
        Path | None,
        typer.Argument(help="Where to write calls and truth; with --live the log (else the home)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same files.")] = 42,
    start: Annotated[str, typer.Option("--from", help="First day.")] = "2026-10-05",
    days: Annotated[int, typer.Option(help="How many days.", min=1)] = 35,
    calls_per_day: Annotated[int, typer.Option(help="On a usual weekday.", min=1)] = 3000,
    dirt: Annotated[bool, typer.Option(help="Damage some rows, and write down which.")] = True,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="delimited (the default), queue_log, cdr, cel, connect, carrier; repeatable.",
        ),
    ] = None,
    is_live: Annotated[
        bool,
        typer.Option("--live", help="Play days into a queue_log as they happen, until Ctrl-C."),
    ] = False,
    speed: Annotated[
        float, typer.Option(help="With --live: how fast time goes.", min=0.1, max=100)
    ] = 1.0,
    into: Annotated[
        str | None,
        typer.Option(
            "--into",
            help="With --live: a feed with `receive` to push the lines to, signed, or one with an "
            "ami:// address of this machine, whose exchange it plays.",
        ),
    ] = None,
) -> None:
    """Write seeded sample calls and, apart from them, the truth about them."""
    from callhouse import simulate as simulation

    if is_live:
        _play(directory or _settings().home / ("pushed" if into else "live"), speed, into)
        return
    if directory is None:
        raise typer.BadParameter("name the folder to write to")
    result = simulation.write(
        directory,
        seed=seed,
        start=_day(start),
        days=days,
        calls_per_day=calls_per_day,
        dirt=dirt,
        formats=formats or ("delimited",),
        progress=_say,
    )
    for name in formats or ("delimited",):
        rendering = result.renderings.get(name)
        print(f"{name}: {len(rendering.files if rendering else result.call_files)} files")
    print(f"truth: {result.truth}")


def _play(directory: Path, speed: float, into: str | None) -> None:
    import signal
    import threading

    from callhouse.live import exchanges, signing
    from callhouse.simulate import live, manager
    from callhouse.sources import registry

    settings, stop = _settings(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    push = None
    if into and (address := registry.listens(registry.feed(settings, into))):
        secret = settings.secret(exchanges.secret_name(into))
        with manager.serving(address, secret) as exchange:
            _say(f"{into}: serves {address}, and waits for the collector")
            live.play(directory, speed, stop, _say, live.teller(exchange, stop))
        return
    if into:
        url = f"http://127.0.0.1:{settings.receiver_port}/v1/events/{into}"
        push = live.pusher(url, settings.secret(signing.secret_name(into)), stop, _say)
    live.play(directory, speed, stop, _say, push)


@app.command()
def render(
    check: Annotated[bool, typer.Option("--check", help="Only compare, write nothing.")] = False,
) -> None:
    """Render Superset's datasets, charts and dashboards from the dbt manifest."""
    from callhouse import bi

    changed = bi.render_committed(_settings(), check=check)
    for path in changed:
        print(f"{'differs' if check else 'written'}: {path}")
    if check and changed:
        raise typer.Exit(NEEDS_A_PERSON)


@app.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def mf(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """MetricFlow on the published marts, e.g. `mf query --metrics calls_offered`."""
    from callhouse.transform import dbt

    settings = _settings()
    environment = dbt.metricflow_environment(settings)
    program = settings.pipeline_bin / "mf"
    os.chdir(environment["DBT_PROJECT_DIR"])
    os.execve(program, [str(program), *(arguments or [])], environment)  # noqa: S606


@app.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def airflow(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Airflow's own command line on this instance, e.g. `airflow backfill create`."""
    from callhouse.runner import components

    settings = _settings()
    program = settings.pipeline_bin / "airflow"
    environment = components.component_environment(settings, "airflow")
    os.execve(program, [str(program), *(arguments or [])], environment)  # noqa: S606


@app.command()
def docs(
    directory: Annotated[
        Path | None, typer.Argument(help="Where to write; default: docs in the home.")
    ] = None,
) -> None:
    """Write the dictionary and the metric catalogue from the dbt project."""
    from callhouse import semantic
    from callhouse.semantic import documentation

    settings = _settings()
    for file in documentation.write(semantic.load(settings), directory or settings.home / "docs"):
        print(file)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(context: typer.Context) -> None:
    """Run the benchmarks of tests/bench against the saved figures; arguments go to pytest.

    `-k landing` runs some of them, `--save-baseline` keeps the figures of this run.
    """
    settings = _settings()
    benchmarks = settings.repository / "tests" / "bench"
    if not benchmarks.is_dir():
        raise CallhouseError("benchmarks are in a checkout only: clone the repository")
    # pytest is among the tools for tests, which nothing else here needs.
    installed = subprocess.run(
        [settings.repository / "requirements" / "install", "dev"], check=False
    )
    if installed.returncode:
        raise typer.Exit(installed.returncode)  # it has said why
    command = [str(settings.dev_bin / "python"), "-m", "pytest", "-s", "-q",
               "-p", "no:cacheprovider", str(benchmarks), *context.args]  # fmt: skip
    os.execv(command[0], command)  # noqa: S606


@access.command("list")
def access_list(
    history: Annotated[bool, typer.Option("--history", help="Also what has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Everyone and what they may see now."""
    from callhouse import warehouse

    with warehouse.connect(_settings()) as connection:
        rows = connection.execute(
            "select p.person, p.label, p.level, array_to_string(p.rights, ' '), e.scope_type,"
            " e.scope_id, e.mask_level, lower(e.valid), upper(e.valid), e.granted_by, e.reason,"
            " e.revoked_by, e.revoke_reason, p.closed_at"
            " from sec.people as p left join sec.entitlement as e"
            " on p.person = e.person and (%s or e.valid @> statement_timestamp())"
            " where %s or p.closed_at is null order by 1, 5, 6, 8",
            [history, history],
        ).fetchall()
    columns = (
        "person", "label", "level", "rights", "scope_type", "scope_id", "mask_level", "valid_from",
        "valid_to", "granted_by", "reason", "revoked_by", "revoke_reason", "closed_at",
    )  # fmt: skip
    if as_json:
        _print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif history:
        _print_table(columns, rows)
    else:
        shown = [i for i, name in enumerate(columns) if not name.startswith(("revoke", "closed"))]
        _print_table([columns[i] for i in shown], [[row[i] for i in shown] for row in rows])


@access.command("grant")
def access_grant(
    person: Annotated[str, typer.Argument(help="Name of the login: a-z, 0-9 and _.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the grant.")],
    scopes: Annotated[
        list[str] | None,
        typer.Argument(
            help="all, or region=ID, team=ID, queue=ID, agent=ID; ID may be SOURCE/ID.",
            metavar="[SCOPE]…",
        ),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(
            "--level",
            help="agent, lead, manager, executive, analyst, engineer or auditor; new: manager.",
        ),
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="Name for people.")] = None,
    right: Annotated[
        list[str] | None, typer.Option("--right", help="export, edit or admin; again for more.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--until", help="Day on which the scopes end.")
    ] = None,
) -> None:
    """Let a person see more; makes the logins of someone new."""
    from callhouse import bi, security
    from callhouse.security import people

    settings = _settings()
    with people.server(settings) as connection:
        try:
            known = people.find(connection, security.check_person(person))
        except CallhouseError:
            known = people.Person(security.check_person(person), person, ())
        ends = until.astimezone() if until else None
        granted = dataclasses.replace(
            known,
            label=label or known.label,
            level=level or known.level,
            rights=tuple(right) if right else known.rights,
            scopes=tuple(people.parse_scope(scope) for scope in scopes or ()),
            until=ends,
        )
        people.ensure(settings, connection, granted, by=_account(), reason=reason)
        now = people.find(connection, person)
        shared = people.shared_ids(connection, granted.scopes)
    for sentence in shared:
        print(f"note: {sentence}")
    print(f"{person} ({now.level}) sees " + (_scopes(now.scopes) or "no call"))
    print(bi.synchronise_people(settings))
    print(f"superset: {person} / {security.web_password(settings, person)}")


@access.command("revoke")
def access_revoke(
    person: Annotated[str, typer.Argument(help="Someone of `access list`.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the grant.")],
    scopes: Annotated[
        list[str] | None, typer.Argument(help="As granted; none: all of them.", metavar="[SCOPE]…")
    ] = None,
    close: Annotated[
        bool, typer.Option("--close", help="The person left: end the logins too.")
    ] = False,
) -> None:
    """Take scopes away, at once; open sessions end."""
    from callhouse import bi
    from callhouse.security import people

    settings = _settings()
    wanted = [people.parse_scope(scope) for scope in scopes] if scopes else None
    with people.server(settings) as connection:
        if close:
            people.close(connection, person, _account(), reason)
            print(f"{person} is closed")
        else:
            ended = people.revoke(connection, person, wanted, _account(), reason)
            print(f"{person} no longer sees {_scopes(ended) or 'anything'}")
    print(bi.synchronise_people(settings))


@access.command("explain")
def access_explain(
    person: Annotated[str, typer.Argument(help="Someone of `access list`.")],
    call_key: Annotated[str, typer.Argument(help="call_key of fct_calls.")],
    as_json: AsJson = False,
) -> None:
    """Why a person sees a call, or does not; 3 if they do not."""
    from callhouse.security import people

    answer = people.explain(_settings(), person, call_key)
    if as_json:
        _print_json(dataclasses.asdict(answer))
    else:
        print(answer.sentence)
        for line in answer.because:
            print(f"- {line}")
    if not answer.is_seen:
        raise typer.Exit(NEEDS_A_PERSON)


@access.command("sync")
def access_sync(
    file: Annotated[
        Path | None, typer.Argument(help="YAML or CSV; default: CALLHOUSE_ACCESS_FILE.")
    ] = None,
) -> None:
    """Make people and what they may see agree with a file of version control."""
    from callhouse import bi
    from callhouse.security import people

    settings = _settings()
    path = file or settings.access_file
    if path is None:
        raise CallhouseError("name a file, or set CALLHOUSE_ACCESS_FILE")
    changes = people.synchronise(settings, path, _account())
    for line in changes:
        print(line)
    print(bi.synchronise_people(settings) if changes else "nothing has changed")


def _scopes(scopes: Sequence[tuple[str, str]]) -> str:
    return ", ".join("all calls" if kind == "all" else f"{kind} {name}" for kind, name in scopes)


@access.command("login")
def access_login(
    person: Annotated[str, typer.Argument(help="Someone of `access list`.")],
) -> None:
    """Print the address with which a person's own tools (psql, DBeaver, pandas) connect."""
    from callhouse import security, warehouse

    settings = _settings()
    password = security.login_password(settings, security.check_person(person))
    with warehouse.connect_as(settings, person, password):
        host = f"{settings.database_host}:{settings.postgres_port}"
    print(f"postgresql://{person}:{password}@{host}/callhouse")


@app.command()
def retention(
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove personal data that is older than its class is kept; 3 where some could not be."""
    from callhouse.security import retention as kept

    outcomes = kept.apply(_settings(), _account(), is_dry=is_dry)
    if as_json:
        _print_json({"dry_run": is_dry, "classes": [dataclasses.asdict(o) for o in outcomes]})
    else:
        _print_table(
            ("class", "days", "since", "older than", "would go" if is_dry else "went", "problem"),
            [
                (o.name, o.days or kept.FOREVER, o.since, o.until and f"{o.until:%Y-%m-%d %H:%M}",
                 f"{o.removed} {o.counted_in}" if o.days else "", o.problem)
                for o in outcomes
            ],
        )  # fmt: skip
    if any(outcome.problem for outcome in outcomes):
        raise typer.Exit(NEEDS_A_PERSON)


@quarantine.command("list")
def quarantine_list(
    source: Annotated[str | None, typer.Option("--source", help="Only of this source.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Only with this code.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="First day of landing.")] = None,
    as_json: AsJson = False,
) -> None:
    """Open rows by trouble, and what became of every row read; 3 if some are unaccounted for."""
    from callhouse.landing import quarantine as kept

    settings = _settings()
    ledgers = kept.ledger(settings, source)
    groups = kept.groups(settings, source, reason, _day(since) if since else None)
    if as_json:
        _print_json(
            {
                "groups": [dataclasses.asdict(group) for group in groups],
                "ledger": [
                    {**dataclasses.asdict(item), "is_balanced": item.is_balanced}
                    for item in ledgers
                ],
            }
        )
    else:
        _print_table(
            ("source", "record", "reason", "column", "rows", "newest unit", "example"),
            [dataclasses.astuple(group) for group in groups],
        )
        for item in ledgers:
            print(item.sentence)
    if not all(item.is_balanced for item in ledgers):
        raise typer.Exit(NEEDS_A_PERSON)


@quarantine.command("show")
def quarantine_show(
    place: Annotated[str, typer.Argument(help="UNIT or UNIT:LINE.", metavar="UNIT[:LINE]")],
    as_json: AsJson = False,
) -> None:
    """The rows of a unit, masked, each with its reason and what was decided about it."""
    from callhouse.landing import quarantine as kept

    unit, colon, line = place.partition(":")
    if not (unit.isascii() and unit.isdigit()) or (
        colon and not (line.isascii() and line.isdigit())
    ):
        raise CallhouseError(f"{place!r} is no row: write UNIT or UNIT:LINE, such as 12:7")
    rows = kept.show(_settings(), int(unit), int(line) if colon else None)
    if as_json:
        _print_json([dataclasses.asdict(row) for row in rows])
        return
    _print_table(
        ("line", "state", "code", "reason", "preview"),
        [
            (
                row.line_number,
                f"discarded by {row.discarded_by}: {row.discard_reason}"
                if row.discarded_at
                else f"replayed by {row.replayed_by}: {row.replayed_as}"
                if row.replayed_at
                else "open",
                row.reason_code,
                row.reason,
                row.preview,
            )
            for row in rows
        ],
    )


@quarantine.command("discard")
def quarantine_discard(
    unit: Annotated[int, typer.Option("--unit", help="As `quarantine list` names it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why no one needs to read it.")],
    line: Annotated[int | None, typer.Option("--line", help="Only this line.")] = None,
    as_json: AsJson = False,
) -> None:
    """Close open rows: they stay stored, with who closed them, when and why."""
    from callhouse.landing import quarantine as kept

    closed = kept.discard(_settings(), unit, line, reason, _account())
    if as_json:
        _print_json({"unit": unit, "line": line, "discarded": closed})
    else:
        print(f"{closed} rows of unit {unit} discarded")


@quarantine.command("replay")
def quarantine_replay(
    source: Annotated[str | None, typer.Option("--source", help="Only of this source.")] = None,
    unit: Annotated[int | None, typer.Option("--unit", help="Only of this unit.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Only with this code.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read open rows again with the mappings of today; 3 if some could not even be tried."""
    from callhouse.landing import quarantine as kept
    from callhouse.landing import replay

    settings = _settings()
    kept.ledger(settings, source)  # a source that nobody knows is a problem
    results = replay.replay(settings, _account(), source, unit, reason, is_dry=dry_run)
    touched = {result.source for result in results}
    ledgers = [item for item in kept.ledger(settings) if item.source in touched]
    if as_json:
        _print_json(
            {
                "dry_run": dry_run,
                "units": [dataclasses.asdict(result) for result in results],
                "ledger": [dataclasses.asdict(item) for item in ledgers],
            }
        )
    else:
        _print_table(
            ("unit", "source", "file", "tried", "staged", "duplicates", "still open", "cut off"),
            [
                (r.unit_id, r.source, r.file, r.tried, r.staged, r.duplicates, r.unreadable,
                 r.cut_off)
                for r in results
            ],
        )  # fmt: skip
        for result in results:
            if result.problem:
                print(result.problem)
        for item in ledgers:
            print(item.sentence)
        if not results:
            print("no open row fits: `quarantine list` shows them")
        elif dry_run:
            print("nothing is changed: this was a dry run")
        elif any(result.staged for result in results):
            print("the days are built by the next run, or now: ./callhouse transform")
    if any(result.problem for result in results) or not all(item.is_balanced for item in ledgers):
        raise typer.Exit(NEEDS_A_PERSON)


@capture.command("status")
def capture_status(as_json: AsJson = False) -> None:
    """Every device as it was last found; 3 where one is in trouble."""
    from callhouse import capture as capturing

    settings = _settings()
    rows = capturing.status(settings)
    if as_json:
        _print_json(rows)
    else:
        columns = ("device", "device_kind", "owner", "status", "heartbeat_at", "newest_event_at",
                   "detail")  # fmt: skip
        _print_table(columns, [[row[name] for name in columns] for row in rows])
        print(capturing.sentence(capturing.summary(settings)))
    if any(row["status"] == "incident" for row in rows):
        raise typer.Exit(NEEDS_A_PERSON)


@capture.command("check")
def capture_check(as_json: AsJson = False) -> None:
    """Look at every device now, as the DAG does every minute; 3 where an incident opens."""
    from callhouse import capture as capturing

    outcome = capturing.watch(_settings())
    if as_json:
        _print_json(dataclasses.asdict(outcome))
    else:
        for word in ("opened", "escalated", "resolved"):
            for incident in getattr(outcome, word):
                print(f"{word}: {incident.sentence}")
        for problem in outcome.problems:
            print(f"not watched: {problem}")
    if outcome.opened or outcome.escalated or outcome.problems:
        raise typer.Exit(NEEDS_A_PERSON)


@capture.command("incidents")
def capture_incidents(
    with_resolved: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """What is open, the newest first; 3 where nobody has acknowledged one."""
    from callhouse import capture as capturing

    found = capturing.incidents(_settings(), with_resolved=with_resolved)
    if as_json:
        _print_json([dataclasses.asdict(incident) for incident in found])
    else:
        _print_table(
            ("incident", "device", "kind", "status", "owner", "opened", "came late", "detail"),
            [
                (i.incident_id, i.device, i.kind, i.status, i.owner, i.opened_at,
                 i.back_filled_rows, i.detail)
                for i in found
            ],
        )  # fmt: skip
    if any(incident.status == "open" for incident in found):
        raise typer.Exit(NEEDS_A_PERSON)


@capture.command("ack")
def capture_ack(
    incident: Annotated[int, typer.Argument(help="As `capture incidents` numbers it.")],
    as_json: AsJson = False,
) -> None:
    """Take an incident up: it is no longer escalated."""
    from callhouse import capture as capturing

    found = capturing.acknowledge(_settings(), incident, _account())
    if as_json:
        _print_json(dataclasses.asdict(found))
    else:
        print(f"acknowledged by {found.acknowledged_by}: {found.sentence}")


@capture.command("resolve")
def capture_resolve(
    incident: Annotated[int, typer.Argument(help="As `capture incidents` numbers it.")],
    note: Annotated[str, typer.Option("--note", help="Why it needs nothing more.")],
    as_json: AsJson = False,
) -> None:
    """Close an incident that does not close by itself; the same cause opens none again."""
    from callhouse import capture as capturing

    found = capturing.resolve(_settings(), incident, note, _account())
    if as_json:
        _print_json(dataclasses.asdict(found))
    else:
        print(f"resolved by {found.resolved_by}: {found.sentence}")


@capture.command("beat")
def capture_beat(
    device: Annotated[str, typer.Argument(help="As it is declared.")],
    sequence: Annotated[
        int | None, typer.Option("--sequence", help="Its own count, from 1 after a start.", min=0)
    ] = None,
    clock: Annotated[
        str | None, typer.Option("--clock", help="Its time now, with offset: date -Is.")
    ] = None,
    newest: Annotated[
        str | None, typer.Option("--newest", help="Time of its newest event, with offset.")
    ] = None,
    position: Annotated[
        str | None, typer.Option("--position", help="How far it has got, in its own words.")
    ] = None,
) -> None:
    """A heartbeat of an exchange, a trunk, a recorder or a collector."""
    from callhouse import capture as capturing

    is_new = capturing.beat(
        _settings(), device, sequence=sequence, position=position,
        device_at=_instant(clock) if clock else None,
        newest_event_at=_instant(newest) if newest else None,
    )  # fmt: skip
    print(f"{device}: {'heard' if is_new else 'known already'}")


@audit_trail.command("collect")
def audit_trail_collect(as_json: AsJson = False) -> None:
    """Read every source now, as the DAG does every minute; 3 where something is wrong with one."""
    from callhouse.security import trail

    collected = trail.collect(_settings())
    if as_json:
        _print_json(dataclasses.asdict(collected))
    else:
        for source, number in collected.added.items():
            print(f"{source}: {number} new entries")
        for problem in collected.problems:
            print(f"problem: {problem}")
    if collected.problems:
        raise typer.Exit(NEEDS_A_PERSON)


@audit_trail.command("verify")
def audit_trail_verify(
    anchors: Annotated[
        Path | None, typer.Option("--anchors", help="A copy of the anchor file kept elsewhere.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Walk the whole chain; 3, and the first entry at fault, where it is not as it was written."""
    from callhouse.security import trail

    if anchors and not anchors.is_file():
        raise CallhouseError(f"{anchors} is no file: give a copy of the anchor file")
    verdict = trail.verify(_settings(), anchors)
    if as_json:
        _print_json(dataclasses.asdict(verdict))
    else:
        print(
            verdict.problem
            or f"{verdict.entries} entries are as they were written, {verdict.anchors} anchors "
            f"agree; head {verdict.head}"
        )
    if verdict.problem:
        raise typer.Exit(NEEDS_A_PERSON)


@audit_trail.command("list")
def audit_trail_list(
    person: Annotated[str | None, typer.Option("--person", help="Only of this one.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="First day, in UTC.")] = None,
    as_json: AsJson = False,
) -> None:
    """Entries that have been collected, the newest first."""
    from callhouse.security import trail

    rows = trail.list_entries(_settings(), person, _day(since) if since else None)
    if as_json:
        _print_json(rows)
    else:
        _print_table(trail.LISTED, [tuple(row.values()) for row in rows])


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise CallhouseError(
            f"{text!r} is no time with an offset: write it as 2026-10-05T09:30:00+08:00"
        )
    return found


def _account() -> str:
    """Name of the operating system's account that runs this, which no variable can forge."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def main() -> None:
    """Run the command line; problems are told in one sentence."""
    arguments = sys.argv[1:]
    try:
        with _noted(arguments):
            app(args=_expand(arguments), prog_name="callhouse")
    except CallhouseError as problem:
        print(f"callhouse: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("callhouse: stopped", file=sys.stderr)
        sys.exit(130)


# Commands that show or change data, or what someone may see: the audit trail has them.
NOTED = (
    "land", "release", "metric", "psql", "access", "quarantine", "retention", "callers",
    "audit-trail list", "alert sync", "alert add", "alert change", "alert end",
    "alert acknowledge", "alert test", "alert dead-letters", "report", "review",
    "staging archive", "staging restore",
)  # fmt: skip
COMMAND_WORD = re.compile(r"[a-z][a-z_-]*")


@contextmanager
def _noted(arguments: Sequence[str]) -> Iterator[None]:
    """Note in the audit trail what was called, and how it ended."""
    words = " ".join(arguments)
    if not words.startswith(NOTED) or {"-h", "--help"} & set(arguments):
        yield
        return
    outcome = "failed"
    try:
        yield
    except SystemExit as ended:
        if ended.code in (0, None):
            outcome = "ok"
        elif ended.code == NEEDS_A_PERSON:
            outcome = "needs a person"
        raise
    finally:
        _note(arguments, outcome)


# What follows these says who a caller is.
NAMES_OF_CALLERS = ("--number", "--id")


def _told(arguments: Sequence[str]) -> list[str]:
    """`arguments` without callers."""
    told: list[str] = []
    for argument in arguments:
        option, _, value = argument.partition("=")
        if told and told[-1] in NAMES_OF_CALLERS:
            argument = "***"
        elif option in NAMES_OF_CALLERS and value:
            argument = f"{option}=***"
        told.append(argument)
    return told


def _note(arguments: Sequence[str], outcome: str) -> None:
    from callhouse.security.trail import journal

    try:
        journal.write(
            _settings(),
            "callhouse",
            {
                "action": "command",
                "person": _account(),
                "program": "callhouse",
                "object_name": " ".join(itertools.takewhile(COMMAND_WORD.fullmatch, arguments[:2])),
                "statement": shlex.join(["./callhouse", *_told(arguments)]),
                "outcome": outcome,
            },
        )
    except OSError as error:
        raise CallhouseError(f"the audit trail cannot be written ({error}): mend that") from None


def _expand(arguments: list[str]) -> list[str]:
    """`--by queue day` means `--by queue --by day`; likewise --where, as the help promises."""
    if arguments[:1] != ["metric"]:
        return arguments
    expanded: list[str] = []
    repeated: str | None = None
    for argument in arguments:
        if argument in ("--by", "--where"):
            repeated = argument
        elif argument.startswith("-"):
            repeated = None
            expanded.append(argument)
        elif repeated:
            expanded += [repeated, argument]
        else:
            expanded.append(argument)
        if argument in ("--from", "--to", "--as"):
            repeated = None
    return expanded
