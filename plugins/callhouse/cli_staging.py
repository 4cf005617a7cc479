"""Commands about old days of staging: archive them, read them back, show what is archived."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from callhouse.landing import cold

staging = typer.Typer(help="Old days of staging in compressed files.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@staging.command("list")
def staging_list(as_json: AsJson = False) -> None:
    """What is archived: table, day, rows, file."""
    from callhouse import cli
    from callhouse.landing import cold

    found = cold.archived(cli._settings())
    if as_json:
        cli._print_json([dataclasses.asdict(item) for item in found])
        return
    cli._print_table(
        ("table", "day", "rows", "bytes", "archived at", "by", "file"),
        [
            (f.table, f.business_day, f.rows, f.bytes, f.archived_at, f.archived_by, f.file)
            for f in found
        ],
    )


@staging.command("archive")
def staging_archive(
    before: Annotated[
        str | None,
        typer.Option("--before", help="Days before this one; else CALLHOUSE_STAGING_ARCHIVE_DAYS."),
    ] = None,
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put finished days of staging into compressed files; 3 where some had to stay."""
    from callhouse import cli
    from callhouse.errors import CallhouseError
    from callhouse.landing import cold

    settings = cli._settings()
    if before is not None:
        first = cli._day(before)
    elif settings.staging_archive_days is not None:
        first = datetime.now(UTC).date() - timedelta(days=settings.staging_archive_days)
    else:
        raise CallhouseError("say --before DAY, or set CALLHOUSE_STAGING_ARCHIVE_DAYS")
    stays = cold.newest_before(settings)
    if before is not None and first > stays:
        cli._say(f"days from {stays} on stay in staging: see docs/operators/running.md")
    moved = cold.archive(settings, first, cli._account(), is_dry=is_dry)
    _print(moved, as_json=as_json)


@staging.command("restore")
def staging_restore(
    days: Annotated[
        str | None, typer.Option("--days", help="One day or FROM..TO; else all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read archived days back into staging. What needs them does so by itself."""
    from callhouse import cli
    from callhouse.landing import cold

    settings = cli._settings()
    wanted = None if days is None else cli._days(days)
    _print(cold.restore(settings, wanted), as_json=as_json)


def _print(moved: list[cold.Moved], *, as_json: bool) -> None:
    from callhouse import cli

    if as_json:
        cli._print_json([dataclasses.asdict(item) for item in moved])
    else:
        cli._print_table(
            ("table", "day", "rows", "bytes of the file", "bytes in PostgreSQL", "problem"),
            [
                (m.table, m.business_day, m.rows, m.bytes or None, m.table_bytes or None, m.problem)
                for m in moved
            ],
        )
    if any(item.problem for item in moved):
        raise typer.Exit(cli.NEEDS_A_PERSON)
