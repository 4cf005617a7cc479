"""Suites as code: the YAML files below `expectations/`, read and checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from typing import Any, cast

import yaml

from callhouse.errors import CallhouseError
from callhouse.quality import gx

BOUNDARIES = ("staging", "marts")
PUBLISHED_SCHEMA = "marts"
SEVERITIES = {"fail": "critical", "warn": "warning"}
LANES = ("facts", "followups")
SUITE_KEYS = {"suite", "boundary", "lane", "relation", "where", "expectations"}
REQUIRED_KEYS = {"suite", "boundary", "relation", "expectations"}
FLAGS = ("excuse_changed_days", "candidates_only")
CHECK_KEYS = {"name", "type", "kwargs", "note", "severity", "needs", *FLAGS}
# Names a query may use in braces; filled in by runner.py.
PLACEHOLDERS = {"rows", "days", "reference_days"}
NAME = re.compile(r"[a-z][a-z0-9_]*")
RELATION = re.compile(r"(staging|candidate)\.[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Check:
    """One expectation of a suite.

    `needs`: relations without which there is nothing to compare yet; the check then passes.
    `excuse_changed_days`: a day that landing has touched since the build claimed it does not fail
    here, because what it is compared with has moved on; it is dirty again and comes back.
    `candidates_only`: says something about a build, nothing about what is published.
    """

    name: str
    type: str
    kwargs: Mapping[str, Any]
    severity: str
    note: str
    needs: tuple[str, ...] = ()
    excuse_changed_days: bool = False
    candidates_only: bool = False

    @property
    def query(self) -> str | None:
        """SQL of a custom expectation: returns the rows that must not exist, with their day."""
        value = self.kwargs.get("unexpected_rows_query")
        return str(value) if self.type == gx.SQL_TYPE else None

    @property
    def column(self) -> str | None:
        """The column or columns that are looked at; None for a query."""
        keys = ("column", "column_A", "column_B")
        names = [str(self.kwargs[key]) for key in keys if key in self.kwargs]
        names += [str(name) for name in self.kwargs.get("column_list", ())]
        return ", ".join(names) or None

    @property
    def is_by_row(self) -> bool:
        """True where the library can name the rows at fault, and so their days."""
        return issubclass(gx.get_expectation_impl(self.type), gx.ROW_EXPECTATIONS)


@dataclass(frozen=True)
class Suite:
    """The expectations on the claimed days' rows of one relation at one boundary.

    `lane`: the builds that it audits; see ops.builds.
    """

    name: str
    boundary: str
    relation: str
    where: str | None
    checks: tuple[Check, ...]
    file: Path = field(compare=False)
    lane: str = "facts"


def load(directory: Path) -> list[Suite]:
    """Every suite below `directory` (staging first); CallhouseError names the file and the fix."""
    if not directory.is_dir():
        raise CallhouseError(f"{directory} is no folder: the expectation suites are missing")
    files = sorted(directory.glob("*/*.yaml"))
    if not files:
        raise CallhouseError(f"{directory} holds no suite: a build without audit is not published")
    suites = [load_file(file) for file in files]
    names = [suite.name for suite in suites]
    for suite in suites:
        if names.count(suite.name) > 1:
            raise CallhouseError(f"{suite.file}: suite name {suite.name!r} is used twice")
    return sorted(suites, key=lambda s: (BOUNDARIES.index(s.boundary), s.name))


def load_file(file: Path) -> Suite:
    """One suite file."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CallhouseError(f"{file} is no readable YAML: {error}") from None
    if not isinstance(content, dict):
        raise CallhouseError(f"{file} must be a mapping with {_listed(REQUIRED_KEYS)}")
    _check_keys(content, SUITE_KEYS, REQUIRED_KEYS, str(file))
    name, boundary, relation = content["suite"], content["boundary"], content["relation"]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise CallhouseError(f"{file}: suite {name!r} must be a snake_case name")
    if boundary not in BOUNDARIES:
        raise CallhouseError(f"{file}: boundary {boundary!r} is not one of {_listed(BOUNDARIES)}")
    if boundary != file.parent.name:
        raise CallhouseError(
            f"{file}: boundary is {boundary!r}, so the file belongs into expectations/{boundary}/"
        )
    if not isinstance(relation, str) or not RELATION.fullmatch(relation):
        raise CallhouseError(
            f"{file}: relation {relation!r} must be staging.<table> or candidate.<model>"
        )
    lane = content.get("lane", "facts")
    if lane not in LANES:
        raise CallhouseError(f"{file}: lane {lane!r} is not one of {_listed(LANES)}")
    if not isinstance(content["expectations"], list) or not content["expectations"]:
        raise CallhouseError(f"{file}: expectations must be a list with at least one entry")
    where = content.get("where")
    if where is not None and not isinstance(where, str):
        raise CallhouseError(f"{file}: where must be an SQL condition on the relation's rows")
    checks = tuple(
        _check(entry, f"{file}: expectation {number}")
        for number, entry in enumerate(content["expectations"], start=1)
    )
    seen: set[str] = set()
    for check in checks:
        if check.name in seen:
            raise CallhouseError(f"{file}: expectation name {check.name!r} is used twice")
        seen.add(check.name)
    return Suite(name, boundary, relation, where, checks, file, lane)


def of_published(suite: Suite) -> Suite:
    """The same expectations on the published relations instead of the candidates."""
    checks = tuple(check for check in suite.checks if not check.candidates_only)
    return _elsewhere(replace(suite, checks=checks), r"\bcandidate\.", f"{PUBLISHED_SCHEMA}.")


def of_marts(suite: Suite) -> Suite:
    """The same expectations on what marts are built of: no feed that is on the floor only."""
    if suite.boundary != "staging":
        return suite
    suite = _elsewhere(suite, r"\bops\.sources\b", "mart_rows.sources")
    return _elsewhere(suite, r"\bstaging\.", "mart_rows.")


def _elsewhere(suite: Suite, found: str, instead: str) -> Suite:
    """The same expectations on relations whose names match no longer."""

    def moved(text: str) -> str:
        return re.sub(found, instead, text)

    return replace(
        suite,
        relation=moved(suite.relation),
        checks=tuple(
            replace(check, kwargs={**check.kwargs, "unexpected_rows_query": moved(check.query)})
            if check.query is not None
            else check
            for check in suite.checks
        ),
    )


def _check(entry: object, place: str) -> Check:
    if not isinstance(entry, dict):
        raise CallhouseError(f"{place} must be a mapping with type, kwargs, severity and note")
    _check_keys(entry, CHECK_KEYS, {"name", "type", "kwargs", "note", "severity"}, place)
    name, kind, kwargs = entry["name"], entry["type"], entry["kwargs"]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise CallhouseError(f"{place}: name {name!r} must be snake_case and say what holds")
    place = f"{place} ({name})"
    if entry["severity"] not in SEVERITIES:
        raise CallhouseError(
            f"{place}: severity {entry['severity']!r} is not one of {_listed(SEVERITIES)}"
        )
    if not isinstance(entry["note"], str) or len(entry["note"].split()) < 3:
        raise CallhouseError(f"{place}: note must say in words why this bound")
    if not isinstance(kwargs, dict):
        raise CallhouseError(f"{place}: kwargs must be a mapping")
    for flag in FLAGS:
        if not isinstance(entry.get(flag, False), bool):
            raise CallhouseError(f"{place}: {flag} must be true or false")
    needs = entry.get("needs", [])
    if not isinstance(needs, list) or not all(isinstance(n, str) and "." in n for n in needs):
        raise CallhouseError(f"{place}: needs must be a list of schema.relation")
    check = Check(
        name=name,
        type=str(kind),
        kwargs=kwargs,
        severity=entry["severity"],
        note=" ".join(entry["note"].split()),
        needs=tuple(needs),
        excuse_changed_days=entry.get("excuse_changed_days", False),
        candidates_only=entry.get("candidates_only", False),
    )
    _check_type(check, place)
    return check


def _check_type(check: Check, place: str) -> None:
    known = _known_types()
    if check.type not in known:
        near = [name for name in known if set(check.type.split("_")) <= set(name.split("_"))]
        hint = f"; did you mean {near[0]}?" if near else ""
        raise CallhouseError(f"{place}: there is no expectation type {check.type!r}{hint}")
    if "mostly" in check.kwargs:
        raise CallhouseError(
            f"{place}: mostly is a share over all days of a build and would hide one bad day: "
            f"count the share per day with {gx.SQL_TYPE}"
        )
    if check.query is not None:
        _check_query(check, place)
    construct(check, dict(check.kwargs), place)


def _check_query(check: Check, place: str) -> None:
    query = check.query or ""
    try:
        used = {name for _, name, _, _ in Formatter().parse(query) if name is not None}
    except ValueError as error:
        raise CallhouseError(f"{place}: a brace in the query is not closed: {error}") from None
    if unknown := used - PLACEHOLDERS:
        raise CallhouseError(
            f"{place}: the query uses {{{sorted(unknown)[0]}}}, known are {_listed(PLACEHOLDERS)} "
            "(a literal brace is doubled)"
        )
    if not used & {"rows", "days"}:
        raise CallhouseError(
            f"{place}: the query reads every day: limit it by {{rows}} "
            "or business_day in ({days})"
        )
    if not re.search(r"\bbusiness_day\b", query):
        raise CallhouseError(f"{place}: the query must return business_day, the day at fault")
    if found := re.search(r"(?<![:\w\\]):\w+(?!:)", query):
        raise CallhouseError(
            f"{place}: {found.group()!r} in the query would be read as a bind parameter"
        )


def construct(check: Check, kwargs: dict[str, Any], place: str) -> gx.Expectation:
    """The library's expectation with `kwargs`; CallhouseError where it does not accept them."""
    implementation = cast(type[gx.Expectation], gx.get_expectation_impl(check.type))
    allowed = set(implementation.__fields__)
    if unknown := set(kwargs) - allowed:
        raise CallhouseError(f"{place}: {check.type} has no argument {sorted(unknown)[0]!r}")
    try:
        with gx.quiet():
            return implementation(
                **kwargs,
                severity=SEVERITIES[check.severity],
                notes=check.note,
                description=check.name.replace("_", " "),
                meta={"check": check.name},
            )
    except (ValueError, TypeError) as error:
        detail = " ".join(str(error).split())
        raise CallhouseError(
            f"{place}: {check.type} does not accept its kwargs: {detail}"
        ) from None


def _known_types() -> list[str]:
    return sorted(gx.list_registered_expectation_implementations())


def _check_keys(
    content: Mapping[str, Any], allowed: set[str], required: set[str], place: str
) -> None:
    if missing := required - set(content):
        raise CallhouseError(f"{place}: {sorted(missing)[0]} is missing")
    if unknown := {str(key) for key in content} - allowed:
        raise CallhouseError(
            f"{place}: {sorted(unknown)[0]!r} is no key here; known are {_listed(allowed)}"
        )


def _listed(names: Mapping[str, Any] | set[str] | tuple[str, ...]) -> str:
    return ", ".join(sorted(names))
