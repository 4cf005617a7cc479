"""The feeds an instance knows, and their registration in the warehouse."""

from __future__ import annotations

from pathlib import Path

import psycopg

from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources.delimited import mapping
from callhouse.sources.delimited.mapping import Feed

PACKAGED = Path(__file__).parent / "delimited" / "feeds"
TABLES = Path(__file__).parent / "delimited" / "tables.sql"


def feeds(settings: Settings) -> list[Feed]:
    """Feeds that come with Callhouse and those in the instance's feeds folder, by name.

    A broken mapping must not take the others with it: it is left out here, told by `problems`
    and raised by `feed`.
    """
    return [item for item in _mappings(settings).values() if isinstance(item, Feed)]


def problems(settings: Settings) -> list[str]:
    """One sentence per mapping that cannot be used."""
    return [str(item) for item in _mappings(settings).values() if isinstance(item, CallhouseError)]


def feed(settings: Settings, name: str) -> Feed:
    """The feed called `name`, or a CallhouseError that lists the known ones."""
    known = _mappings(settings)
    found = known.get(name)
    if isinstance(found, CallhouseError):
        raise found
    if found is None:
        raise CallhouseError(
            f"no feed {name!r}: known are {', '.join(known)}; "
            f"a new one is a mapping in {settings.feeds_directory}"
        )
    return found


def _mappings(settings: Settings) -> dict[str, Feed | CallhouseError]:
    found: dict[str, Feed | CallhouseError] = {}
    for directory in (PACKAGED, settings.feeds_directory):
        for file in sorted(directory.glob("*.yaml")) if directory.is_dir() else ():
            name = file.stem
            if name in found:
                found[f"{name} ({file})"] = CallhouseError(
                    f"feed {name} is mapped twice: rename or remove {file}"
                )
                continue
            try:
                found[name] = mapping.load(file)
            except (CallhouseError, OSError) as error:
                found[name] = CallhouseError(str(error))
    return dict(sorted(found.items()))


def register(connection: psycopg.Connection, *wanted: Feed) -> None:
    """Create the staging tables and enter the feeds into ops.sources. Safe to repeat."""
    with connection.transaction():
        # Two first landings at once would both create the tables.
        connection.execute("select pg_advisory_xact_lock(hashtextextended('register', 0))")
        known = connection.execute("select to_regclass('staging.delimited_queues')").fetchone()
        if known is None or known[0] is None:
            connection.execute(TABLES.read_bytes())
        for item in wanted:
            connection.execute(
                "insert into ops.sources (source, vendor, label, time_zone) "
                "values (%(source)s, %(vendor)s, %(label)s, %(zone)s) "
                "on conflict (source) do update set vendor = excluded.vendor, "
                "label = excluded.label, time_zone = excluded.time_zone "
                "where (sources.vendor, sources.label, sources.time_zone) "
                "is distinct from (excluded.vendor, excluded.label, excluded.time_zone)",
                {
                    "source": item.name,
                    "vendor": item.vendor,
                    "label": item.label,
                    "zone": item.time_zone,
                },
            )
