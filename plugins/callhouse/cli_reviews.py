"""Commands of `./callhouse review`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

review = typer.Typer(help="Abnormal calls that wait for a person's look.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Person = Annotated[
    str | None, typer.Option("--as", help="With this person's login: the calls they may see.")
]


@review.command("list")
def review_list(
    rule: Annotated[str | None, typer.Option("--rule", help="Only what breaks this one.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="First business day.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Day after the last one.")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 50,
    person: Person = None,
    as_json: AsJson = False,
) -> None:
    """What is not reviewed yet, the newest first."""
    from callhouse import cli, reviews

    days = (cli._day(start) if start else None, cli._day(end) if end else None)
    found = reviews.waiting(cli._settings(), person, rule=rule, days=days, limit=limit)
    if as_json:
        cli._print_json([dataclasses.asdict(check) for check in found])
    elif not found:
        print("nothing waits for a review")
    else:
        cli._print_table(
            ("call", "day", "agent", "rule", "version", "measured", "threshold", "reason"),
            [
                (c.call_key, c.business_day, c.agent_name, c.rule, c.rule_version, c.measured,
                 f"{c.comparison} {c.threshold}", c.reason)
                for c in found
            ],
        )  # fmt: skip


@review.command("done")
def review_done(
    call: Annotated[str, typer.Argument(help="call_key, as `review list` shows it.")],
    rule: Annotated[str, typer.Argument(help="The rule that the call breaks.")],
    verdict: Annotated[str, typer.Option("--verdict", help="confirmed, harmless or bad_data.")],
    note: Annotated[str | None, typer.Option("--note", help="What was found.")] = None,
    person: Person = None,
) -> None:
    """Say what a look at the call found; it leaves the queue."""
    from callhouse import cli, reviews

    print(reviews.done(cli._settings(), call, rule, verdict, note, cli._account(), person))
