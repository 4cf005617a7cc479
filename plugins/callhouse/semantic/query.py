"""Asking saved metrics by dimensions; one statement per relation, joined on the dimensions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from psycopg import sql

from callhouse import security, warehouse
from callhouse.errors import CallhouseError
from callhouse.semantic import Catalogue, Dataset
from callhouse.settings import Settings

# What readers of aggregates see, and its dimensions.
GROUPS = "agg_groups_daily"
DIMENSIONS = ("queue", "channel", "region", "business_type", "hotline")
# Columns that count calls which no agent took: such a call is of no team, so who sees teams only
# has none of them, and a rate of theirs is 0 or 1 whatever happens.
OF_NOBODY = re.compile(
    r"\b(calls_offered|calls_abandoned\w*|abandoned_\w+|short_abandons|calls_contained|"
    r"calls_after_hours)\b"
)


class NotToldError(CallhouseError):
    """A person of this kind has no such number; the message says why."""


@dataclass(frozen=True)
class Question:
    """Metrics by dimensions over business days `[start, end)`, where dimensions equal values."""

    metrics: tuple[str, ...]
    by: tuple[str, ...] = ()
    start: date | None = None
    end: date | None = None
    where: tuple[tuple[str, str], ...] = ()


def condition(text: str) -> tuple[str, str]:
    """`dimension=value` as a pair."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CallhouseError(f"--where {text!r}: write it as dimension=value")
    return name, value


def ask(
    settings: Settings, catalogue: Catalogue, question: Question, person: str | None = None
) -> tuple[list[str], list[list[Any]]]:
    """Column names and rows; with `person`, what that person's own login may see."""
    # `--by queue service_level` also reads well: what is a metric and no dimension is one.
    by = [name for name in question.by if name not in catalogue.metrics]
    names = [*question.metrics, *(n for n in question.by if n in catalogue.metrics)]
    if not names:
        raise CallhouseError("which metric? `./callhouse metric` lists them")
    unknown = [name for name in names if name not in catalogue.metrics]
    if unknown:
        raise CallhouseError(f"no metric {unknown[0]!r}: `./callhouse metric` lists them")
    if question.start and question.end and question.end <= question.start:
        raise CallhouseError("--to is the day after the last one, so it must be later than --from")
    relations = list(dict.fromkeys(catalogue.metrics[name].relation for name in names))
    answers: dict[tuple[Any, ...], dict[str, Any]] = {}
    with _connect(settings, person) as connection:
        zone = _zone(settings, connection, question, person)
        only_groups = person is not None and _sees_only_groups(connection)
        if only_groups:
            relations = [GROUPS]
        elif person is not None and _sees_only_teams(connection):
            _refuse_what_no_team_has(catalogue, names, person)
        for relation in relations:
            if only_groups:
                wanted = names
                statement = compose_groups(catalogue, names, by, question)
            else:
                wanted = [name for name in names if catalogue.metrics[name].relation == relation]
                statement = compose(catalogue, catalogue.dataset(relation), wanted, by, question)
            try:
                rows = connection.execute(statement).fetchall()
            except psycopg.errors.InvalidTextRepresentation as error:
                raise CallhouseError(f"--where: {str(error).splitlines()[0]}") from None
            for row in rows:
                key = tuple(_local(value, zone) for value in row[: len(by)])
                answers.setdefault(key, {}).update(zip(wanted, row[len(by) :], strict=True))
    ordered = sorted(answers, key=lambda key: [(value is not None, str(value)) for value in key])
    if all(isinstance(v, int) for key in answers for v in key):
        ordered = sorted(answers)
    return [*by, *names], [[*key, *(answers[key].get(n) for n in names)] for key in ordered]


def compose(
    catalogue: Catalogue, dataset: Dataset, metrics: Sequence[str], by: Sequence[str],
    question: Question,
) -> sql.Composed:  # fmt: skip
    """The statement for metrics that live on one dataset."""
    dimensions = [dataset.dimension(name) for name in by]
    selected = [*dimensions, *(catalogue.metrics[name].expression for name in metrics)]
    conditions: list[sql.Composable] = []
    if question.start:
        conditions.append(sql.SQL("business_day >= {}").format(sql.Literal(question.start)))
    if question.end:
        conditions.append(sql.SQL("business_day < {}").format(sql.Literal(question.end)))
    for name, value in question.where:
        dimension = sql.SQL(dataset.dimension(name))
        conditions.append(sql.SQL("{} = {}").format(dimension, sql.Literal(value)))
    statement = sql.SQL("select {} from bi.{}").format(
        sql.SQL(", ").join(sql.SQL(s) for s in selected),
        sql.Identifier(dataset.name),
    )
    if conditions:
        statement += sql.SQL(" where ") + sql.SQL(" and ").join(conditions)
    if by:
        places = sql.SQL(", ").join(sql.SQL(str(n + 1)) for n in range(len(by)))
        statement += sql.SQL(" group by {}").format(places)
    return statement


def compose_groups(
    catalogue: Catalogue, metrics: Sequence[str], by: Sequence[str], question: Question
) -> sql.Composed:
    """The statement for readers of aggregates: large groups, one dimension at a time."""
    dataset = catalogue.dataset(GROUPS)
    known = {metric.name for metric in dataset.metrics}
    if missing := [name for name in metrics if name not in known]:
        raise NotToldError(f"{missing[0]} is not told to readers of aggregates")
    used = {name for name in (*by, *(name for name, _ in question.where)) if name in DIMENSIONS}
    if len(used) > 1:
        raise CallhouseError(
            f"readers of aggregates see one dimension at a time, not {', '.join(sorted(used))}"
        )
    dimension = used.pop() if used else "all"
    translated = [("member" if name == dimension else name) for name in by]
    where = [("member" if name == dimension else name, value) for name, value in question.where]
    return compose(
        catalogue, dataset, metrics, translated,
        replace(question, where=(("dimension", dimension), *where)),
    )  # fmt: skip


def _sees_only_groups(connection: psycopg.Connection) -> bool:
    return bool(warehouse.one(connection, "select sec.sees_aggregates() and not sec.sees_all()")[0])


def _sees_only_teams(connection: psycopg.Connection) -> bool:
    return bool(
        warehouse.one(
            connection,
            "select not sec.sees_all() and sec.scope('team') || sec.scope('agent') <> '{}'"
            " and sec.scope('region') || sec.scope('queue') = '{}'",
        )[0]
    )


def _refuse_what_no_team_has(catalogue: Catalogue, names: Sequence[str], person: str) -> None:
    """As boards do, which draw such rates from sums that have no team: docs/decisions/0061."""
    for name in names:
        if OF_NOBODY.search(catalogue.metrics[name].expression):
            raise NotToldError(
                f"{name} is of queues: calls that nobody took are of no team, so {person}, who "
                "sees teams or agents only, has no such number. What rang at them and was "
                "answered: offers, offer_answer_rate, offers_unanswered, offers_rejected"
            )


def _connect(settings: Settings, person: str | None) -> Any:
    if person is None:
        return warehouse.connect(settings)
    security.check_person(person)
    return warehouse.connect_as(settings, person, security.login_password(settings, person))


def _zone(
    settings: Settings, connection: psycopg.Connection, question: Question, person: str | None
) -> ZoneInfo:
    """Zone of interval labels: the one source's asked for, else the instance's."""
    source = dict(question.where).get("source")
    if source and person is None:
        row = connection.execute(
            "select time_zone from ops.sources where source = %s", [source]
        ).fetchone()
        if row:
            return ZoneInfo(row[0])
    return ZoneInfo(settings.time_zone)


def _local(value: Any, zone: ZoneInfo) -> Any:
    return value.astimezone(zone) if isinstance(value, datetime) else value
