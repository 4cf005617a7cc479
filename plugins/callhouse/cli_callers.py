"""Commands about callers' numbers: unmask, reveal, rotate the keys."""

from __future__ import annotations

import dataclasses
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
