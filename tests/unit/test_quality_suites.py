"""Suites as code: what is accepted, what is refused and with which sentence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from callhouse import settings
from callhouse.errors import CallhouseError
from callhouse.quality import gx, runner, suites
from callhouse.quality.audit import failing_days
from callhouse.quality.runner import Finding
from callhouse.quality.suites import Check, Suite
from callhouse.sources import contract

EXPECTATIONS = settings.REPOSITORY / "expectations"
DBT_MODELS = settings.REPOSITORY / "dbt_project" / "models"
# dbt's test (of `valid_values`: its kind), and the expectation that would say the same.
SAME_CHECK = {
    "not_null": "expect_column_values_to_not_be_null",
    "unique": "expect_column_values_to_be_unique",
    "codes": "expect_column_values_to_be_in_set",
}

GOOD: dict[str, Any] = {
    "suite": "marts_calls",
    "boundary": "marts",
    "relation": "candidate.fct_calls",
    "expectations": [
        {
            "name": "talk_is_not_negative",
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "talk_seconds", "min_value": 0},
            "severity": "fail",
            "note": "Time does not run backwards.",
        }
    ],
}


def write(tmp_path: Path, content: object) -> Path:
    file = tmp_path / "marts" / "calls.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def query(text: str) -> Callable[[dict[str, Any]], None]:
    def put(suite: dict[str, Any]) -> None:
        suite["expectations"][0].update(
            type="unexpected_rows_expectation", kwargs={"unexpected_rows_query": text}
        )

    return put


def entry(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda suite: suite["expectations"][0].update(values)


def top(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda suite: suite.update(values)


REFUSED = [
    pytest.param(lambda s: s.pop("relation"), "relation is missing", id="no relation"),
    pytest.param(top(owner="me"), "'owner' is no key here", id="unknown key"),
    pytest.param(top(suite="Marts calls"), "must be a snake_case name", id="suite name"),
    pytest.param(top(boundary="inside"), "not one of marts, staging", id="boundary"),
    pytest.param(top(boundary="staging"), "belongs into expectations/staging/", id="folder"),
    pytest.param(top(relation="marts.fct_calls"), "must be staging.<table> or", id="relation"),
    pytest.param(top(relation="candidate.x; drop table y"), "must be staging", id="injection"),
    pytest.param(top(expectations=[]), "at least one entry", id="empty"),
    pytest.param(top(where=["x"]), "must be an SQL condition", id="where"),
    pytest.param(top(expectations=["x"]), "must be a mapping", id="no mapping"),
    pytest.param(
        lambda s: s["expectations"].append(dict(s["expectations"][0])),
        "'talk_is_not_negative' is used twice",
        id="name twice",
    ),
    pytest.param(lambda s: s["expectations"][0].pop("note"), "note is missing", id="no note"),
    pytest.param(entry(note="because"), "must say in words", id="short note"),
    pytest.param(entry(severity="critical"), "not one of fail, warn", id="severity"),
    pytest.param(entry(type="expect_column_values_to_be_betwen"), "no expectation type", id="type"),
    pytest.param(
        entry(type="expect_column_to_be_between"),
        "did you mean expect_column_.*to_be_between",
        id="nearly a type",
    ),
    pytest.param(entry(kwargs={"column": "x", "minimum": 0}), "no argument 'minimum'", id="kwarg"),
    pytest.param(entry(kwargs={"min_value": 0}), "does not accept its kwargs", id="no column"),
    pytest.param(
        entry(kwargs={"column": "x", "min_value": 0, "mostly": 0.9}),
        "would hide one bad day",
        id="mostly",
    ),
    pytest.param(entry(needs="marts.x"), "needs must be a list", id="needs"),
    pytest.param(entry(excuse_changed_days="yes"), "must be true or false", id="flag"),
    pytest.param(query("select business_day from x"), "reads every day", id="all days"),
    pytest.param(query("select 1 from {rows} as x"), "must return business_day", id="no day"),
    pytest.param(query("select business_day from {batch}"), r"uses \{batch\}", id="placeholder"),
    pytest.param(query("select business_day from {rows"), "not closed", id="open brace"),
    pytest.param(
        query("select business_day from {rows} as x where a = :limit"),
        "':limit' in the query would be read as a bind parameter",
        id="bind parameter",
    ),
]


@pytest.mark.parametrize(("damage", "sentence"), REFUSED)
def test_refused(tmp_path: Path, damage: Callable[[dict[str, Any]], None], sentence: str) -> None:
    content = yaml.safe_load(yaml.safe_dump(GOOD))
    damage(content)
    file = write(tmp_path, content)
    with pytest.raises(CallhouseError, match=sentence) as error:
        suites.load_file(file)
    assert str(file) in str(error.value)


def test_accepted(tmp_path: Path) -> None:
    suite = suites.load_file(write(tmp_path, GOOD))
    assert (suite.name, suite.relation, len(suite.checks)) == (
        "marts_calls", "candidate.fct_calls", 1,
    )  # fmt: skip
    assert suite.checks[0].is_by_row
    assert suite.checks[0].column == "talk_seconds"


def test_unreadable_file(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    file.write_text("suite: [", encoding="utf-8")
    with pytest.raises(CallhouseError, match="no readable YAML"):
        suites.load_file(file)
    file.write_text("- suite", encoding="utf-8")
    with pytest.raises(CallhouseError, match="must be a mapping"):
        suites.load_file(file)


def test_no_suites_is_no_pass(tmp_path: Path) -> None:
    with pytest.raises(CallhouseError, match="holds no suite"):
        suites.load(tmp_path)
    with pytest.raises(CallhouseError, match="is no folder"):
        suites.load(tmp_path / "missing")


def test_suite_name_twice(tmp_path: Path) -> None:
    (write(tmp_path, GOOD).parent / "other.yaml").write_text(yaml.safe_dump(GOOD), "utf-8")
    with pytest.raises(CallhouseError, match="'marts_calls' is used twice"):
        suites.load(tmp_path)


def shipped() -> list[Suite]:
    loaded = suites.load(EXPECTATIONS)
    assert {s.name for s in loaded} >= {
        "staging_delimited", "marts_calls", "marts_queues", "marts_agents",
    }  # fmt: skip
    return loaded


def test_shipped_suites() -> None:
    for suite in shipped():
        assert suite.name == f"{suite.boundary}_{suite.file.stem}"
        # A suite of warnings alone would let everything through.
        assert any(check.severity == "fail" for check in suite.checks)
        for check in suite.checks:
            if check.query is not None:
                filled = runner.fill(check.query, suite, [date(2026, 3, 1)])
                assert "date '2026-03-01'" in filled


def test_marts_know_no_vendor() -> None:
    # STYLE rule 2: nothing downstream of staging learns a vendor's name.
    vendors = [s.relation.split(".")[1] for s in shipped() if s.boundary == "staging"]
    assert vendors
    for suite in shipped():
        if suite.boundary == "marts":
            text = suite.file.read_text(encoding="utf-8")
            assert "staging." not in text
            assert not any(vendor in text for vendor in vendors)


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("outcome_is_a_known_code", contract.OUTCOMES),
        ("abandon_stage_is_a_known_code", contract.ABANDON_STAGES),
        ("transfer_type_is_a_known_code", contract.TRANSFER_TYPES),
    ],
)
def test_codes_are_those_of_the_contract(name: str, codes: tuple[str, ...]) -> None:
    checks = {check.name: check for suite in shipped() for check in suite.checks}
    assert set(checks[name].kwargs["value_set"]) == set(codes)


def test_dbt_makes_none_of_these_checks() -> None:
    # STYLE rule 46: one check, one place.
    checked_by_dbt = set()
    for file in DBT_MODELS.rglob("*.yml"):
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        nodes = [("candidate", model) for model in content.get("models", [])]
        nodes += [
            (source.get("schema", source["name"]), table)
            for source in content.get("sources", [])
            for table in source.get("tables", [])
        ]
        for schema, node in nodes:
            for test in node.get("data_tests", []):
                for wanted in test.get("valid_values", {}).get("arguments", {}).values():
                    checked_by_dbt |= {
                        (f"{schema}.{node['name']}", column, kind)
                        for kind, columns in wanted.items()
                        for column in columns
                    }
            for column in node.get("columns", []):
                for test in column.get("data_tests", column.get("tests", [])):
                    kind = test if isinstance(test, str) else next(iter(test))
                    checked_by_dbt.add((f"{schema}.{node['name']}", column["name"], kind))
    assert {
        ("candidate.fct_calls", "queue_id", "members_of_source"),
        ("candidate.fct_ivr_steps", "channel", "codes"),
    } <= checked_by_dbt
    checked_here = {
        (suite.relation, check.column, check.type) for suite in shipped() for check in suite.checks
    }
    twice = {
        (relation, column, kind)
        for relation, column, kind in checked_by_dbt
        if (relation, column, SAME_CHECK.get(kind)) in checked_here
    }
    assert twice == set()


DAYS = [date(2026, 3, 1), date(2026, 3, 2)]


def check(**values: Any) -> Check:
    defaults = {
        "name": "calls_agree", "type": gx.SQL_TYPE, "kwargs": {}, "severity": "fail",
        "note": "They have to.",
    }  # fmt: skip
    return Check(**{**defaults, **values})


SUITE = Suite("marts_calls", "marts", "candidate.fct_calls", "calls = 1", (), Path("calls.yaml"))


def test_days_are_literals() -> None:
    # Anything else would lock and plan every partition.
    text = runner.fill("select {days} | {reference_days} | {rows}", SUITE, DAYS[:1])
    assert text == (
        "select date '2026-03-01' | date '2026-02-01', date '2026-02-08', date '2026-02-15', "
        "date '2026-02-22' | (select * from candidate.fct_calls where business_day in "
        "(date '2026-03-01') and (calls = 1))"
    )


def test_no_days_match_nothing() -> None:
    assert runner.day_list([]) == "null::date"


def test_excused_day_holds_nothing() -> None:
    finding = Finding(
        SUITE, check(excuse_changed_days=True), False, "2 rows", tuple(DAYS), {DAYS[0]: "1 lost"}
    )
    one = runner.excuse(finding, {DAYS[0]})
    assert (one.is_success, one.failing_days) == (False, (DAYS[1],))
    assert one.observed == "2 rows; not compared, changed while being built: 2026-03-01"
    both = runner.excuse(finding, set(DAYS))
    assert (both.is_success, both.failing_days) == (True, ())


def test_only_comparisons_with_staging_are_excused() -> None:
    finding = Finding(SUITE, check(), False, "2 rows", tuple(DAYS))
    assert runner.excuse(finding, set(DAYS)) is finding


def test_failing_days_leave_out_warnings() -> None:
    findings = [
        Finding(SUITE, check(), False, "2 rows", (DAYS[1],), {DAYS[1]: "1 lost"}),
        Finding(SUITE, check(severity="warn"), False, "odd", tuple(DAYS)),
        Finding(SUITE, check(name="other"), True),
        *(Finding(SUITE, check(name=f"more_{n}"), False, "bad", (DAYS[1],)) for n in range(4)),
    ]
    assert failing_days(findings) == {
        DAYS[1]: "marts_calls.calls_agree: 1 lost; marts_calls.more_0: bad; "
        "marts_calls.more_1: bad; and 2 more"
    }


def test_published_relations_instead_of_candidates() -> None:
    build_only = check(name="build_only", candidates_only=True)
    counted = check(
        kwargs={"unexpected_rows_query": "select business_day from candidate.fct_calls"}
    )
    suite = suites.of_published(
        Suite("s", "marts", "candidate.fct_calls", None, (build_only, counted), Path("s.yaml"))
    )
    assert suite.relation == "marts.fct_calls"
    assert [c.query for c in suite.checks] == ["select business_day from marts.fct_calls"]
