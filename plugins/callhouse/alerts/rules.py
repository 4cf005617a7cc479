"""Rules of alerts: what is watched, from when to when, and who is told. Checked when entered."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.range import Range

from callhouse.alerts import channels
from callhouse.alerts.metrics import METRICS
from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources import document

SEVERITIES = ("info", "warning", "critical")
EXAMPLE = Path(__file__).parent / "alerts.yaml"  # of the demo
BY_SCOPE = "scope"  # the owner is whoever leads where it fires
# The dimension in which an id of that scope must be.
DIMENSIONS = {
    "source": ("dim_source", "source"), "region": ("dim_region", "region_code"),
    "team": ("dim_team", "team_id"), "queue": ("dim_queue", "queue_id"),
    "agent": ("dim_agent", "agent_id"),
}  # fmt: skip
SCOPE_TYPES = ("all", "pipeline", *DIMENSIONS)


@dataclass(frozen=True)
class Rule:
    """One version of a rule. `fire_at` and `clear_at` are in the unit of the metric."""

    rule: str
    metric: str
    scope_type: str
    scope_id: str
    comparison: str  # above or below
    fire_at: float
    clear_at: float
    severity: str
    owner: str
    channels: tuple[str, ...]
    reason: str
    for_seconds: int = 0
    escalate_to: str | None = None
    escalate_after_seconds: int | None = None
    quiet_from: time | None = None
    quiet_to: time | None = None
    quiet_zone: str | None = None
    starts: datetime | None = None  # None: now
    ends: datetime | None = None

    @property
    def scope(self) -> str:
        """As it is written: all, pipeline or TYPE=ID."""
        whole = self.scope_type in ("all", "pipeline")
        return self.scope_type if whole else f"{self.scope_type}={self.scope_id}"


# What makes another version; the dates are those of the version.
CONTENT = tuple(f.name for f in fields(Rule) if f.name not in ("rule", "starts", "ends"))


# ---------------------------------------------------------------- reading
def from_node(node: document.Node) -> Rule:
    """The rule in a block of YAML; CallhouseError names the key that cannot be."""
    name = node.text("rule")
    metric = node.text("metric")
    if metric not in METRICS:
        hint = document.near(metric, METRICS) or f": use one of {', '.join(METRICS)}"
        raise node.error("metric", f"'{metric}' is no metric that can be watched{hint}")
    scope_type, _, scope_id = node.text("scope").partition("=")
    if node.has("above") == node.has("below"):
        raise node.error("", f"rule {name} fires either above or below a value: write one of them")
    comparison = "above" if node.has("above") else "below"
    escalate_to = node.text("escalate_to", "") or None
    after = node.text("escalate_after_seconds", "900" if escalate_to else "")
    quiet = node.block("quiet") if node.has("quiet") else None
    rule = Rule(
        rule=name,
        metric=metric,
        scope_type=scope_type,
        scope_id=scope_id or "*",
        comparison=comparison,
        fire_at=_number(node, comparison),
        clear_at=_number(node, "clear"),
        for_seconds=_whole(node, "for_seconds", "0"),
        severity=node.text("severity", choices=SEVERITIES),
        owner=node.text("owner"),
        escalate_to=escalate_to,
        escalate_after_seconds=_whole(node, "escalate_after_seconds", after) if after else None,
        channels=tuple(dict.fromkeys(node.texts("channels"))),
        quiet_from=_clock(quiet, "from") if quiet else None,
        quiet_to=_clock(quiet, "to") if quiet else None,
        quiet_zone=document.time_zone(quiet) if quiet else None,
        reason=node.text("reason"),
        starts=_instant(node, "from"),
        ends=_instant(node, "until"),
    )
    if quiet:
        quiet.finish()
    node.finish()
    if rule.starts and rule.ends and rule.ends <= rule.starts:
        raise node.error("until", "the rule would end before it begins")
    return check_shape(rule)


def _number(node: document.Node, key: str) -> float:
    node.text(key)  # it must be there
    return node.number(key, "")


def _whole(node: document.Node, key: str, default: str) -> int:
    text = node.text(key, default)
    if not text.isdigit() or int(text) > 86_400:
        raise node.error(key, f"'{text}' is no number of seconds up to a day")
    return int(text)


def _clock(node: document.Node, key: str) -> time:
    text = node.text(key)
    try:
        return time.fromisoformat(text)
    except ValueError:
        raise node.error(key, f"'{text}' is no time of the day: write \"22:00\"") from None


def _instant(node: document.Node, key: str) -> datetime | None:
    return instant(node.text(key, ""), lambda problem: node.error(key, problem))


def instant(text: str, error: Any = CallhouseError) -> datetime | None:
    """A day (from midnight in UTC) or a time with its offset; None where there is none."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or (found.tzinfo is None and len(text) > len("2027-01-31")):
        raise error(
            f"'{text}' is no date: write 2027-01-31, or a time with offset as "
            "2027-01-31T08:00:00+08:00"
        )
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def check_shape(rule: Rule) -> Rule:
    """The same rule, or CallhouseError that says what is wrong with it by itself."""
    metric = METRICS[rule.metric]
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,60}", rule.rule):
        raise CallhouseError(
            f"'{rule.rule}' cannot be a rule: names are of lower-case letters, digits and _"
        )
    if not rule.reason.strip():
        raise CallhouseError(f"rule {rule.rule}: say in its reason why it is watched")
    if rule.scope_type not in SCOPE_TYPES:
        raise CallhouseError(
            f"rule {rule.rule}: {rule.scope!r} is no scope: write all, pipeline, or TYPE=ID of "
            f"{', '.join(DIMENSIONS)} (TYPE=* for each of them)"
        )
    if rule.scope_type not in metric.scopes:
        raise CallhouseError(
            f"rule {rule.rule}: {rule.metric} is not measured of {rule.scope_type}: it is of "
            f"{', '.join(metric.scopes)}"
        )
    if rule.comparison == "above" and rule.clear_at >= rule.fire_at:
        raise CallhouseError(
            f"rule {rule.rule} fires at {rule.fire_at:g} or more, so it must clear below that, not "
            f"at {rule.clear_at:g}"
        )
    if rule.comparison == "below" and rule.clear_at <= rule.fire_at:
        raise CallhouseError(
            f"rule {rule.rule} fires at {rule.fire_at:g} or less, so it must clear above that, not "
            f"at {rule.clear_at:g}"
        )
    if metric.unit == "rate" and not (0 <= rule.fire_at <= 1 and 0 <= rule.clear_at <= 1):
        raise CallhouseError(f"rule {rule.rule}: {rule.metric} is a rate: write 80 % as 0.8")
    if rule.quiet_from is not None and rule.quiet_from == rule.quiet_to:
        raise CallhouseError(
            f"rule {rule.rule}: quiet hours that end when they begin are none: leave them out"
        )
    if rule.owner == BY_SCOPE and rule.escalate_to is None:
        raise CallhouseError(
            f"rule {rule.rule}: owner {BY_SCOPE} needs escalate_to, for scopes that nobody leads"
        )
    if rule.escalate_to is None and rule.escalate_after_seconds:
        raise CallhouseError(f"rule {rule.rule} escalates to nobody: name escalate_to, too")
    if rule.escalate_to == rule.owner:
        raise CallhouseError(f"rule {rule.rule} escalates to its owner: name somebody else")
    return rule


def read_file(path: Path) -> list[Rule]:
    """The rules of a YAML file: a list `rules`. CallhouseError names what cannot be."""
    if not path.exists():
        raise CallhouseError(f"there is no {path}")
    node = document.read(path)
    rules = [from_node(item) for item in node.blocks("rules")]
    node.finish()
    if not rules:
        raise CallhouseError(f"{path} has no rule: that would end all that came from it")
    names = [rule.rule for rule in rules]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CallhouseError(f"{path.name} has {', '.join(twice)} more than once")
    return rules


# ---------------------------------------------------------------- against the warehouse
def check(connection: psycopg.Connection, settings: Settings, rule: Rule) -> None:
    """CallhouseError where the rule names a scope, person or channel that is not there."""
    if rule.scope_id != "*" and rule.scope_type in DIMENSIONS:
        known = _members(connection, rule.scope_type)
        if rule.scope_id not in known:
            hint = document.near(rule.scope_id, known)
            raise CallhouseError(
                f"rule {rule.rule}: there is no {rule.scope_type} '{rule.scope_id}'{hint}"
            )
    for person in (rule.owner, rule.escalate_to):
        if person is None or person == BY_SCOPE:
            continue
        row = connection.execute(
            "select ops.may_be_told(p.person, %(type)s, ops.alert_scopes(%(type)s, %(id)s)),"
            " p.closed_at from sec.people as p where p.person = %(person)s",
            {"type": rule.scope_type, "id": rule.scope_id, "person": person},
        ).fetchone()
        if row is None or row[1]:
            raise CallhouseError(
                f"rule {rule.rule}: there is no person {person!r}: `./callhouse access list`"
            )
        if not row[0]:
            raise CallhouseError(
                f"rule {rule.rule}: {person} does not see {rule.scope}, so must not be told of it:"
                " grant it first, or name somebody else"
            )
    known_channels = channels.read(settings).names
    for channel in rule.channels:
        if channel not in known_channels:
            hint = document.near(channel, known_channels)
            raise CallhouseError(
                f"rule {rule.rule}: there is no channel '{channel}'{hint}: it is named in "
                f"{settings.channels_file}"
            )


def _members(connection: psycopg.Connection, scope_type: str) -> set[str]:
    """Ids of a kind of scope: of the marts, and those that people were granted."""
    relation, column = DIMENSIONS[scope_type]
    granted = "select scope_id from sec.entitlement where scope_type = %s"
    statement = granted
    if connection.execute("select to_regclass(%s)", [f"marts.{relation}"]).fetchone() != (None,):
        statement += f" union select {column} from marts.{relation}"  # noqa: S608
    return {row[0] for row in connection.execute(statement.encode(), [scope_type])}


COLUMNS = ("rule", *CONTENT)


def current(
    connection: psycopg.Connection, now: datetime, *, with_ended: bool = False
) -> list[tuple[Rule, dict[str, Any]]]:
    """Versions that hold or will hold (or all), each with `rule_id`, `managed_by` and its end."""
    extra = ("rule_id", "managed_by", "entered_by", "ended_by", "end_reason")
    rows = connection.execute(
        f"select {', '.join(COLUMNS)}, lower(valid), upper(valid), {', '.join(extra)} "  # noqa: S608
        "from ops.alert_rules where %s or upper(valid) > %s or (upper_inf(valid)) "
        "order by rule, lower(valid), rule_id".encode(),
        [with_ended, now],
    ).fetchall()
    found = []
    for row in rows:
        values = dict(zip(COLUMNS, row[: len(COLUMNS)], strict=True))
        values["channels"] = tuple(values["channels"])
        for name in ("fire_at", "clear_at"):
            values[name] = float(values[name])
        starts, ends = row[len(COLUMNS) : len(COLUMNS) + 2]
        rest = dict(zip(extra, row[len(COLUMNS) + 2 :], strict=True))
        found.append((Rule(**values, starts=starts, ends=ends), rest))
    return found


def add(
    connection: psycopg.Connection, settings: Settings, rule: Rule, by: str, now: datetime,
    managed_by: str = "command",
) -> None:  # fmt: skip
    """Enter a rule from `rule.starts` (None: now) on."""
    check(connection, settings, check_shape(rule))
    starts = rule.starts or now
    if rule.ends and rule.ends <= max(starts, now):
        raise CallhouseError(f"rule {rule.rule} would have ended on {rule.ends:%Y-%m-%d} already")
    values = {name: getattr(rule, name) for name in COLUMNS}
    values |= {
        "channels": list(rule.channels), "valid": Range(starts, rule.ends),
        "managed_by": managed_by, "entered_by": by,
    }  # fmt: skip
    names = ", ".join(values)
    places = ", ".join(f"%({name})s" for name in values)
    try:
        connection.execute(
            f"insert into ops.alert_rules ({names}) values ({places})".encode(),  # noqa: S608
            values,
        )
    except psycopg.errors.ExclusionViolation as problem:
        raise CallhouseError(str(problem.diag.message_primary)) from None


def end(
    connection: psycopg.Connection, name: str, by: str, reason: str, now: datetime
) -> list[Rule]:
    """End what holds of a rule now, and take back what would begin later."""
    if not reason.strip():
        raise CallhouseError("say why with --reason: it is kept with the rule")
    versions = [(rule, rest) for rule, rest in current(connection, now) if rule.rule == name]
    if not versions:
        raise CallhouseError(f"no rule {name!r} holds: `./callhouse alert rules` shows all")
    for _, rest in versions:
        connection.execute(
            "update ops.alert_rules set ended_by = %(by)s, end_reason = %(reason)s, valid = "
            "case when lower(valid) >= %(now)s then 'empty'::tstzrange "
            "else tstzrange(lower(valid), %(now)s) end where rule_id = %(id)s",
            {"by": by, "reason": reason, "now": now, "id": rest["rule_id"]},
        )
    return [rule for rule, _ in versions]


def change(
    connection: psycopg.Connection, settings: Settings, name: str, changes: dict[str, Any],
    by: str, now: datetime, until: datetime | None = None,
) -> Rule:  # fmt: skip
    """Another version from now on; with `until` only until then, and after it the old one again."""
    versions = [(rule, rest) for rule, rest in current(connection, now) if rule.rule == name]
    holding = [pair for pair in versions if pair[0].starts and pair[0].starts <= now]
    if not holding:
        raise CallhouseError(f"no rule {name!r} holds: `./callhouse alert rules` shows all")
    old, rest = holding[0]
    if rest["managed_by"] == "file":
        raise CallhouseError(f"rule {name} comes from a file: change it there, then sync")
    if until and (until <= now or (old.ends and until >= old.ends)):
        raise CallhouseError(f"--until {until:%Y-%m-%d %H:%M} does not lie within the rule's time")
    changed = check_shape(replace(old, **changes, starts=now, ends=until or old.ends))
    connection.execute(
        "update ops.alert_rules set valid = tstzrange(lower(valid), %s), ended_by = %s, "
        "end_reason = %s where rule_id = %s",
        [now, by, f"changed: {changed.reason}", rest["rule_id"]],
    )
    add(connection, settings, changed, by, now)
    if until:
        add(connection, settings, replace(old, starts=until), by, now)
    return changed


def synchronise(
    connection: psycopg.Connection, settings: Settings, path: Path, by: str, now: datetime
) -> list[str]:
    """Make the rules that come from files agree with this one; returns what was changed.

    The file decides about the rules it names and those that came from it: who is no longer in it
    ends. Rules made by command are left alone. All or nothing, within the caller's transaction.
    """
    wanted = read_file(path)
    held: dict[str, list[tuple[Rule, dict[str, Any]]]] = {}
    for rule, rest in current(connection, now):
        held.setdefault(rule.rule, []).append((rule, rest))
    changes: list[str] = []
    names = {rule.rule for rule in wanted}
    for name, versions in held.items():
        if name not in names and versions[0][1]["managed_by"] == "file":
            end(connection, name, by, f"no longer in {path.name}", now)
            changes.append(f"{name}: ended")
    kept: list[Rule] = []
    for rule in wanted:
        versions = held.get(rule.rule, [])
        if rule.ends and rule.ends <= now:
            if versions:
                end(connection, rule.rule, by, f"over, by {path.name}", now)
                changes.append(f"{rule.rule}: ended")
            continue
        if (
            len(versions) == 1
            and versions[0][1]["managed_by"] == "file"
            and _same(versions[0][0], rule, now)
        ):
            check(connection, settings, rule)
            continue
        if versions:
            end(connection, rule.rule, by, f"changed in {path.name}", now)
        kept.append(rule)
        changes.append(f"{rule.rule}: {'changed' if versions else 'new'}")
    # After all that ends has ended: a rule may take the place of another one.
    for rule in kept:
        begun = replace(rule, starts=max(now, rule.starts)) if rule.starts else rule
        add(connection, settings, begun, by, now, managed_by="file")
    return changes


def _same(held: Rule, wanted: Rule, now: datetime) -> bool:
    """Whether a version says what the file says; one that has begun keeps its beginning."""
    begins = wanted.starts if wanted.starts and wanted.starts > now else None
    begun = held.starts if held.starts and held.starts > now else None
    return begins == begun and all(
        getattr(held, name) == getattr(wanted, name) for name in (*CONTENT, "ends")
    )
