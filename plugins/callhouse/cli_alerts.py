"""Commands about alerts: rules, what fires, who takes it up, and the process that tells."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from callhouse.errors import CallhouseError

alert = typer.Typer(help="Rules, what fires by them, and who is told.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RuleName = Annotated[str, typer.Argument(help="As `alert rules` names it.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the rule.")]
Person = Annotated[str | None, typer.Option("--as", help="As this person, within their scopes.")]
Above = Annotated[float | None, typer.Option("--above", help="Fires at this value or more.")]
Below = Annotated[float | None, typer.Option("--below", help="Fires at this value or less.")]
Lasts = Annotated[
    int | None, typer.Option("--for", help="Seconds beyond the limit before it fires.", min=0)
]
After = Annotated[
    int | None, typer.Option("--after", help="Seconds until it escalates (else 900).", min=1)
]
Channels = Annotated[
    list[str] | None, typer.Option("--channel", help="Of channels.yaml, or mailbox; repeatable.")
]
Quiet = Annotated[
    str | None, typer.Option("--quiet", help="FROM-TO by the wall clock, such as 22:00-07:00.")
]
Zone = Annotated[str | None, typer.Option("--zone", help="Time zone of --quiet.")]
Until = Annotated[str | None, typer.Option("--until", help="Day (UTC) or time with offset.")]


@alert.command("sync")
def alert_sync(
    file: Annotated[Path, typer.Argument(help="YAML file of rules, kept in version control.")],
) -> None:
    """Make the rules that come from files agree with this one."""
    from callhouse import cli, warehouse
    from callhouse.alerts import rules

    settings = cli._settings()
    with warehouse.connect(settings) as connection:
        changes = rules.synchronise(connection, settings, file, cli._account(), datetime.now(UTC))
    for line in changes:
        print(line)
    if not changes:
        print("nothing has changed")


@alert.command("add")
def alert_add(
    rule: Annotated[str, typer.Argument(help="Name of the new rule.")],
    metric: Annotated[str, typer.Option("--metric", help="What is watched.")],
    scope: Annotated[str, typer.Option("--scope", help="all, pipeline, TYPE=ID or TYPE=*.")],
    clear: Annotated[float, typer.Option("--clear", help="It is over at this value.")],
    severity: Annotated[str, typer.Option("--severity", help="info, warning or critical.")],
    owner: Annotated[str, typer.Option("--owner", help="A person, or scope: who leads there.")],
    reason: Reason,
    above: Above = None,
    below: Below = None,
    lasts: Lasts = None,
    escalate_to: Annotated[
        str | None, typer.Option("--escalate-to", help="Who is told if nobody takes it up.")
    ] = None,
    after: After = None,
    channel: Channels = None,
    quiet: Quiet = None,
    zone: Zone = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Day (UTC) or time with offset; else now.")
    ] = None,
    until: Until = None,
) -> None:
    """Enter a rule; with --until it is a temporary one."""
    from callhouse import cli, warehouse
    from callhouse.alerts import rules
    from callhouse.sources import document

    given: dict[str, Any] = {
        "rule": rule, "metric": metric, "scope": scope, "clear": str(clear), "severity": severity,
        "owner": owner, "reason": reason, "channels": channel or ["mailbox"],
    }  # fmt: skip
    options = {
        "above": above, "below": below, "for_seconds": lasts, "escalate_to": escalate_to,
        "escalate_after_seconds": after, "from": start, "until": until,
    }  # fmt: skip
    given |= {name: str(value) for name, value in options.items() if value is not None}
    settings = cli._settings()
    if quiet:
        begin, _, end = quiet.partition("-")
        given["quiet"] = {"from": begin, "to": end, "time_zone": zone or settings.time_zone}
    now = datetime.now(UTC)
    wanted = rules.from_node(document.Node(Path("alert add"), rule, given))
    with warehouse.connect(settings) as connection:
        rules.add(connection, settings, wanted, cli._account(), now)
    print(f"{rule} watches {wanted.metric} of {wanted.scope}")


@alert.command("change")
def alert_change(
    rule: RuleName,
    reason: Reason,
    above: Above = None,
    below: Below = None,
    clear: Annotated[
        float | None, typer.Option("--clear", help="It is over at this value.")
    ] = None,
    lasts: Lasts = None,
    severity: Annotated[str | None, typer.Option("--severity")] = None,
    owner: Annotated[str | None, typer.Option("--owner")] = None,
    escalate_to: Annotated[str | None, typer.Option("--escalate-to")] = None,
    after: After = None,
    channel: Channels = None,
    until: Until = None,
) -> None:
    """Another version of a rule from now on; with --until the old one holds again after it."""
    from callhouse import cli, warehouse
    from callhouse.alerts import rules

    if above is not None and below is not None:
        raise CallhouseError(f"rule {rule} fires either above or below a value: give one")
    fire = above if above is not None else below
    options: dict[str, Any] = {
        "fire_at": fire,
        "comparison": None if fire is None else "above" if above is not None else "below",
        "clear_at": clear, "for_seconds": lasts, "severity": severity, "owner": owner,
        "escalate_to": escalate_to, "escalate_after_seconds": after,
        "channels": tuple(channel) if channel else None,
    }  # fmt: skip
    changes = {name: value for name, value in options.items() if value is not None}
    if not changes:
        raise CallhouseError("say what changes: `./callhouse alert change --help`")
    settings, now = cli._settings(), datetime.now(UTC)
    with warehouse.connect(settings) as connection:
        rules.change(
            connection, settings, rule, {**changes, "reason": reason}, cli._account(), now,
            rules.instant(until or ""),
        )  # fmt: skip
    print(f"{rule} is changed" + (f" until {until}" if until else ""))


@alert.command("end")
def alert_end(rule: RuleName, reason: Reason) -> None:
    """End a rule now; what fires by it is over."""
    from callhouse import cli, warehouse
    from callhouse.alerts import rules

    settings = cli._settings()
    with warehouse.connect(settings) as connection:
        rules.end(connection, rule, cli._account(), reason, datetime.now(UTC))
    print(f"{rule} has ended")


@alert.command("rules")
def alert_rules(
    with_ended: Annotated[bool, typer.Option("--all", help="Ended versions, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Rules that hold now or will hold."""
    from callhouse import cli, warehouse
    from callhouse.alerts import rules

    with warehouse.connect(cli._settings()) as connection:
        found = rules.current(connection, datetime.now(UTC), with_ended=with_ended)
    if as_json:
        shown = [{**dataclasses.asdict(rule), **rest} for rule, rest in found]
        for row in shown:
            row["quiet_from"] = row["quiet_from"] and row["quiet_from"].isoformat()
            row["quiet_to"] = row["quiet_to"] and row["quiet_to"].isoformat()
        cli._print_json(shown)
        return
    cli._print_table(
        ("rule", "metric", "scope", "fires", "clears", "for s", "severity", "owner", "escalates",
         "channels", "from", "until"),
        [
            (r.rule, r.metric, r.scope, f"{r.comparison} {r.fire_at:g}", r.clear_at,
             r.for_seconds, r.severity, r.owner, r.escalate_to, " ".join(r.channels), r.starts,
             r.ends)
            for r, _ in found
        ],
    )  # fmt: skip


@alert.command("list")
def alert_list(person: Person = None, as_json: AsJson = False) -> None:
    """What fires now, the newest first; 3 where nobody has taken one up."""
    _show(person, with_resolved=False, as_json=as_json)


@alert.command("history")
def alert_history(person: Person = None, as_json: AsJson = False) -> None:
    """Everything that has fired: who was told, who took it up, when it was over."""
    _show(person, with_resolved=True, as_json=as_json)


def _show(person: str | None, *, with_resolved: bool, as_json: bool) -> None:
    from callhouse import cli
    from callhouse.alerts import state

    found = state.list_alerts(cli._settings(), with_resolved=with_resolved, person=person)
    if as_json:
        cli._print_json([dataclasses.asdict(a) for a in found])
    else:
        cli._print_table(
            ("alert", "rule", "scope", "severity", "status", "value", "limit", "owner", "opened",
             "notified", "taken up by", "resolved"),
            [
                (a.alert_id, a.rule, a.scope, a.severity, a.status, a.value, a.fire_at, a.owner,
                 a.opened_at, a.notified_at, a.acknowledged_by, a.resolved_at)
                for a in found
            ],
        )  # fmt: skip
    if not with_resolved and any(a.acknowledged_at is None for a in found):
        raise typer.Exit(cli.NEEDS_A_PERSON)


@alert.command("acknowledge")
def alert_acknowledge(
    number: Annotated[int, typer.Argument(help="As `alert list` numbers it.")],
    person: Person = None,
) -> None:
    """Take an alert up: it no longer escalates."""
    from callhouse import cli
    from callhouse.alerts import state

    print(state.acknowledge(cli._settings(), number, cli._account(), person))


@alert.command("test")
def alert_test(
    channel: Annotated[str, typer.Argument(help="Of channels.yaml, or mailbox.")],
    person: Annotated[str, typer.Option("--person", help="To whom.")],
) -> None:
    """Send a test through a channel now, and say how it went."""
    from callhouse import cli, security
    from callhouse.alerts import channels

    settings = cli._settings()
    letter = channels.Letter(
        key=f"test-{channel}-{person}-{datetime.now(UTC):%Y%m%d%H%M%S}",
        title="Callhouse: test of a channel",
        body=f"A test of the channel {channel} for {person}. Nothing is wrong.",
        is_urgent=False,
        is_good=True,
    )
    if failure := channels.deliver(settings, channel, security.check_person(person), letter):
        raise CallhouseError(f"{channel} did not take it: {failure}")
    print(f"{channel} has taken it for {person}")


@alert.command("dead-letters")
def alert_dead_letters(
    again: Annotated[bool, typer.Option("--again", help="Have all of them sent again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Notifications that no attempt delivered; 3 where there are any."""
    from callhouse import cli
    from callhouse.alerts import state

    settings = cli._settings()
    if again:
        print(f"{state.retry_dead_letters(settings)} are sent again")
        return
    found = state.dead_letters(settings)
    if as_json:
        cli._print_json(found)
    else:
        cli._print_table(state.DEAD, [tuple(row.values()) for row in found])
    if found:
        raise typer.Exit(cli.NEEDS_A_PERSON)


@alert.command("run")
def alert_run() -> None:
    """Look at the rules every 10 seconds and tell people, until SIGTERM or Ctrl-C."""
    import signal
    import threading

    from callhouse import cli
    from callhouse.alerts import notifier

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    notifier.run(cli._settings(), stop, cli._say)
