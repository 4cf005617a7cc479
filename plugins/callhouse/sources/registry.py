"""The feeds an instance knows, and their registration in the warehouse.

A vendor is a folder here with `mapping.py` (its `load` reads a feed's YAML, its `RECORDS` are what
feeds may hold), `tables.sql` and perhaps feeds that come with Callhouse. A feed whose `name` is
another feed's adds further kinds of records to that one's source; `join` in the vendor's mapping
gives it the other's settings.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import cast
from urllib.parse import urlsplit

import psycopg

from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources import document, pushes, storage
from callhouse.sources import watch as watching
from callhouse.sources.contract import Feed, Listened, Pushed, Record, Tailed

HERE = Path(__file__).parent


def vendors() -> list[str]:
    """Every vendor that Callhouse reads."""
    return sorted(file.parent.name for file in HERE.glob("*/tables.sql"))


def tables() -> bytes:
    """SQL that creates the staging tables of every vendor. Safe to repeat."""
    made = [(HERE / vendor / "tables.sql").read_bytes() for vendor in vendors()]
    views = b"set role callhouse_owner;\nselect ops.make_mart_rows(false);\nreset role;\n"
    return b"\n".join([*made, views])


def records() -> list[Record]:
    """What may be staged, by whatever feed: also of those that are no more."""
    return [record for vendor in vendors() for record in _mapping(vendor).RECORDS.values()]


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
    """Where the feed's records lie, if not only in its drop folder: `location` in its YAML."""
    node = document.read(item.file)
    address = node.text("location", "")
    if storage.is_exchange(address):
        return None
    if address and not (storage.ADDRESS.fullmatch(address) or storage.is_table(address)):
        raise node.error("location", f"'{address}' is no address: write s3://bucket/prefix")
    return address or None


def locations(item: Feed) -> list[str]:
    """`location`, and the addresses of its vendor's paged interface."""
    own = location(item)
    return [*([own] if own else []), *(page.base for page in getattr(item, "pages", ()))]


def tail(item: Feed) -> Path | None:
    """The growing log that a collector follows for the feed: `tail` in its YAML."""
    node = document.read(item.file)
    path = Path(node.text("tail", ""))
    if not node.has("tail"):
        return None
    if not isinstance(item, Tailed):
        raise node.error("tail", "only a feed of queue logs follows a log")
    if not path.is_absolute():
        raise node.error("tail", f"'{path}' is no whole path: write /var/log/asterisk/queue_log")
    item.record_for(path.name)
    return path


def listens(item: Feed) -> str | None:
    """The exchange that a collector listens to for the feed: `location` in its YAML."""
    node = document.read(item.file)
    address = node.text("location", "")
    if not storage.is_exchange(address):
        return None
    if not isinstance(item, Listened):
        raise node.error("location", "only for a feed of queue logs an exchange is listened to")
    try:
        item.check_address(address)
    except CallhouseError as error:
        raise node.error("location", str(error)) from None
    for key in ("tail", "receive"):
        if node.has(key):
            raise node.error(key, "brings what `location` tells a second time: keep one of them")
    if not node.has("marts"):
        raise node.error(
            "marts",
            "write `true` where its queue log comes by no other feed, else `false`",
        )
    return address


def receive(item: Feed) -> pushes.Receive | None:
    """How the feed's records are pushed: `receive` in its YAML."""
    node = document.read(item.file)
    if not node.has("receive"):
        return None
    if not isinstance(item, Pushed):
        raise node.error("receive", "records of this feed are not pushed")
    for record in item.kinds:
        pushes.name(item, record)
    return pushes.read(node)


def is_for_marts(item: Feed) -> bool:
    """Whether landed days are built: not where `marts: false` keeps the feed on the live floor."""
    return document.read(item.file).text("marts", "true", ("true", "false")) == "true"


def watch(item: Feed) -> watching.Watch | None:
    """How the feed's source delivers, where its YAML says so under `watch`."""
    node = document.read(item.file)
    return watching.read(node.block("watch")) if node.has("watch") else None


def names(settings: Settings) -> set[str]:
    """Every mapping's name, also of those that cannot be used."""
    return set(_mappings(settings))


def remote(settings: Settings, item: Feed, address: str) -> storage.Remote:
    """What lists and fetches what lies at `address`: object storage, pages, a vendor's table."""
    vendor = _mapping(item.vendor)
    if address.startswith(storage.PAGES):
        if not hasattr(vendor, "open_pages"):
            raise CallhouseError(f"{item.file.name}: feeds of vendor {item.vendor} read no pages")
        return cast(storage.Remote, vendor.open_pages(settings, item))
    if not storage.is_table(address):
        return storage.Storage(settings)
    if not hasattr(vendor, "open_table"):
        raise CallhouseError(f"{item.file.name}: feeds of vendor {item.vendor} read no tables")
    return cast(storage.Remote, vendor.open_table(settings, item))


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
    joined = {name: _joined(item, found) for name, item in sorted(found.items())}
    return {name: _told_once(item, joined) for name, item in joined.items()}


def _joined(
    item: Feed | CallhouseError, known: Mapping[str, Feed | CallhouseError]
) -> Feed | CallhouseError:
    """A feed that adds to another one's source, with that one's settings; others as they are."""
    if isinstance(item, CallhouseError) or item.name == item.file.stem:
        return item
    main = known.get(item.name)
    if main is None:
        return CallhouseError(
            f"{item.file.name}: there is no feed {item.name} to add to: map it, or name another"
        )
    if isinstance(main, CallhouseError):
        return CallhouseError(f"{item.file.name}: feed {item.name} cannot be used: {main}")
    if main.vendor != item.vendor:
        return CallhouseError(f"{item.file.name}: feed {item.name} is of vendor {main.vendor}")
    if document.read(item.file).has("marts"):
        return CallhouseError(
            f"{item.file.name}: `marts` holds for the whole source: write it into {main.file.name}"
        )
    try:
        return cast(Feed, _mapping(item.vendor).join(item, main))
    except CallhouseError as error:
        return error


def _told_once(
    item: Feed | CallhouseError, known: Mapping[str, Feed | CallhouseError]
) -> Feed | CallhouseError:
    """A feed that listens to an exchange of which the marts have no other log; others as they are.

    An event and its line are two rows, and nothing in them says that they are the same.
    """
    if isinstance(item, CallhouseError) or not (address := listens(item)):
        return item
    node = document.read(item.file)
    exchange, host = node.text("exchange", ""), urlsplit(address).hostname
    if exchange and (exchange == item.file.stem or not isinstance(known.get(exchange), Tailed)):
        return node.error("exchange", f"'{exchange}' is no feed of its queue log")
    if not is_for_marts(item):
        return item
    for name, other in known.items():
        if isinstance(other, CallhouseError) or other is item or not is_for_marts(other):
            continue
        place = listens(other) or location(other) or ""
        is_log = isinstance(other, Tailed)
        if is_log and (name == exchange or (place and urlsplit(place).hostname == host)):
            return node.error(
                "marts",
                f"feed {name} brings the calls of this exchange as well, and each would be counted "
                "twice: write `false`, and this feed is on the live floor alone",
            )
    return item


def _load(settings: Settings, file: Path) -> Feed:
    node = document.read(file)
    vendor = node.text("vendor", choices=tuple(vendors()))
    loaded = cast(Feed, _mapping(vendor).load(file, settings.time_zone))
    location(loaded)
    listens(loaded)
    tail(loaded)
    receive(loaded)
    is_for_marts(loaded)
    watch(loaded)
    return loaded


def _mapping(vendor: str) -> ModuleType:
    return importlib.import_module(f"callhouse.sources.{vendor}.mapping")


def register(connection: psycopg.Connection, *wanted: Feed) -> None:
    """Create the staging tables and enter the feeds into ops.sources. Safe to repeat."""
    with connection.transaction():
        # Two first landings at once would both create the tables.
        connection.execute("select pg_advisory_xact_lock(hashtextextended('register', 0))")
        connection.execute(tables())
        for item in wanted:
            connection.execute(
                "insert into ops.sources as s (source, vendor, label, time_zone, is_for_marts) "
                "values (%(source)s, %(vendor)s, %(label)s, %(zone)s, coalesce(%(marts)s, true)) "
                "on conflict (source) do update set vendor = excluded.vendor, "
                "label = excluded.label, time_zone = excluded.time_zone, "
                "is_for_marts = coalesce(%(marts)s, s.is_for_marts) "
                "where (s.vendor, s.label, s.time_zone, s.is_for_marts) is distinct from "
                "(excluded.vendor, excluded.label, excluded.time_zone, "
                "coalesce(%(marts)s, s.is_for_marts))",
                {
                    "source": item.name,
                    "vendor": item.vendor,
                    "label": item.label,
                    "zone": item.time_zone,
                    # What adds to another feed's source leaves it to that one.
                    "marts": is_for_marts(item) if item.name == item.file.stem else None,
                },
            )
