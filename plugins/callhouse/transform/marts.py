"""Published tables: made from the dbt contracts, protected when they are made, never replaced."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from callhouse import warehouse
from callhouse.errors import CallhouseError

# Columns that row security reads, and the scope type each belongs to.
SCOPE_COLUMNS = {
    "region_code": "region",
    "team_id": "team",
    "queue_id": "queue",
    "agent_id": "agent",
}

# Views of warehouse/{ledger,capture,alerts,annotations}.sql and the queue of the quality check:
# their owner reads for the reader, and each says for whom.
LEDGER = (
    "data_status", "source_days", "fct_landed_units", "fct_landed_days", "fct_day_balances",
    "fct_restatements", "fct_dq_results", "fct_releases", "capture_status", "fct_capture_health",
    "fct_incidents", "fct_alert_events", "fct_annotations", "quality_checks",
)  # fmt: skip

# Views of readers over marts, for boards, and what they read.
BOARD_VIEWS = Path(warehouse.__file__).with_name("board_views.sql")
BOARD_VIEWS_READ = {
    "agg_calls_daily", "agg_groups_daily", "dim_channel", "dim_outcome", "fct_calls",
    "fct_channel_requests",
}  # fmt: skip

# `comment on …` of the view of callers, which no dbt contract describes.
CALLER_DESCRIPTIONS = {
    "view bi.dim_caller": "One row per identified caller of a source, as far as the reader may see "
    "their calls. Reads as much history as is asked for: filter by caller_token.",
    "column bi.dim_caller.source": "Source of the calls.",
    "column bi.dim_caller.caller_token": "Keyed token in the place of the number or customer id.",
    "column bi.dim_caller.region_code": "Region of the caller in the newest call.",
    "column bi.dim_caller.caller_carrier": "Carrier of the number in the newest call; may be null.",
    "column bi.dim_caller.first_arrived_at": "Arrival of the first call.",
    "column bi.dim_caller.newest_arrived_at": "Arrival of the newest call.",
    "column bi.dim_caller.calls": "Calls, unanswered ones included; phantom records are none.",
    "column bi.dim_caller.caller_masked": "As in bi.fct_calls, of the newest call.",
}
# The queue of the quality check: `comment on …` of its view.
CHECKS = "quality_checks"
CHECKED = "bridge_call_anomaly"
CHECKS_DESCRIPTION = (
    "One row per call and rule of abnormal calls that it breaks, until somebody has reviewed it: "
    "a row leaves with its review, and comes back where another version of the rule flags the call."
)
# For those who see masks: `(select …)` is evaluated once, and spares the others a call per row.
MASKED_CALLER = (
    "case when caller_token is not null and (select sec.sees_masks()) "
    "then sec.masked_caller({day}, {call}) end"
)


@dataclass(frozen=True)
class Mart:
    """A published relation as its dbt contract describes it."""

    name: str
    description: str
    columns: tuple[tuple[str, str, str], ...]  # name, data type, description
    primary_key: tuple[str, ...]
    is_by_day: bool
    is_scoped: bool
    is_aggregate: bool = False  # of groups too large to tell of a person
    lane: str = "facts"
    indexes: tuple[tuple[str, ...], ...] = ()  # beside the primary key's
    counted_against: str | None = None  # candidate relation with as many rows, by `counted_by`
    counted_by: tuple[str, ...] = ()
    masked_caller: str | None = None  # what the view's column `caller_masked` says

    @property
    def scopes(self) -> dict[str, str]:
        """Columns that row security reads, and the scope type of each."""
        names = {name for name, _, _ in self.columns}
        return {column: scope for column, scope in SCOPE_COLUMNS.items() if column in names}

    @property
    def has_source(self) -> bool:
        """Whether each row is of one source."""
        return any(name == "source" for name, _, _ in self.columns)

    @property
    def condition(self) -> str:
        """SQL that says whether the connected login may see a row.

        Sub-selects are evaluated once per statement; a call per row would cost 250 times that.
        """
        if self.is_aggregate:
            return "(select sec.sees_aggregates())"
        if not self.is_scoped:
            return "true"
        parts = ["(select sec.sees_all())"]
        parts += [
            f"{column} = any ((select sec.scope('{scope}'))::text[])"
            for column, scope in self.scopes.items()
        ]
        if self.has_source and self.scopes:
            # For the few who have such a scope. One comparison for all columns: the planner counts
            # what nobody evaluates, too, and took workers to tasks that are over before they begin.
            named = (f"'{scope}=' || {of_source(column)}" for column, scope in self.scopes.items())
            parts.append(
                "(select sec.names_sources())"
                f" and array[{', '.join(named)}] && (select sec.named_scopes())::text[]"
            )
        return " or ".join(parts)

    @property
    def contract(self) -> str:
        """Fingerprint of what the table must look like, and who may see its rows."""
        shape = [self.name, [c[:2] for c in self.columns], self.primary_key, self.is_by_day,
                 self.condition, self.lane, self.indexes,
                 self.counted_against, self.counted_by]  # fmt: skip
        if self.masked_caller:
            shape.append("caller_masked")
        return hashlib.sha256(json.dumps(shape).encode()).hexdigest()


def from_manifest(manifest: dict[str, Any]) -> list[Mart]:
    """The models that are published, in name order."""
    marts = []
    for node in manifest["nodes"].values():
        meta = node["config"].get("meta", {}) if node["resource_type"] == "model" else {}
        if not meta.get("published"):
            continue
        counted = meta.get("counted_against", {})
        marts.append(
            Mart(
                name=node["name"],
                description=node["description"].strip(),
                columns=tuple(
                    (c["name"], c["data_type"], (c["description"] or "").strip())
                    for c in node["columns"].values()
                ),
                primary_key=tuple(meta["primary_key"]),
                is_by_day=bool(meta["by_day"]),
                # Closed unless the model says that everyone may read it.
                is_scoped=meta.get("row_security") != "none",
                is_aggregate=meta.get("row_security") == "aggregate",
                lane=meta.get("lane", "facts"),
                indexes=tuple(tuple(columns) for columns in meta.get("indexes", ())),
                counted_against=counted.get("relation"),
                counted_by=tuple(counted.get("by", ())),
                masked_caller=meta.get("masked_caller", {}).get("description"),
            )
        )
    return sorted(marts, key=lambda m: m.name)


def synchronise(connection: psycopg.Connection, marts: list[Mart]) -> list[str]:
    """Make `marts.*` and `bi.*` agree with the contracts; returns what was changed.

    Additive changes are made; anything else raises CallhouseError, since it needs a migration.
    """
    changes: list[str] = []
    with connection.transaction():
        connection.execute("set local role callhouse_owner")
        known: dict[str, tuple[str, list[str]]] = {
            relation: (contract, key)
            for relation, contract, key in connection.execute(
                "select relation, contract, primary_key from ops.marts"
            )
        }
        for mart in marts:
            contract, key = known.get(mart.name, (None, []))
            if contract == mart.contract:
                continue
            if mart.name in known:
                changes += _add_columns(connection, mart)
                if tuple(key) != mart.primary_key:
                    changes += _change_key(connection, mart)
            else:
                _create(connection, mart)
                changes.append(f"created marts.{mart.name}")
                if mart.is_by_day:
                    _mark_published(connection, mart, f"new mart {mart.name}")
            _index(connection, mart)
            _protect(connection, mart)
            _describe(connection, mart)
            _create_view(connection, mart)
            connection.execute(
                "insert into ops.marts (relation, columns, primary_key, is_by_day, lane, contract, "
                "counted_against, counted_by) "
                "values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict (relation) do update set "
                "columns = excluded.columns, primary_key = excluded.primary_key, "
                "lane = excluded.lane, contract = excluded.contract, "
                "counted_against = excluded.counted_against, counted_by = excluded.counted_by",
                [mart.name, [c[0] for c in mart.columns], list(mart.primary_key), mart.is_by_day,
                 mart.lane, mart.contract, mart.counted_against, list(mart.counted_by)],
            )  # fmt: skip
        gone = sorted(set(known) - {m.name for m in marts})
        if gone:
            raise CallhouseError(
                f"marts.{gone[0]} is published but no longer in the dbt project: "
                "write a migration that drops it, or bring the model back"
            )
        for mart in marts:
            if mart.masked_caller:
                _create_caller_view(connection)
            if mart.name == CHECKED:
                _create_check_view(connection, mart)
        if {mart.name for mart in marts} >= BOARD_VIEWS_READ:
            connection.execute(BOARD_VIEWS.read_text(encoding="utf-8"))
    return changes


def _create(connection: psycopg.Connection, mart: Mart) -> None:
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(data_type))
        for name, data_type, _ in mart.columns
    ]
    key = sql.SQL(", ").join(map(sql.Identifier, mart.primary_key))
    statement = sql.SQL("create table marts.{} ({}, primary key ({}))").format(
        sql.Identifier(mart.name), sql.SQL(", ").join(columns), key
    )
    if mart.is_by_day:
        statement += sql.SQL(" partition by range (business_day)")
    connection.execute(statement)


def _add_columns(connection: psycopg.Connection, mart: Mart) -> list[str]:
    existing: dict[str, str] = dict(
        connection.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
            [f"marts.{mart.name}"],
        ).fetchall()
    )
    wanted = {name: _canonical(connection, data_type) for name, data_type, _ in mart.columns}
    broken = [f"{n} is {t}" for n, t in existing.items() if wanted.get(n) != t]
    if broken:
        raise CallhouseError(
            f"marts.{mart.name} no longer fits its contract ({', '.join(broken)}): "
            "a breaking change needs a migration in plugins/callhouse/warehouse/migrations"
        )
    changes = []
    # Partitions belong to who publishes, the table to the owner; the login has the rights of both.
    connection.execute("reset role")
    for name, data_type, _ in mart.columns:
        if name not in existing:
            connection.execute(
                sql.SQL("alter table marts.{} add column {} {}").format(
                    sql.Identifier(mart.name), sql.Identifier(name), sql.SQL(data_type)
                )
            )
            changes.append(f"added marts.{mart.name}.{name}")
    connection.execute("set local role callhouse_owner")
    if changes and mart.is_by_day:
        # The new column is empty in what is published: every day has to be built again.
        _mark_published(connection, mart, f"new column in {mart.name}")
    return changes


def _change_key(connection: psycopg.Connection, mart: Mart) -> list[str]:
    """Give a table that every build publishes whole another key; it is empty until the next one."""
    if mart.is_by_day:
        raise CallhouseError(
            f"marts.{mart.name} has another key in its contract: "
            "a breaking change needs a migration in plugins/callhouse/warehouse/migrations"
        )
    statement = sql.SQL(
        "truncate {table}; alter table {table} drop constraint {name}, add primary key ({key})"
    ).format(
        table=sql.Identifier("marts", mart.name),
        name=sql.Identifier(f"{mart.name}_pkey"),
        key=sql.SQL(", ").join(map(sql.Identifier, mart.primary_key)),
    )
    connection.execute(statement)
    _mark_published(connection, mart, f"new key of {mart.name}")
    return [f"changed the key of marts.{mart.name}"]


def _mark_published(connection: psycopg.Connection, mart: Mart, reason: str) -> None:
    connection.execute(
        "insert into ops.dirty_marks (business_day, reason, lane) "
        "select business_day, %s, %s from ops.published_days where lane = 'facts'",
        [reason, mart.lane],
    )


def _index(connection: psycopg.Connection, mart: Mart) -> None:
    # Partitions to come are made LIKE their parent, and so have its indexes.
    for columns in mart.indexes:
        connection.execute(
            sql.SQL("create index if not exists {} on marts.{} ({})").format(
                sql.Identifier("_".join((mart.name, *columns))),
                sql.Identifier(mart.name),
                sql.SQL(", ").join(map(sql.Identifier, columns)),
            )
        )


def _canonical(connection: psycopg.Connection, data_type: str) -> str:
    return str(warehouse.one(connection, "select format_type(%s::regtype, null)", [data_type])[0])


def of_source(column: str) -> str:
    """SQL of a scope id that means one source only."""
    return f"(source || '/' || {column})"


def _protect(connection: psycopg.Connection, mart: Mart) -> None:
    table = sql.Identifier("marts", mart.name)
    for statement in (
        "alter table {} enable row level security",
        "alter table {} force row level security",
        "drop policy if exists pipeline on {}",
        "create policy pipeline on {} to callhouse_owner using (true) with check (true)",
        "drop policy if exists reader on {}",
    ):
        connection.execute(sql.SQL(statement).format(table))
    connection.execute(
        sql.SQL("create policy reader on {} for select to callhouse_reader using ({})").format(
            table, sql.SQL(mart.condition)
        )
    )
    connection.execute(sql.SQL("grant select on {} to callhouse_reader").format(table))


def _describe(connection: psycopg.Connection, mart: Mart) -> None:
    connection.execute(
        sql.SQL("comment on table {} is {}").format(
            sql.Identifier("marts", mart.name), sql.Literal(mart.description)
        )
    )
    for name, _, description in mart.columns:
        connection.execute(
            sql.SQL("comment on column {} is {}").format(
                sql.Identifier("marts", mart.name, name), sql.Literal(description)
            )
        )


def _create_view(connection: psycopg.Connection, mart: Mart) -> None:
    view = sql.Identifier("bi", mart.name)
    shown: dict[str, sql.Composable] = {
        name: sql.Identifier(name) for name in _columns(connection, f"marts.{mart.name}")
    }
    if mart.masked_caller:
        masked = MASKED_CALLER.format(day="business_day", call="call_key")
        shown["caller_masked"] = sql.SQL("{} as caller_masked").format(sql.SQL(masked))
    # A view that is replaced may only grow at its end: what it has comes first.
    order = dict.fromkeys((*_columns(connection, f"bi.{mart.name}"), *shown))
    connection.execute(
        sql.SQL(
            "create or replace view {} with (security_invoker, security_barrier) as "
            "select {} from marts.{}"
        ).format(
            view,
            sql.SQL(", ").join(shown[name] for name in order),
            sql.Identifier(mart.name),
        )
    )
    connection.execute(sql.SQL("grant select on {} to callhouse_reader").format(view))
    if mart.masked_caller:
        connection.execute(
            sql.SQL("comment on column {} is {}").format(
                sql.Identifier("bi", mart.name, "caller_masked"), sql.Literal(mart.masked_caller)
            )
        )


def _columns(connection: psycopg.Connection, relation: str) -> list[str]:
    """Names in their order; none of a relation that is not there."""
    return [
        name
        for (name,) in connection.execute(
            "select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 "
            "and not attisdropped order by attnum",
            [relation],
        )
    ]


def _create_caller_view(connection: psycopg.Connection) -> None:
    # A view and no table: each day's new calls would change the rows of callers of any age. Under
    # row security it tells of a caller what the reader may see of the calls.
    masked = MASKED_CALLER.format(day="newest_day", call="newest_call_key")
    connection.execute(
        sql.SQL("""
        create or replace view bi.dim_caller with (security_invoker, security_barrier) as
        select
            source,
            caller_token,
            region_code,
            caller_carrier,
            first_arrived_at,
            newest_arrived_at,
            calls,
            {} as caller_masked
        from (
            select
                source,
                caller_token,
                (array_agg(region_code order by arrived_at desc, call_key desc))[1] as region_code,
                (array_agg(caller_carrier order by arrived_at desc, call_key desc))[1]
                    as caller_carrier,
                min(arrived_at) as first_arrived_at,
                max(arrived_at) as newest_arrived_at,
                sum(calls) as calls,
                (array_agg(business_day order by arrived_at desc, call_key desc))[1] as newest_day,
                (array_agg(call_key order by arrived_at desc, call_key desc))[1] as newest_call_key
            from marts.fct_calls
            where caller_token is not null
            group by source, caller_token
        ) as seen
        """).format(sql.SQL(masked))
    )
    for what, text in CALLER_DESCRIPTIONS.items():
        connection.execute(sql.SQL("comment on {} is {}").format(sql.SQL(what), sql.Literal(text)))
    connection.execute("grant select on bi.dim_caller to callhouse_reader")


def _create_check_view(connection: psycopg.Connection, mart: Mart) -> None:
    # Readers cannot read the reviews of others' calls, so the owner reads both: under the condition
    # of the mart's own policy.
    shown = sql.SQL(", ").join(sql.Identifier(name) for name, _, _ in mart.columns)
    connection.execute(
        sql.SQL("""
        create or replace view bi.quality_checks with (security_barrier) as
        select {} from marts.{} as broken
        where
            ((select pg_has_role(session_user, 'callhouse_owner', 'member')) or {})
            and not exists (
                select from ops.quality_reviews as reviews
                where
                    reviews.call_key = broken.call_key
                    and reviews.rule = broken.rule
                    and reviews.rule_version = broken.rule_version
            )
        """).format(shown, sql.Identifier(mart.name), sql.SQL(mart.condition))
    )
    connection.execute(
        sql.SQL("comment on view bi.quality_checks is {}").format(sql.Literal(CHECKS_DESCRIPTION))
    )
    connection.execute("grant select on bi.quality_checks to callhouse_reader")


def unprotected(connection: psycopg.Connection) -> list[str]:
    """Relations that readers can reach without row security; must be empty."""
    rows = connection.execute(
        """
        select n.nspname || '.' || c.relname
        from pg_class as c
        inner join pg_namespace as n on c.relnamespace = n.oid
        where
            n.nspname not in ('pg_catalog', 'information_schema')
            and has_table_privilege('callhouse_reader', c.oid, 'select')
            and not (c.relrowsecurity and c.relforcerowsecurity)
            and not (
                c.relkind = 'v'
                and (
                    c.reloptions @> '{security_invoker=true}'
                    or (n.nspname = 'bi' and c.relname = any(%s))
                )
            )
            and c.relkind in ('r', 'p', 'v', 'm', 'f')
        order by 1
        """,
        [list(LEDGER)],
    ).fetchall()
    return [str(row[0]) for row in rows]
