"""What is true now: state tables in schema `live`, moved with the rows that were just landed.

`live.<table>` copies the staged rows of today and yesterday. The dbt models, kept as views in
`live_intake` by target `live`, read of them the rows of the calls and agents that a landing has
touched (views in `live_rows`), and what they say replaces the state of these calls and agents.
What several of the models read is worked out once per landing (`_share`).
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.landing import cold, store
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.sources.contract import Feed, Record
from callhouse.transform import dbt
from callhouse.transform.dbt import Report

# What the state is made of; dbt adds what these are made of.
MODELS = ("fct_queue_visits", "fct_agent_connections", "fct_agent_states")
# Those that live.renew reads.
ENDS = (*MODELS, "int_calls__unioned")
# Bytes of a copy, beyond sixteen times of before, from which on plans are made anew: a second in
# which nothing is landed, four times on a day of a million events.
PLANNED_ANEW = 128 * 1024


def install(settings: Settings, report: Report = print) -> None:
    """Bring copies and views up to date with the vendors' tables and the dbt project.

    While dbt replaces the views nothing is moved; the rebuild at the end catches up.
    """
    made_of = (dbt.project_hash(settings).encode(), registry.tables(), Path(__file__).read_bytes())
    current = hashlib.sha256(b"".join(made_of)).hexdigest()
    with warehouse.connect(settings) as connection:
        made = "select coalesce(obj_description('live_intake'::regnamespace), '')"
        if warehouse.one(connection, made)[0] == current:
            return
        if not warehouse.one(
            connection, "select obj_description('reference'::regnamespace) is not null"
        )[0]:
            raise CallhouseError("waits for the seeds, which `make up` and `transform` load")
        registry.register(connection)
        _make_rows(connection)
        connection.execute("comment on schema live_intake is null")
    report("live: views of the staging models")
    dbt.run(
        settings, "run", "--target", "live", "--select", *(f"+{model}" for model in MODELS),
        report=dbt.quiet, folder=dbt.target(settings).with_name("live"),
    )  # fmt: skip
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute(
            sql.SQL("comment on schema live_intake is {}").format(sql.Literal(current))
        )
    rebuild(settings)


def _make_rows(connection: psycopg.Connection) -> None:
    """Make `live.<table>` and `live_rows.<table>`, or make them anew where staging has changed."""
    connection.execute("set local role callhouse_owner")
    copied = {_name(record): record for record in registry.records() if record.partitioned}
    tables = [
        name for (name,) in connection.execute(
            "select relname from pg_class where relnamespace = 'staging'::regnamespace "
            "and relkind in ('r', 'p') and not relispartition order by relname"
        )
    ]  # fmt: skip
    for name in tables:
        if name in copied:
            _make_copy(connection, copied[name])
        else:
            connection.execute(
                sql.SQL("create or replace view live_rows.{0} as select * from staging.{0}").format(
                    sql.Identifier(name)
                )
            )
    # What is open lasts as long as it may: see live.agent_states.
    connection.execute(
        "create or replace view live_rows.sources as select source, vendor, label, time_zone, "
        "'infinity'::timestamptz as newest_event_at from ops.sources"
    )


def _name(record: Record) -> str:
    return record.table.split(".")[1]


def _make_copy(connection: psycopg.Connection, record: Record) -> None:
    def run(statement: str) -> None:
        connection.execute(sql.SQL(statement).format(sql.Identifier(_name(record))))

    wanted = _columns(connection, record.table)
    # The source comes last: plans are made when these tables are small, and in the morning any
    # index that begins with it would do for a call.
    names, indexes, parts = {column for column, _ in wanted}, ["(business_day, source)"], []
    if _is_of_calls(record) and "call_id" in names:
        indexes.append("(call_id, source)")
        parts.append(_touched("call"))
    if record.heads and "call_id" in names and "agent_id" in names:
        indexes.append("(agent_id, source, event_at)")
        indexes.append("(source) where call_id is null and agent_id is null")
        parts.append(_touched("agent", "and r.call_id is null"))
        # Of the whole exchange.
        parts.append("select r.* from live.{0} as r where r.call_id is null and r.agent_id is null")
    elif not parts and "agent_id" in names:
        indexes.append("(agent_id, source)")
        parts.append(_touched("agent"))
    if not parts:  # of a bill: no state is made of it
        parts.append("select * from live.{0}")
    made = "select obj_description(to_regclass(%s))"
    (told,) = warehouse.one(connection, made, [f"live.{_name(record)}"])
    is_indexed = told == ", ".join(indexes)
    if not is_indexed or _columns(connection, f"live.{_name(record)}") != wanted:
        run("drop table if exists live.{0} cascade")
        run("create table live.{0} (like staging.{0})")
        for index in indexes:
            run(f"create index on live.{{0}} {index}")
        run(f"comment on table live.{{0}} is '{', '.join(indexes)}'")
    run(f"create or replace view live_rows.{{0}} as {' union all '.join(parts)}")


def _touched(kind: str, more: str = "") -> str:
    """Rows of the touched calls or agents: `offset 0` keeps it to one look into the index each.

    None at all into tables without a row, which are those of all vendors but one.
    """
    return (
        f"select r.* from live.touched_{kind}s as t cross join lateral (select * from live.{{0}} "  # noqa: S608
        f"as r where r.source = t.source and r.{kind}_id = t.{kind}_id {more} offset 0) as r "
        "where (select exists (select from live.{0}))"
    )


def _columns(connection: psycopg.Connection, table: str) -> list[tuple[str, str]]:
    return connection.execute(
        "select attname::text, format_type(atttypid, atttypmod) from pg_attribute "
        "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
        [table],
    ).fetchall()


def _is_of_calls(record: Record) -> bool:
    """Whether rows are of calls; those that may name one, or none, are of agents."""
    call = record.by_name.get("call_id")
    return record.heads is not None or (call is not None and call.required)


def _share(connection: psycopg.Connection) -> None:
    """Let this session work out once per landing what several of the live models read.

    Such models become temporary tables, which `pg_temp.fill_shared` fills and the commit empties;
    the models that read them become temporary views. Four models alone read the visits of an
    exchange: worked out for each of them, these cost more than all the rest of a landing.
    """
    # Views that dbt makes anew, as after seeds, take those of this session away that read them.
    current, is_made = warehouse.one(
        connection,
        "select made, current_setting('callhouse.shared', true) = made and not exists ("
        "select from unnest(%s::text[]) as e (name) where to_regclass('pg_temp.' || name) is null) "
        "from (select obj_description('live_intake'::regnamespace)) as o (made)",
        [list(ENDS)],
    )
    if is_made:
        return
    connection.execute("set local search_path = ''")  # the definitions name every schema
    definitions: dict[str, str] = dict(
        connection.execute(
            "select relname::text, pg_get_viewdef(oid) from pg_class "
            "where relnamespace = 'live_intake'::regnamespace and relkind = 'v'"
        ).fetchall()
    )
    reads = {name: re.findall(r"\blive_intake\.(\w+)", text) for name, text in definitions.items()}
    order: list[str] = []  # what a model reads stands before it

    def visit(name: str) -> None:
        if name not in order:
            for read in reads[name]:
                visit(read)
            order.append(name)

    for name in ENDS:
        visit(name)
    readers = Counter(read for name in (*order, "renew") for read in reads.get(name, ENDS))
    old = connection.execute(
        "select relname::text from pg_class where relnamespace = pg_my_temp_schema() "
        "and relkind in ('r', 'v') and relname = any(%s)", [order],
    ).fetchall()  # fmt: skip
    for (name,) in old:
        kind = "select relkind::text from pg_class where oid = to_regclass(%s)"
        found = connection.execute(kind, [f"pg_temp.{name}"]).fetchone()
        if found:  # else it went with another one
            statement = "drop table {} cascade" if found[0] == "r" else "drop view {} cascade"
            connection.execute(sql.SQL(statement).format(sql.Identifier("pg_temp", name)))
    mine: set[str] = set()
    fills = []
    for name in order:
        if readers[name] < 2 and name not in ENDS and mine.isdisjoint(reads[name]):
            continue
        body = re.sub(
            r"\blive_intake\.(\w+)",
            lambda found: f"{'pg_temp' if found[1] in mine else 'live_intake'}.{found[1]}",
            definitions[name].rstrip(";"),
        )
        mine.add(name)
        if readers[name] < 2:
            connection.execute(f"create temporary view {name} as {body}".encode())
        else:
            kept = "on commit delete rows"
            connection.execute(
                f"create temporary table {name} {kept} as {body} with no data".encode()
            )
            fills.append(f"insert into pg_temp.{name} {body};")
    connection.execute(
        "create or replace function pg_temp.fill_shared() returns void language plpgsql "
        f"as $fill$ begin {' '.join(fills)} end $fill$".encode()
    )
    connection.execute("select set_config('callhouse.shared', %s, false)", [current])
    connection.execute("set local search_path to default")


def follow(connection: psycopg.Connection, feed: Feed) -> None:
    """Keep the state of a source that a collector brings from now on. Safe to repeat."""
    connection.execute(
        "insert into live.sources (source, source_name, time_zone) values (%s, %s, %s) "
        "on conflict (source) do update set source_name = excluded.source_name, "
        "time_zone = excluded.time_zone where (sources.source_name, sources.time_zone) "
        "is distinct from (excluded.source_name, excluded.time_zone)",
        [feed.name, feed.label, feed.time_zone],
    )


def seen(connection: psycopg.Connection, source: str) -> None:
    """Note that everything the source has written until now is here."""
    connection.execute(
        "update live.sources set looked_at = now() where source = %s "
        "and obj_description('live_intake'::regnamespace) is not null",
        [source],
    )


def learn(settings: Settings) -> None:
    """Work out what today's quarters of an hour usually bring, once the marts are there."""
    with warehouse.connect(settings) as connection:
        marts = "select to_regclass('marts.agg_queue_15min') is not null"
        if warehouse.one(connection, marts)[0]:
            connection.execute("select live.learn(source) from live.sources")


def is_live(connection: psycopg.Connection, source: str) -> bool:
    """Whether the state of the source is kept, and can be moved just now."""
    return bool(
        warehouse.one(
            connection,
            "select obj_description('live_intake'::regnamespace) is not null "
            "and exists (select from live.sources where source = %s)",
            [source],
        )[0]
    )


def move(
    connection: psycopg.Connection, record: Record, source: str, unit_id: int,
    days: Iterable[datetime.date],
) -> None:  # fmt: skip
    """Take the unit's staged rows of days that go on over, and renew what they touch.

    Nothing where the source is not followed. Within the transaction that stages the rows.
    """
    if not record.partitioned or not is_live(connection, source):
        return
    (first_day,) = warehouse.one(connection, "select live.first_day(%s)", [source])
    wanted = [day for day in days if day >= first_day]
    # Staging may have a column more already: the copy gets it when a collector starts anew.
    copied = [name for name, _ in _columns(connection, f"live.{_name(record)}")]
    names = {
        "table": sql.Identifier("live", _name(record)),
        "staged": store.identifier(record.table),
        "columns": sql.SQL(", ").join(map(sql.Identifier, copied)),
    }
    values = {"source": source, "unit": unit_id, "days": wanted, "first_day": first_day}

    def run(statement: str, **more: sql.Composable) -> None:
        connection.execute(sql.SQL(statement).format(**names, **more), values)

    _forget(connection, source, first_day, [_name(record)])
    if not wanted:
        return
    # A unit of which rows are replayed was here before.
    run("delete from {table} where source = %(source)s and unit_id = %(unit)s")
    run(
        "insert into {table} ({columns}) select {columns} from {staged} where source = %(source)s "
        "and unit_id = %(unit)s and business_day = any(%(days)s)"
    )
    if "call_id" in record.by_name:
        run(
            "insert into live.touched_calls (source, call_id, is_written) "
            "select distinct source, call_id, true from {table} "
            "where source = %(source)s and unit_id = %(unit)s and call_id is not null"
        )
    if "agent_id" in record.by_name:
        run(
            "insert into live.touched_agents (source, agent_id, is_written) "
            "select distinct source, agent_id, true from {table} "
            "where source = %(source)s and unit_id = %(unit)s and agent_id is not null"
        )
    if record.heads:  # an earlier event may have moved the call to another day
        # By a subquery: a join would read all calls that there ever were, as nested loops are off.
        run(
            "with known as materialized (select t.call_id, (select h.business_day from {heads} "
            "as h where h.source = t.source and h.call_id = t.call_id) as business_day "
            "from live.touched_calls as t where t.source = %(source)s) "
            "update {table} as r set business_day = k.business_day from known as k "
            "where r.source = %(source)s and r.call_id = k.call_id "
            "and r.business_day <> k.business_day",
            heads=store.identifier(record.heads),
        )
    if record.key:  # of versions only the newest is kept
        run(
            "delete from {table} as o using {table} as n where n.source = %(source)s "
            "and n.unit_id = %(unit)s and o.source = n.source and o.unit_id <> n.unit_id "
            "and n.superseded_by is null and {same}",
            same=sql.SQL(" and ").join(
                sql.SQL("o.{0} = n.{0}").format(sql.Identifier(column)) for column in record.key
            ),
        )
    # Planning these views costs a hundred times their execution for a few calls: a session that
    # stays, as a collector's does, keeps their plans. Nested loops stay off, as in all landing: a
    # plan that was made for a few calls must do for what was written in an hour, too.
    connection.execute("set local plan_cache_mode = force_generic_plan")
    _plan_anew(connection, record)
    _share(connection)
    connection.execute("select live.renew(%s)", [source])
    run(
        "update live.sources as s set newest_event_at = o.newest_event_at from ops.sources as o "
        "where s.source = %(source)s and o.source = s.source"
    )


def _plan_anew(connection: psycopg.Connection, record: Record) -> None:
    """Let go of plans that were made for a much smaller table: they read the whole of it."""
    size, planned = warehouse.one(
        connection,
        "select pg_relation_size(%s), "
        "coalesce(nullif(current_setting('callhouse.planned_size', true), ''), '0')::bigint",
        [f"live.{_name(record)}"],
    )
    if size > 16 * planned + PLANNED_ANEW:
        connection.execute("discard plans")
        connection.execute("select set_config('callhouse.planned_size', %s, false)", [str(size)])


def _forget(
    connection: psycopg.Connection, source: str, first_day: datetime.date, copies: list[str]
) -> None:
    """Rows of days that are over go: staging and the marts have them."""
    kept = (
        "queue_visits", "agent_connections", "agent_states", "usual_quarters", "day_totals",
        "recent_totals",
    )  # fmt: skip
    for name in (*copies, *kept):
        connection.execute(
            sql.SQL("delete from {} where source = %s and business_day < %s").format(
                sql.Identifier("live", name)
            ),
            [source, first_day],
        )


def rebuild(settings: Settings, wanted: Sequence[str] = ()) -> dict[str, int]:
    """Work the state of the sources out from staging; returns their queue visits."""
    found = {}
    with warehouse.connect(settings) as connection:
        known = [name for (name,) in connection.execute("select source from live.sources")]
        if missing := sorted(set(wanted) - set(known)):
            raise CallhouseError(f"{missing[0]} is no live source: known are {', '.join(known)}")
    for source in wanted or known:
        with warehouse.connect(settings) as connection:
            found[source] = _rebuild(settings, connection, source)
    return found


def _rebuild(settings: Settings, connection: psycopg.Connection, source: str) -> int:
    """One transaction, in which nothing is landed: readers see the state before, or after."""
    connection.execute(
        "select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"land {source}"]
    )  # fmt: skip
    (first_day,) = warehouse.one(connection, "select live.first_day(%s)", [source])
    cold.hold(connection)
    old = {day for day in cold.days_archived(connection) if first_day and day >= first_day}
    cold.thaw(settings, connection, old)
    records = [record for record in registry.records() if record.partitioned]
    end = datetime.date(9999, 12, 31)
    _forget(connection, source, end, [_name(record) for record in records])
    for record in records:
        connection.execute(
            sql.SQL(
                "insert into {} select * from {} where source = %s and business_day >= %s{}"
            ).format(
                sql.Identifier("live", _name(record)), store.identifier(record.table),
                sql.SQL(" and superseded_by is null" if record.key else ""),
            ),
            [source, first_day],
        )  # fmt: skip
    # All at once, as transform does: what is right for a few calls would take hours for a day's.
    connection.execute("set local enable_nestloop = off")
    for kind in ("call", "agent"):
        for record in records:
            if f"{kind}_id" in record.by_name:
                connection.execute(
                    sql.SQL(
                        "insert into {} (source, {column}, is_written) "
                        "select distinct source, {column}, true from {} "
                        "where source = %s and {column} is not null on conflict do nothing"
                    ).format(
                        sql.Identifier("live", f"touched_{kind}s"),
                        sql.Identifier("live", _name(record)),
                        column=sql.Identifier(f"{kind}_id"),
                    ),
                    [source],
                )
    _share(connection)
    connection.execute("select live.renew(%s)", [source])
    counted = "select count(*) from live.queue_visits where source = %s"
    return int(warehouse.one(connection, counted, [source])[0])
