"""What an entry of the trail is, and how lines of the server's log and of journals become one."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from callhouse.errors import CallhouseError
from callhouse.landing import store

SUPERSET = "callhouse superset"  # application_name of Superset's connections
PSQL = "callhouse psql"  # of `./callhouse psql`, followed by the account that called it
PROGRAMS = (None, "dbt", "callhouse-audit")  # how this project's own programs name themselves

DURATION = re.compile(
    r"duration: (?P<ms>[\d.]+) ms  (?:statement|execute .*?|fastpath function call): (?P<text>.*)",
    re.DOTALL,
)
AUTHORIZED = re.compile(r"connection authorized: user=.*? database=\S+(?: application_name=(.*))?")
AUDIT = re.compile(r"AUDIT: SESSION,\d+,\d+,\w+,")
# One statement that reads nothing: what drivers send by themselves.
SILENT = re.compile(
    r"\s*(?:(?:begin|commit|rollback|abort|end|start\s+transaction|savepoint|release|deallocate"
    r"|discard|close|set|show)\b[^;]*|select\s+(?:1|pg_catalog\.version\(\)|current_schema\(\))"
    r"|select\s+t\.oid,\s+typarray\s+from\s+pg_type\s+t\s+join\s+pg_namespace\s+ns"
    r"\s+on\s+typnamespace\s+=\s+ns\.oid\s+where\s+typname\s+=\s+'hstore')"
    r";?\s*",
    re.IGNORECASE,
)
COPY_OUT = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|;)*copy\b.+\bto\b", re.IGNORECASE | re.DOTALL)
RELATION = re.compile(r"\b((?:fct|dim|agg)_[a-z0-9_]+|data_status|capture_status)\b", re.IGNORECASE)
# No right, or a write by a login that only reads.
OUTCOMES = {"42501": "denied", "25006": "denied", "57014": "cancelled",
            "28P01": "refused", "28000": "refused"}  # fmt: skip

LITERAL = re.compile(r"'(?:[^']|'')*'")
PASSWORD = re.compile(r"\b(password\s*=?\s*)'(?:[^']|'')*'", re.IGNORECASE)
# Of a caller's token (or any uuid) the beginning is kept: auditors find what belongs together, and
# no entry has to be changed when the caller is erased.
TOKEN = re.compile(
    r"(?<![0-9a-f])([0-9a-f]{8})-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}(?![0-9a-f])",
    re.IGNORECASE,
)
# Seven digits or more, with what people write between them; a date is none.
NUMBER = re.compile(
    r"(?P<moment>(?<!\d)(?:19|20)\d\d-[01]\d-[0-3]\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?(?!\d))"
    r"|\+?\(?\d(?:[ ().\-/]{0,2}\d){6,}"
)


@dataclass(frozen=True)
class Entry:
    """One entry, as trail.append takes it. `happened_at` is ISO 8601 with an offset."""

    happened_at: str
    origin: str
    action: str
    source_position: str
    person: str | None = None
    address: str | None = None
    program: str | None = None
    object_name: str | None = None
    statement: str | None = None
    row_count: int | None = None
    is_export: bool = False
    outcome: str = "ok"


TEXTS = tuple(f.name for f in fields(Entry) if f.name not in ("row_count", "is_export"))


def masked(statement: str) -> str:
    """`statement` without passwords; what looks like a caller is masked as in quarantine."""
    text = PASSWORD.sub(r"\1'***'", statement)
    text = LITERAL.sub(lambda m: store.masked(m[0]) if "@" in m[0] else m[0], text)
    text = TOKEN.sub(r"\1-####", text)
    return NUMBER.sub(lambda m: m[0] if m["moment"] else store.masked(m[0]), text)


def of_server(line: bytes, position: str, services: frozenset[str]) -> Entry | None:
    """The entry of a line of the server's jsonlog; None where the line tells of no access.

    Of `services` (logins of programs) only what a person does with them counts: log-ins of
    interactive programs, refused log-ins, statements of `./callhouse psql`, and what pgaudit was
    told to log of them. Of people the statement log has more than pgaudit: how a statement ended.
    """
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return _unreadable("postgres", line, position)
    user, severity = told.get("user"), told.get("error_severity", "")
    if not user:
        return None
    program = told.get("application_name") or None
    is_service = user in services and not (program or "").startswith(PSQL)
    found: dict[str, Any] | None
    if severity in ("ERROR", "FATAL", "PANIC"):
        found = _failure(told, is_service=is_service)
    elif severity == "LOG":
        found = _success(told, is_service=is_service)
    else:
        return None
    if found is None:
        return None
    began = _moment(told["timestamp"]) - timedelta(milliseconds=found.pop("lasted", 0.0))
    statement = found.get("statement")
    if statement and (values := _parameters(told)):
        statement = f"{statement}\n-- {values}"
    named = RELATION.findall(found.get("statement") or "")
    return Entry(
        **{
            "program": program,
            "object_name": ", ".join(sorted({name.lower() for name in named})) or None,
            **found,
            "happened_at": began.isoformat(),
            "origin": "postgres",
            "source_position": position,
            "person": user,
            "address": told.get("remote_host"),
            "statement": masked(statement) if statement else None,
        }
    )


def _success(told: dict[str, Any], *, is_service: bool) -> dict[str, Any] | None:
    message = told.get("message", "")
    if authorized := AUTHORIZED.fullmatch(message):
        program = authorized[1]
        # Superset connects for every query; programs of services say nothing about themselves.
        if program == SUPERSET or (is_service and program in PROGRAMS):
            return None
        return {"action": "login", "program": program}
    if is_service:
        return _told_by_pgaudit(message) if AUDIT.match(message) else None
    if logged := DURATION.fullmatch(message):
        found = _statement(logged["text"])
        return found and {**found, "lasted": float(logged["ms"])}
    return None


def _statement(text: str) -> dict[str, Any] | None:
    if SILENT.fullmatch(text):
        return None
    is_export = COPY_OUT.match(text) is not None
    return {
        "action": "export" if is_export else "query",
        "statement": text,
        "is_export": is_export,
    }


def _told_by_pgaudit(message: str) -> dict[str, Any] | None:
    """`AUDIT: SESSION,id,sub id,class,command,object type,object,statement,parameters[,rows]`."""
    import csv

    cells = next(csv.reader([message.removeprefix("AUDIT: ")]), [])
    # A statement within a function has a number of its own: the person's is the first.
    if len(cells) < 9 or cells[2] != "1":
        return None
    found = _statement(cells[7])
    if found is None:
        return None
    if cells[6]:
        found["object_name"] = cells[6]
    if not cells[8].startswith("<"):
        found["statement"] += f"\n-- parameters: {cells[8]}"
    if len(cells) > 9 and cells[9].isdigit():
        found["row_count"] = int(cells[9])
    return found


def _failure(told: dict[str, Any], *, is_service: bool) -> dict[str, Any] | None:
    state, statement = told.get("state_code", ""), told.get("statement")
    outcome = OUTCOMES.get(state, "failed")
    if statement is None:
        if told["error_severity"] == "FATAL" and told.get("backend_type") == "client backend":
            if state.startswith("28"):
                return {"action": "login_failed", "outcome": outcome}
            if state in ("42501", "3D000", "53300"):  # no right, no such database, no place
                return {"action": "login_failed", "outcome": outcome}
        return None
    if is_service:
        return None
    found = _statement(statement) or {"action": "query", "statement": statement}
    action = "denied" if outcome == "denied" else found["action"]
    return {**found, "action": action, "outcome": outcome}


def _parameters(told: dict[str, Any]) -> str | None:
    detail = str(told.get("detail") or "")
    return detail if detail.lower().startswith("parameters:") else None


def _moment(text: str) -> datetime:
    moment, _, zone = text.rpartition(" ")
    if zone not in ("UTC", "GMT"):
        raise CallhouseError(
            f"the server's log is in the zone {zone}: set log_timezone = 'UTC' and reload, so that "
            "the audit trail knows when something happened"
        )
    return datetime.fromisoformat(moment).replace(tzinfo=UTC)


def of_journal(line: bytes, position: str, origin: str) -> Entry | None:
    """The entry of a line of `journal.write`; None for an empty line."""
    if not line.strip():
        return None
    try:
        told = json.loads(line)
        happened = datetime.fromisoformat(told["happened_at"])
        given = Entry(**{**told, "origin": origin, "source_position": position})
        count = given.row_count
        if (
            happened.tzinfo is None
            or any(not isinstance(getattr(given, name), str | None) for name in TEXTS)
            or not isinstance(given.is_export, bool)
            or not (count is None or (type(count) is int and abs(count) < 2**63))
        ):
            return _unreadable(origin, line, position)
    except (ValueError, KeyError, TypeError):
        return _unreadable(origin, line, position)
    return replace(
        given, happened_at=happened.isoformat(), statement=masked(given.statement or "") or None
    )


def _unreadable(origin: str, line: bytes, position: str) -> Entry:
    """What was cut off or damaged is told, not passed over. Its content may be anything: masked."""
    return Entry(
        happened_at=datetime.now(UTC).isoformat(),
        origin=origin,
        action="unreadable",
        source_position=position,
        statement=store.masked(line.decode("utf-8", "replace")[:200]),
        outcome="failed",
    )
