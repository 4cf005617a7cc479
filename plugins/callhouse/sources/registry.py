"""The feeds an instance knows, and their registration in the warehouse.

A vendor is a folder here with `mapping.py` (its `load` reads a feed's YAML), `tables.sql` and
perhaps feeds that come with Callhouse.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

import psycopg

from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources import document, storage
from callhouse.sources.contract import Feed

HERE = Path(__file__).parent


def vendors() -> list[str]:
    """Every vendor that Callhouse reads."""
    return sorted(file.parent.name for file in HERE.glob("*/tables.sql"))


def tables() -> bytes:
    """SQL that creates the staging tables of every vendor. Safe to repeat."""
    return b"\n".join((HERE / vendor / "tables.sql").read_bytes() for vendor in vendors())


def feeds(settings: Settings) -> list[Feed]:
    """Feeds that come with Callhouse and those in the instance's feeds folder, by name.

    A broken mapping must not take the others with it: it is left out here, told by `problems`
    and raised by `feed`.
    """
    known = _mappings(settings).values()
    return [item for item in known if not isinstance(item, CallhouseError)]


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


def location(item: Feed) -> str | None:
    """Where the feed's files lie, if not only in its drop folder: `location` in its YAML."""
    node = document.read(item.file)
    address = node.text("location", "")
    if address and not storage.ADDRESS.fullmatch(address):
        raise node.error("location", f"'{address}' is no address: write s3://bucket/prefix")
    return address or None


def _mappings(settings: Settings) -> dict[str, Feed | CallhouseError]:
    found: dict[str, Feed | CallhouseError] = {}
    own = settings.feeds_directory
    for directory in (*(HERE / vendor / "feeds" for vendor in vendors()), own):
        for file in sorted(directory.glob("*.yaml")) if directory.is_dir() else ():
            name = file.stem
            try:
                loaded: Feed | CallhouseError = _load(settings, file)
            except (CallhouseError, OSError) as error:
                loaded = CallhouseError(str(error))
            before = found.get(name)
            if isinstance(before, CallhouseError) or (before and not before.is_overridable):
                found[f"{name} ({file})"] = CallhouseError(
                    f"feed {name} is mapped twice: rename or remove {file}"
                )
            else:
                found[name] = loaded
    return dict(sorted(found.items()))


def _load(settings: Settings, file: Path) -> Feed:
    node = document.read(file)
    vendor = node.text("vendor", choices=tuple(vendors()))
    module = importlib.import_module(f"callhouse.sources.{vendor}.mapping")
    loaded = cast(Feed, module.load(file, settings.time_zone))
    location(loaded)
    return loaded


def register(connection: psycopg.Connection, *wanted: Feed) -> None:
    """Create the staging tables and enter the feeds into ops.sources. Safe to repeat."""
    with connection.transaction():
        # Two first landings at once would both create the tables.
        connection.execute("select pg_advisory_xact_lock(hashtextextended('register', 0))")
        connection.execute(tables())
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
