"""Bringing a bundle and the people into Superset, from the pipeline environment."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from callhouse import orchestration, warehouse
from callhouse.errors import CallhouseError
from callhouse.runner import components
from callhouse.security import people, web_password
from callhouse.settings import Settings
from callhouse.transform import dbt, marts

_SUPERSET = Path(__file__).with_name("superset_import.py")
_AIRFLOW = Path(orchestration.__file__).with_name("airflow_users.py")


def import_assets(settings: Settings, bundle: Path) -> str:
    """Import the bundle in folder `bundle`, and see to the users of everyone in sec.people.

    Returns one line that says what was done. Safe to repeat; removes nothing that people made.
    """
    return _run(settings, {**_job(settings), "bundle": str(bundle)})


def synchronise_people(settings: Settings) -> str:
    """Bring users and roles of both products and Superset's row filters up to sec.people."""
    return _run(settings, _job(settings))


def _job(settings: Settings) -> dict[str, Any]:
    with warehouse.connect(settings) as connection:
        people = connection.execute(
            "select p.person, p.label, p.level, p.rights, p.closed_at is null, coalesce("
            " array_agg(array[e.scope_type, e.scope_id, e.mask_level] order by 1)"
            " filter (where e.person is not null), '{}')"
            " from sec.people as p left join sec.entitlement as e"
            " on p.person = e.person and e.valid @> statement_timestamp()"
            " group by p.person order by 1"
        ).fetchall()
    return {
        "bundle": None,
        "admin": {"name": "admin", "password": settings.secret("superset_admin_password")},
        "people": [
            {
                "name": name, "label": label, "password": web_password(settings, name),
                "level": level, "rights": rights, "is_active": is_active,
                "scopes": [scope_name(kind, value, mask) for kind, value, mask in scopes],
            }
            for name, label, level, rights, is_active, scopes in people
        ],
        "filters": row_filters(
            marts.from_manifest(dbt.manifest(settings)),
            {tuple(scope) for *_, scopes in people for scope in scopes},
        ),
    }  # fmt: skip


def scope_name(kind: str, value: str, mask_level: str) -> str:
    """Name of the Superset role of a scope."""
    if mask_level == "aggregate":
        return "Callhouse sees aggregates"
    return f"Callhouse sees {kind}" + (f" {value}" if kind != "all" else "")


def row_filters(
    published: list[marts.Mart], scopes: set[tuple[str, str, str]]
) -> list[dict[str, Any]]:
    """Superset's row filters, from the same columns as the policies of the marts.

    The second belt: the database decides alone, and these must never show more than it. A person
    without any role of a scope is stopped by the filter `1 = 0` of the base type; a scope's filters
    are of one group, so that Superset joins them by OR.
    """
    scoped = [mart for mart in published if mart.is_scoped and not mart.is_aggregate]
    named = {scope_name(*scope): scope for scope in sorted(scopes)}
    all_scopes = sorted(name for name, scope in named.items() if scope[2] != "aggregate")
    everybody = [name for name, scope in named.items() if scope[0] == "all"]
    filters = [
        {
            "name": "Callhouse: calls need a scope", "type": "Base", "group": None,
            "clause": "1 = 0", "roles": all_scopes, "tables": [mart.name for mart in scoped],
        },
        {
            "name": "Callhouse: aggregates need the scope all", "type": "Base", "group": None,
            "clause": "1 = 0", "roles": everybody,
            "tables": [mart.name for mart in published if mart.is_aggregate],
        },
        {
            "name": "Callhouse: people only", "type": "Base", "group": None, "clause": "1 = 0",
            "roles": ["Callhouse viewer"], "tables": None,  # every other dataset
        },
    ]  # fmt: skip
    for name in all_scopes:
        kind, value, _ = named[name]
        by_clause: dict[str, list[str]] = {}
        for mart in scoped:
            by_clause.setdefault(_clause(mart, kind, value), []).append(mart.name)
        for number, (clause, tables) in enumerate(sorted(by_clause.items()), start=1):
            filters.append(
                {
                    "name": f"{name} ({number})", "type": "Regular", "group": "callhouse scope",
                    "clause": clause, "roles": [name], "tables": tables,
                }
            )  # fmt: skip
    return filters


def _clause(mart: marts.Mart, kind: str, value: str) -> str:
    if kind == "all":
        return "1 = 1"
    quoted = value.replace("'", "''")
    columns = [column for column, scope in mart.scopes.items() if scope == kind]
    if not columns:
        return "1 = 0"
    clause = f"{columns[0]} = '{quoted}'"
    if people.SOURCE_MARK in value and mart.has_source:
        return f"({clause} or {marts.of_source(columns[0])} = '{quoted}')"
    return clause


def _run(settings: Settings, job: dict[str, Any]) -> str:
    # At once: each takes seconds to start.
    with ThreadPoolExecutor() as pool:
        airflow = pool.submit(_script, settings, "airflow", _AIRFLOW, {"people": job["people"]})
        superset = pool.submit(_script, settings, "superset", _SUPERSET, job)
        return f"{superset.result()}; {airflow.result()}"


def _script(settings: Settings, product: components.Kind, script: Path, job: dict[str, Any]) -> str:
    """The last line that `script` prints, run by the product's Python; else CallhouseError."""
    directory = settings.pipeline_bin if product == "airflow" else settings.superset_bin
    # Passwords travel by stdin: arguments and environments can be read by others.
    result = subprocess.run(
        [directory / "python", script],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        cwd=settings.home,
        env=components.component_environment(settings, product),
    )
    if result.returncode:
        log = settings.log_directory / f"{script.stem}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(result.stderr, encoding="utf-8")
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else "no message"
        raise CallhouseError(f"{product} could not be brought up to date: {reason} (see {log})")
    return result.stdout.strip().splitlines()[-1]
