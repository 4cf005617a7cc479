"""People: their entitlements, and the personal PostgreSQL login that row security reads."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import psycopg
import yaml
from psycopg import sql

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.security import check_person, login_password
from callhouse.settings import LANGUAGES, Settings

SCOPE_TYPES = ("all", "region", "team", "queue", "agent")
MASK_LEVELS = ("masked", "token", "aggregate")
RIGHTS = ("export", "edit", "admin")
# A scope id such as `site_a/101` is of one source; without it, of every source that has the id.
SOURCE_MARK = "/"
MAIL_ADDRESS = re.compile(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+")


@dataclass(frozen=True)
class Level:
    """A kind of reader: the scopes that it may be given, and how callers are shown to it."""

    scopes: tuple[str, ...]
    mask_level: str


LEVELS = {
    "agent": Level(("agent",), "masked"),
    "lead": Level(("team", "queue"), "masked"),
    "manager": Level(SCOPE_TYPES, "masked"),
    "executive": Level(("all",), "aggregate"),
    "analyst": Level(SCOPE_TYPES, "token"),
    "engineer": Level((), "token"),  # the ledger, but no call
    "auditor": Level((), "token"),  # who looked at what, but no call
}

# Readers of what is no call.
WITHOUT_SCOPES = tuple(name for name, level in LEVELS.items() if not level.scopes)

# What every personal login starts with. People may change some of it in their session: none of it
# is a protection, row security and grants are.
LOGIN_SETTINGS = (
    ("default_transaction_read_only", "on"),
    ("statement_timeout", "60s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("search_path", "bi"),
    ("log_min_duration_statement", "0"),  # the audit trail reads them from the log
)
LOGIN_CONNECTIONS = 40  # of one person, all tools together


@dataclass(frozen=True)
class Person:
    """Someone who may look, and what they may see: pairs of scope type and id."""

    name: str
    label: str
    scopes: tuple[tuple[str, str], ...]
    is_demo: bool = False
    level: str = "manager"
    rights: tuple[str, ...] = ()
    until: datetime | None = None  # end of the scopes
    mail: str | None = None  # where reports go; None: as it was, like the two below
    language: str | None = None
    time_zone: str | None = None

    def check(self) -> Person:
        """The same person, or CallhouseError that says what cannot be."""
        check_person(self.name)
        level = _one_of("level", self.level, LEVELS)
        check_contact(self.mail, self.language, self.time_zone)
        for right in self.rights:
            _one_of("right", right, RIGHTS)
        for scope_type, scope_id in self.scopes:
            _one_of("scope", scope_type, SCOPE_TYPES)
            if scope_type not in LEVELS[level].scopes:
                allowed = ", ".join(LEVELS[level].scopes) or "none"
                raise CallhouseError(
                    f"{self.name}: {level} cannot be given {scope_type} (may be given: {allowed})"
                )
            if (scope_type == "all") != (scope_id == "*") or not scope_id:
                raise CallhouseError(
                    f"{self.name}: {scope_type}={scope_id} is no scope: write all, or TYPE=ID"
                )
        return self


DEMO_PEOPLE = (
    Person(
        "director", "Director (sees everything)", (("all", "*"),), is_demo=True,
        rights=("export", "edit"),
    ),
    Person("manager_gd", "Regional manager Guangdong", (("region", "CN-GD"),), is_demo=True),
    Person("lead_gz_a", "Lead of team Guangzhou A", (("team", "GZ-A"),), is_demo=True,
           level="lead"),
    Person("agent_103", "Agent 103 (own calls)", (("agent", "103"),), is_demo=True,
           level="agent"),
    Person("executive", "Executive (groups of 5 and more)", (("all", "*"),), is_demo=True,
           level="executive"),
    Person("analyst", "Analyst (all calls, tokens for callers)", (("all", "*"),), is_demo=True,
           level="analyst", rights=("export",)),
    Person("engineer", "Data engineer (pipelines, no call)", (), is_demo=True, level="engineer"),
    Person("auditor", "Auditor (who looked at what)", (), is_demo=True, level="auditor"),
    Person("former", "Former manager (expired, sees nothing)", (("all", "*"),), is_demo=True,
           until=datetime(2026, 1, 1, tzinfo=UTC)),
)  # fmt: skip


def _one_of(what: str, value: str, known: Iterable[str]) -> str:
    if value not in known:
        raise CallhouseError(f"{value!r} is no {what}: use one of {', '.join(known)}")
    return value


def parse_scope(text: str) -> tuple[str, str]:
    """`all` or `TYPE=ID` as a pair; CallhouseError otherwise."""
    scope_type, _, scope_id = text.partition("=")
    if text == "all":
        return "all", "*"
    _one_of("scope", scope_type, SCOPE_TYPES)
    if not scope_id or scope_type == "all":
        raise CallhouseError(f"{text!r} is no scope: write all, or TYPE=ID such as region=CN-GD")
    return scope_type, scope_id


def server(settings: Settings) -> psycopg.Connection:
    """A superuser's connection to the warehouse: only it may create logins and end sessions."""
    try:
        return psycopg.connect(settings.dsn("postgres"), connect_timeout=10)
    except psycopg.OperationalError as error:
        raise CallhouseError(
            "logins are made by the server's superuser, who could not connect "
            f"({str(error).strip().splitlines()[-1]}): set CALLHOUSE_SECRET_POSTGRES_PASSWORD"
        ) from None


def ensure(
    settings: Settings,
    connection: psycopg.Connection,
    person: Person,
    by: str = "callhouse",
    reason: str = "created with the person",
    managed_by: str = "command",
) -> None:
    """Create `person`'s login and entitlements, or bring them up to date.

    `connection` is a superuser's (see `server`). Scopes that the person has beyond those of
    `person` stay; someone who was closed is open again.
    """  # fmt: skip
    person.check()
    with connection.transaction():
        name = sql.Identifier(person.name)
        known = connection.execute("select 1 from pg_roles where rolname = %s", [person.name])
        if known.fetchone() is None:
            connection.execute(sql.SQL("create role {} login").format(name))
        connection.execute(
            sql.SQL(
                "alter role {} login nosuperuser nocreatedb nocreaterole noreplication nobypassrls "
                "connection limit {} password {}"
            ).format(
                name,
                sql.Literal(LOGIN_CONNECTIONS),
                sql.Literal(login_password(settings, person.name)),
            )
        )
        connection.execute(sql.SQL("grant callhouse_reader to {}").format(name))
        for setting, value in LOGIN_SETTINGS:
            connection.execute(
                sql.SQL("alter role {} set {} = {}").format(
                    name, sql.Identifier(setting), sql.Literal(value)
                )
            )
        connection.execute(
            "insert into sec.people (person, label, is_demo, level, rights, managed_by) "
            "values (%s, %s, %s, %s, %s, %s) on conflict (person) do update set "
            "label = excluded.label, level = excluded.level, rights = excluded.rights, "
            "managed_by = excluded.managed_by, closed_at = null",
            [person.name, person.label, person.is_demo, person.level, list(person.rights),
             managed_by],
        )  # fmt: skip
        # A change of level changes how callers are shown: scopes of the old kind end.
        kind = LEVELS[person.level]
        connection.execute(
            "update sec.entitlement set valid = tstzrange(lower(valid), statement_timestamp()),"
            " revoked_by = %s, revoke_reason = %s where person = %s"
            " and valid @> statement_timestamp() and lower(valid) < statement_timestamp()"
            " and (mask_level <> %s or not scope_type = any(%s))",
            [by, f"is {person.level} now", person.name, kind.mask_level, list(kind.scopes)],
        )
        for scope in person.scopes:
            _add(connection, person, scope, by, reason, managed_by)
        contact(
            connection, person.name, mail=person.mail, language=person.language,
            time_zone=person.time_zone,
        )  # fmt: skip


def _add(
    connection: psycopg.Connection, person: Person, scope: tuple[str, str], by: str, reason: str,
    managed_by: str,
) -> None:  # fmt: skip
    """One entitlement, unless it holds already (or, for a past one, was recorded)."""
    values = {
        "person": person.name, "type": scope[0], "id": scope[1], "by": by, "reason": reason,
        "mask": LEVELS[person.level].mask_level, "until": person.until, "managed": managed_by,
    }  # fmt: skip
    connection.execute(
        "update sec.entitlement set valid = tstzrange(lower(valid), statement_timestamp()),"
        " revoked_by = %(by)s, revoke_reason = 'replaced by one with another end'"
        " where person = %(person)s and scope_type = %(type)s and scope_id = %(id)s"
        " and valid @> statement_timestamp() and lower(valid) < statement_timestamp()"
        " and upper(valid) is distinct from %(until)s::timestamptz",
        values,
    )
    connection.execute(
        "insert into sec.entitlement"
        " (person, scope_type, scope_id, mask_level, valid, granted_by, reason, managed_by)"
        " select %(person)s, %(type)s, %(id)s, %(mask)s,"
        " tstzrange(least(statement_timestamp(), %(until)s::timestamptz - interval '1 day'),"
        " %(until)s::timestamptz), %(by)s, %(reason)s, %(managed)s where not exists ("
        " select 1 from sec.entitlement where person = %(person)s and scope_type = %(type)s"
        " and scope_id = %(id)s and (valid @> statement_timestamp()"
        " or upper(valid) = %(until)s::timestamptz))",
        values,
    )


def find(connection: psycopg.Connection, name: str) -> Person:
    """The person called `name` with the scopes that hold now, or CallhouseError."""
    row = connection.execute(
        "select label, is_demo, level, rights from sec.people where person = %s", [name]
    ).fetchone()
    if row is None:
        raise CallhouseError(f"there is no person {name!r}: `./callhouse access list` shows all")
    scopes = connection.execute(
        "select scope_type, scope_id from sec.entitlement"
        " where person = %s and valid @> statement_timestamp() order by 1, 2",
        [name],
    ).fetchall()
    return Person(name, row[0], tuple(scopes), row[1], row[2], tuple(row[3]))


def shared_ids(connection: psycopg.Connection, scopes: Iterable[tuple[str, str]]) -> list[str]:
    """One sentence for each scope whose id several sources have: it lets see all of theirs."""
    told = []
    for kind, value in scopes:
        if kind not in ("team", "queue", "agent"):
            continue
        statement = sql.SQL(
            "select array_agg(distinct source order by source) from marts.{} where {} = %s"
        ).format(sql.Identifier(f"dim_{kind}"), sql.Identifier(f"{kind}_id"))
        (sources,) = warehouse.one(connection, statement, [value])
        if sources and len(sources) > 1:
            told.append(
                f"{kind} {value} is in {', '.join(sources)}: all are seen; "
                f"{kind}={sources[0]}{SOURCE_MARK}{value} would be of one"
            )
    return told


def check_contact(mail: str | None, language: str | None, time_zone: str | None) -> None:
    """CallhouseError for what is no mail address, language or time zone; None is always well."""
    if mail is not None and not MAIL_ADDRESS.fullmatch(str(mail)):
        raise CallhouseError(f"{mail!r} is no mail address")
    if language is not None:
        _one_of("language", language, LANGUAGES)
    if time_zone is not None:
        try:
            ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise CallhouseError(
                f"{time_zone!r} is no time zone: use a name such as Asia/Shanghai"
            ) from None


def contact(
    connection: psycopg.Connection,
    name: str,
    *,
    mail: str | None = None,
    language: str | None = None,
    time_zone: str | None = None,
) -> None:
    """Where a person's mail goes, and the language and clock they read by; None: as it was."""
    check_contact(mail, language, time_zone)
    find(connection, name)
    connection.execute(
        "update sec.people set mail = coalesce(%s, mail), language = coalesce(%s, language),"
        " time_zone = coalesce(%s, time_zone) where person = %s",
        [mail, language, time_zone, name],
    )


def revoke(
    connection: psycopg.Connection,
    name: str,
    scopes: Iterable[tuple[str, str]] | None,
    by: str,
    reason: str,
) -> list[tuple[str, str]]:
    """End `scopes` of a person (None: all of them) now, and their open sessions.

    A session that goes on could keep an old snapshot. Returns what was ended.
    """  # fmt: skip
    if not reason.strip():
        raise CallhouseError("say why with --reason: it is kept with the entitlement")
    held = find(connection, name).scopes
    wanted = held if scopes is None else tuple(scopes)
    if missing := [f"{kind}={value}" for kind, value in wanted if (kind, value) not in held]:
        raise CallhouseError(f"{name} has no {', '.join(missing)} that could be revoked")
    for scope_type, scope_id in wanted:
        connection.execute(
            "update sec.entitlement set"
            " valid = tstzrange(lower(valid), clock_timestamp()),"
            " revoked_by = %s, revoke_reason = %s"
            " where person = %s and scope_type = %s and scope_id = %s"
            " and valid @> statement_timestamp()",
            [by, reason, name, scope_type, scope_id],
        )
    connection.commit()
    _end_sessions(connection, name)
    return list(wanted)


def close(connection: psycopg.Connection, name: str, by: str, reason: str) -> None:
    """Take everything from a person who left: scopes, login, sessions. The history stays."""
    revoke(connection, name, None, by, reason)
    connection.execute(sql.SQL("alter role {} nologin").format(sql.Identifier(name)))
    connection.execute(
        "update sec.people set closed_at = coalesce(closed_at, now()) where person = %s", [name]
    )
    connection.commit()
    _end_sessions(connection, name)


def _end_sessions(connection: psycopg.Connection, name: str) -> None:
    connection.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = %s", [name]
    )
    connection.commit()


# ---------------------------------------------------------------- a file in version control
COLUMNS = ("person", "label", "level", "scope", "rights", "until", "reason", "mail", "language",
           "time_zone")  # fmt: skip


def read_file(path: Path) -> list[tuple[Person, str]]:
    """People of a YAML or CSV file, each with the reason for it.

    YAML: a list `people` of `person`, `label`, `level`, `scopes` (list), `rights` (list), `until`,
    `reason`. CSV: COLUMNS, one scope a line. CallhouseError names what cannot be.
    """
    if not path.exists():
        raise CallhouseError(f"there is no {path}")
    if path.suffix == ".csv":
        entries = _csv_entries(path)
    else:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise CallhouseError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
        entries = content.get("people", []) if isinstance(content, dict) else []
    if not entries:
        raise CallhouseError(f"{path} names nobody: that would take everybody's access away")
    people = [_from_entry(path, entry) for entry in entries]
    names = [person.name for person, _ in people]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CallhouseError(f"{path} names {', '.join(twice)} more than once")
    return people


def _csv_entries(path: Path) -> list[dict[str, Any]]:
    """Lines of a CSV file, those of one person together."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        if missing := set(COLUMNS[:4]) - set(reader.fieldnames or ()):
            raise CallhouseError(f"{path} lacks the columns {', '.join(sorted(missing))}")
        entries: dict[str, dict[str, Any]] = {}
        for line in reader:
            entry = entries.setdefault(
                line["person"], {k: v for k, v in line.items() if v and k != "scope"}
            )
            scopes = entry.setdefault("scopes", [])
            if line["scope"]:
                scopes.append(line["scope"])
            differing = {k for k in COLUMNS if k not in ("scope", "rights")} & {
                k for k, v in line.items() if v and entry.get(k) != v
            }
            if differing:
                raise CallhouseError(
                    f"{path}: lines of {line['person']} differ in {', '.join(sorted(differing))}"
                )
    for entry in entries.values():
        entry["rights"] = str(entry.get("rights", "")).split()
    return list(entries.values())


def _from_entry(path: Path, entry: Any) -> tuple[Person, str]:
    if not isinstance(entry, dict) or not entry.get("person") or not entry.get("level"):
        raise CallhouseError(f"{path}: every entry needs person and level, this has not: {entry}")
    if unknown := set(entry) - {*COLUMNS, "scopes"}:
        raise CallhouseError(f"{path}: {entry['person']} has unknown {', '.join(sorted(unknown))}")
    until = entry.get("until")
    try:
        ends = datetime.fromisoformat(str(until)) if until else None
    except ValueError:
        raise CallhouseError(
            f"{path}: until of {entry['person']} is {until!r}, not like 2027-01-31"
        ) from None
    person = Person(
        name=str(entry["person"]),
        label=str(entry.get("label") or entry["person"]),
        scopes=tuple(parse_scope(str(scope)) for scope in entry.get("scopes") or ()),
        level=str(entry["level"]),
        rights=tuple(entry.get("rights") or ()),
        until=ends.replace(tzinfo=ends.tzinfo or UTC) if ends else None,
        mail=entry.get("mail") or None,
        language=entry.get("language") or None,
        time_zone=entry.get("time_zone") or None,
    )
    return person.check(), str(entry.get("reason") or f"in {path.name}")


def synchronise(settings: Settings, path: Path, by: str) -> list[str]:
    """Make people and entitlements agree with a file; returns what was changed.

    The file decides about everyone it names and everyone who came from it: who is no longer in it
    is closed. Others, made by command, are left alone. Everything is checked before anything is
    done.
    """
    wanted = read_file(path)
    changes: list[str] = []
    with server(settings) as connection:
        for person, reason in wanted:
            if person.until and person.until <= datetime.now(UTC):
                continue  # what has ended is not granted again
            before = _state(connection, person.name)
            ensure(settings, connection, person, by, reason, managed_by="file")
            known = find(connection, person.name)
            if surplus := [scope for scope in known.scopes if scope not in person.scopes]:
                revoke(connection, person.name, surplus, by, f"not in {path.name}")
            if _state(connection, person.name) != before:
                changes.append(f"{person.name}: brought up to date")
        names = [
            person.name
            for person, _ in wanted
            if not person.until or person.until > datetime.now(UTC)
        ]
        gone = connection.execute(
            "select person from sec.people where managed_by = 'file' and closed_at is null"
            " and not person = any(%s) order by 1",
            [names],
        ).fetchall()
        for (name,) in gone:
            close(connection, name, by, f"no longer in {path.name}")
            changes.append(f"{name}: closed")
    return changes


def _state(connection: psycopg.Connection, name: str) -> list[tuple[Any, ...]]:
    return connection.execute(
        "select p.label, p.level, p.rights, p.closed_at, e.scope_type, e.scope_id, e.mask_level,"
        " p.mail, p.language, p.time_zone"
        " from sec.people as p left join sec.entitlement as e"
        " on p.person = e.person and e.valid @> statement_timestamp()"
        " where p.person = %s order by 5, 6",
        [name],
    ).fetchall()


# ---------------------------------------------------------------- why
@dataclass(frozen=True)
class Explanation:
    """Whether a person sees a call, and the entitlements that say so."""

    is_seen: bool
    call: dict[str, Any]
    because: list[str]
    sentence: str


def explain(settings: Settings, name: str, call_key: str) -> Explanation:
    """Why `name` does or does not see the call `call_key`, asked of row security itself."""
    with warehouse.connect(settings) as connection:
        person = find(connection, name)
        call = _call(connection, call_key)
        rows = connection.execute(
            "select scope_type, scope_id, mask_level, granted_by, granted_at::date, reason,"
            " upper(valid) from sec.entitlement"
            " where person = %s and valid @> statement_timestamp() order by 1, 2",
            [name],
        ).fetchall()
    because = []
    for kind, value, mask, by, at, reason, until in rows:
        of_source = f"{call['source']}{SOURCE_MARK}{call.get(kind)}"
        if mask == "aggregate" or (kind != "all" and value not in (call[kind], of_source)):
            continue
        end = f", until {until:%Y-%m-%d}" if until else ""
        because.append(f"{kind} {value} ({mask}), granted by {by} on {at}{end}: {reason}")
    try:
        with warehouse.connect_as(settings, name, login_password(settings, name)) as own:
            is_seen = bool(
                own.execute(
                    "select from bi.fct_calls where call_key = %s and business_day = %s",
                    [call_key, call["business_day"]],
                ).fetchall()
            )
    except CallhouseError:
        is_seen = False
    if is_seen != bool(because):
        raise CallhouseError(
            f"row security and the entitlements of {name} disagree about {call_key}: "
            "run `./callhouse doctor`"
        )
    if is_seen:
        return Explanation(True, call, because, f"{name} sees {call_key}")
    scopes = ", ".join(f"{k} {v}" for k, v in person.scopes) or "nothing"
    is_of = ", ".join(f"{k} {call[k]}" for k in SCOPE_TYPES[1:] if call[k])
    what = "only aggregates" if person.level == "executive" else scopes
    return Explanation(
        False, call, [], f"{name} does not see {call_key}: it is of {is_of}; {name} sees {what}"
    )


def _call(connection: psycopg.Connection, call_key: str) -> dict[str, Any]:
    columns = ("business_day", "source", "region", "team", "queue", "agent")
    row = connection.execute(
        "select business_day, source, region_code, team_id, queue_id, agent_id"
        " from marts.fct_calls where call_key = %s",
        [call_key],
    ).fetchone()
    if row is None:
        raise CallhouseError(f"there is no published call {call_key!r}")
    return dict(zip(columns, row, strict=True))
