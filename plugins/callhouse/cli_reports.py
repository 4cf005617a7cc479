"""Commands about reports by mail, and where a person's mail goes."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

reports = typer.Typer(help="Reports by mail: who gets which board, when.", no_args_is_help=True)
annotate = typer.Typer(
    help="Campaigns, outages and changes that boards draw on their lines.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="As `report list` names it.")]


def contact(
    person: Annotated[str, typer.Argument(help="Someone of `access list`.")],
    mail: Annotated[str | None, typer.Option("--mail", help="Where reports go.")] = None,
    language: Annotated[str | None, typer.Option("--language", help="en or zh.")] = None,
    time_zone: Annotated[
        str | None, typer.Option("--time-zone", help="Such as Asia/Shanghai.")
    ] = None,
) -> None:
    """Set where a person's mail goes, and the language and clock of their reports."""
    from callhouse import cli, warehouse
    from callhouse.security import people

    with warehouse.connect(cli._settings()) as connection:
        people.contact(connection, person, mail=mail, language=language, time_zone=time_zone)
        row = warehouse.one(
            connection, "select mail, language, time_zone from sec.people where person = %s",
            [person],
        )  # fmt: skip
    told = zip(("mail", "language", "time zone"), row, strict=True)
    print(f"{person}: " + ", ".join(f"{name} {value or 'not set'}" for name, value in told))


@reports.command("list")
def report_list(as_json: AsJson = False) -> None:
    """Templates, and what is sent to whom."""
    from callhouse import cli
    from callhouse import reports as reporting

    rows = reporting.listed(cli._settings())
    if as_json:
        cli._print_json(rows)
    else:
        cli._print_table(
            list(rows[0]),
            [
                [", ".join(cell) if isinstance(cell, list) else cell for cell in row.values()]
                for row in rows
            ],
        )


@reports.command("add")
def report_add(
    name: Annotated[str, typer.Argument(help="A new name, or that of a template: a-z, 0-9, _.")],
    to: Annotated[list[str], typer.Option("--to", help="A recipient; again for more.")],
    owner: Annotated[str, typer.Option("--owner", help="Who is told when it fails.")],
    template: Annotated[
        str | None, typer.Option("--template", help="Of `report list`; default: the one so called.")
    ] = None,
    board: Annotated[str | None, typer.Option("--board", help="Slug of a board.")] = None,
    chart: Annotated[str | None, typer.Option("--chart", help="Name of a saved chart.")] = None,
    every: Annotated[str | None, typer.Option("--every", help="day, week or month.")] = None,
    on: Annotated[str | None, typer.Option("--on", help="monday …, or day 1 to 28.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="Of the recipient's clock: 07:30.")] = None,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="FILTER=VALUE of the board.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Of the mail.")] = None,
) -> None:
    """Make a report of a template, a board or a saved chart, or change one."""
    from callhouse import cli, warehouse
    from callhouse import reports as reporting
    from callhouse.errors import CallhouseError
    from callhouse.reports import definitions

    settings = cli._settings()
    if board and chart:
        raise CallhouseError("a report shows a board or a chart, not both")
    if board or chart:
        period = f"last_{every or 'week'}"
        shown = {"board": board} if board else {"chart": chart}
        words = title or board or chart
        content: dict[str, Any] = {
            "title": {"en": words, "zh": words}, **shown, "period": period,
            "schedule": {"every": every or "week", "at": "07:30"},
        }  # fmt: skip
        content["schedule"] |= {"week": {"day": "monday"}, "month": {"day": 2}}.get(
            every or "week", {}
        )
    else:
        content = definitions.content_of(definitions.find(settings, template or name))
        if title:
            content["title"] = {"en": title, "zh": title}
        if every and every != content["schedule"]["every"]:
            content["schedule"] = {"every": every, "at": content["schedule"]["at"]}
            content["schedule"] |= {"week": {"day": "monday"}, "month": {"day": 2}}.get(every, {})
            content["period"] = f"last_{every}"
    if on:
        content["schedule"]["day"] = int(on) if on.isdigit() else on
    if at:
        content["schedule"]["at"] = at
    if filters:
        pairs = [text.partition("=") for text in filters]
        content["filters"] = {key: value for key, _, value in pairs}
    content |= {"owner": owner, "recipients": list(to)}
    with warehouse.connect(settings) as connection:
        for person in (*to, owner):
            found = reporting.recipient(settings, connection, person)
            if found.refusal:
                raise CallhouseError(f"{person} {found.refusal}")
    report = definitions.write(settings, name, content)
    print(
        f"{name}: {report.shows} to {', '.join(report.recipients)}, {report.schedule.sentence()}"
        f" of each one's clock; kept in {definitions.directory(settings) / f'{name}.yaml'}"
    )


@reports.command("send")
def report_send(
    name: Annotated[str | None, typer.Argument(help="As `report list` names it.")] = None,
    to: Annotated[
        list[str] | None, typer.Option("--to", help="Only to these; default: its recipients.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="As if it were due on that day.")
    ] = None,
    due: Annotated[bool, typer.Option("--due", help="What is due, as the DAG does.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send a report now, or everything that is due; 3 where somebody got nothing."""
    from callhouse import cli
    from callhouse import reports as reporting
    from callhouse.errors import CallhouseError
    from callhouse.reports import definitions

    settings = cli._settings()
    if due == (name is not None):
        raise CallhouseError("name a report, or send everything that is --due")
    if name is None:
        outcomes = reporting.send_due(settings, cli._say)
    else:
        outcomes = reporting.send(
            settings, definitions.find(settings, name), cli._say, to or (),
            cli._day(as_of) if as_of else None,
        )  # fmt: skip
    if as_json:
        cli._print_json([dataclasses.asdict(outcome) for outcome in outcomes])
    else:
        cli._print_table(
            ("report", "person", "status", "rows", "attached", "detail"),
            [(o.report, o.person, o.status, o.row_count, o.is_export, o.detail) for o in outcomes],
        )
    if any(outcome.status in ("failed", "refused") for outcome in outcomes):
        raise typer.Exit(cli.NEEDS_A_PERSON)


@reports.command("pause")
def report_pause(name: Name) -> None:
    """Send nothing of it until it is resumed."""
    from callhouse import cli
    from callhouse import reports as reporting

    reporting.pause(cli._settings(), name, cli._account())
    print(f"{name} is paused")


@reports.command("resume")
def report_resume(name: Name) -> None:
    """Send it again when it is next due."""
    from callhouse import cli
    from callhouse import reports as reporting
    from callhouse.reports import definitions

    definitions.find(cli._settings(), name)
    reporting.resume(cli._settings(), name)
    print(f"{name} is sent again when it is next due")


@reports.command("remove")
def report_remove(name: Name) -> None:
    """End it for everyone; its history stays."""
    from callhouse import cli
    from callhouse import reports as reporting
    from callhouse.reports import definitions

    settings = cli._settings()
    is_template = definitions.remove(settings, name)
    # A later one of that name is not paused.
    reporting.resume(settings, name)
    print(f"{name} is removed" + ("; the template of that name stays" if is_template else ""))


@reports.command("history")
def report_history(
    name: Annotated[str | None, typer.Argument(help="Only of this report.")] = None,
    as_json: AsJson = False,
) -> None:
    """What was due to whom and what became of it, the newest first."""
    from callhouse import cli
    from callhouse import reports as reporting

    rows = reporting.history(cli._settings(), name)
    if as_json:
        cli._print_json(rows)
    else:
        cli._print_table(reporting.HISTORY, [list(row.values()) for row in rows])


@annotate.command("add")
def annotate_add(
    title: Annotated[str, typer.Argument(help="What happened; everybody reads it.")],
    start: Annotated[str, typer.Option("--from", help="First day, as 2026-11-11.")],
    end: Annotated[str | None, typer.Option("--to", help="Last day; else the first.")] = None,
    kind: Annotated[str, typer.Option("--kind", help="campaign, outage, change, event.")] = (
        "campaign"
    ),
    source: Annotated[str | None, typer.Option("--source", help="Of one source only.")] = None,
) -> None:
    """Note what happened on some days."""
    from callhouse import cli
    from callhouse.bi import notes

    days = (cli._day(start), cli._day(end or start))
    number = notes.add(cli._settings(), title, days, kind=kind, source=source, by=cli._account())
    print(f"note {number}: {title}, {days[0]} to {days[1]}; boards draw it from now on")


@annotate.command("list")
def annotate_list(as_json: AsJson = False) -> None:
    """What is noted, the newest first."""
    from callhouse import cli
    from callhouse.bi import notes

    rows = notes.listed(cli._settings())
    if as_json:
        cli._print_json(rows)
    elif not rows:
        print("nothing is noted: ./callhouse annotate add --help")
    else:
        cli._print_table(list(rows[0]), [list(row.values()) for row in rows])


@annotate.command("withdraw")
def annotate_withdraw(
    number: Annotated[int, typer.Argument(help="As `annotate list` numbers it.")],
) -> None:
    """Take a note off the boards."""
    from callhouse import cli
    from callhouse.bi import notes

    title = notes.withdraw(cli._settings(), number, cli._account())
    print(f"note {number} is withdrawn: {title}")
