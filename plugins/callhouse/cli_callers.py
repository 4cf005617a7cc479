"""Commands about callers' numbers: unmask, reveal, rotate the keys, erase."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

import typer

callers = typer.Typer(help="Callers' numbers: shown, given new keys, erased.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def unmask(
    person: Annotated[str, typer.Argument(help="Someone of `access list` who sees masks.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the grant.")],
    length: Annotated[str | None, typer.Option("--for", help="30m or 2h, up to 24h.")] = None,
    caller: Annotated[
        str | None, typer.Option("--caller", help="Only of this token; else of all they see.")
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="End what holds now.")] = False,
) -> None:
    """Let a person have numbers shown for a time (`callers reveal`), or end that."""
    from callhouse import cli
    from callhouse.errors import CallhouseError
    from callhouse.security import callers as numbers

    settings, account = cli._settings(), cli._account()
    if end == (length is not None):
        raise CallhouseError("say how long with --for 2h, or --end what holds now")
    if end:
        ended = numbers.end_unmask(settings, person, account, reason)
        print(f"{ended} grants of {person} ended")
        return
    token = numbers.parse_token(caller) if caller else None
    ends = numbers.grant_unmask(
        settings, person, numbers.parse_duration(length or ""), account, reason, token
    )
    what = f"caller {token}" if token else "every caller they see"
    print(f"{person} may have the number of {what} shown until {ends.isoformat()}")


@callers.command("reveal")
def callers_reveal(
    token: Annotated[str, typer.Argument(help="caller_token of bi.fct_calls.")],
    person: Annotated[str, typer.Option("--as", help="Who is to see it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit trail.")],
) -> None:
    """Show a caller's number to a person who holds a grant and sees a call of the caller."""
    from callhouse import cli
    from callhouse.security import callers as numbers

    settings = cli._settings()
    print(numbers.reveal(settings, numbers.parse_token(token), person, cli._account(), reason))


@callers.command("rotate")
def callers_rotate(
    tokens: Annotated[bool, typer.Option("--tokens", help="Only the key of tokens.")] = False,
    encryption: Annotated[
        bool, typer.Option("--encryption", help="Only the key of numbers and quarantine.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take new keys into use for all that is kept; the old ones can then be deleted."""
    from callhouse import cli
    from callhouse.security import callers as numbers

    both = tokens == encryption
    done = numbers.rotate(
        cli._settings(), cli._account(), tokens=tokens or both, encryption=encryption or both
    )
    if as_json:
        cli._print_json(dataclasses.asdict(done))
        return
    for table, rows in done.moved.items():
        print(f"{table}: {rows} rows")
    print(
        f"in use: caller_key version {done.token_version}, caller_encryption_key version "
        f"{done.encryption_version}; keep older ones only as long as backups need them"
    )


@callers.command("erase")
def callers_erase(
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the certificate.")],
    number: Annotated[
        str | None,
        typer.Option("--number", help="Telephone number; - reads it from standard input."),
    ] = None,
    customer: Annotated[
        str | None,
        typer.Option("--id", help="Customer id as SOURCE:ID; - reads it from standard input."),
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", help="caller_token of bi.fct_calls.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a caller everywhere, for good; counts stay. Prints the certificate."""
    from callhouse import cli
    from callhouse.errors import CallhouseError
    from callhouse.security import callers as numbers
    from callhouse.security import erasure

    settings = cli._settings()
    if [number, customer, token].count(None) != 2:
        raise CallhouseError("say who with one of --number, --id and --token")
    if number:
        who = erasure.by_number(_given(number))
    elif customer:
        who = erasure.by_id(_given(customer))
    else:
        who = erasure.by_token(settings, numbers.parse_token(token or ""))
    done = erasure.erase(settings, who, cli._account(), reason, is_dry=dry_run)
    if as_json:
        cli._print_json(vars(done))
    else:
        print(done.text, end="")


def _given(text: str) -> str:
    """What stands in an argument is seen by everyone who lists processes."""
    return sys.stdin.readline().strip() if text == "-" else text
