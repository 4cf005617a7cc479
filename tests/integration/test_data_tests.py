"""The data tests `valid_values` and `key`: what they find, let be, and what a failed build says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from callhouse import landing, simulate, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.transform import dbt

SOURCE, DAY = "sample_hotline", date(2026, 3, 2)
MODELS = ("fct_calls", "int_calls__unioned", "dim_queue")
KEY_OF_CALLS = "key_fct_calls_business_day_call_key"
TEST_OF_CALLS = ("test", "--select", "valid_values_fct_calls")
ONE_CALL = "(select min(call_key) from candidate.fct_calls)"
TWO_CALLS = "(select call_key from candidate.fct_calls order by call_key limit 2)"
ONE_RECORD = "(select min(call_id) from candidate.int_calls__unioned)"


@dataclass(frozen=True)
class Built:
    """A day as it was built, and the statements of the tests that have passed."""

    settings: Settings
    statements: dict[str, str]


@pytest.fixture(scope="module")
def built(settings: Settings, cluster: postgres.Cluster, tmp_path_factory: Any) -> Built:
    feed: Path = tmp_path_factory.mktemp("feed")
    simulate.write(feed, seed=7, start=DAY, days=1, calls_per_day=80, dirt=False)
    landing.land(settings, SOURCE, [feed])
    transform.prepare(settings, dbt.quiet)
    build_id = transform.claim(settings)
    assert build_id is not None
    transform.build(settings, build_id, dbt.quiet)
    results = json.loads((dbt.target(settings) / "run_results.json").read_text(encoding="utf-8"))
    statements = {r["unique_id"].split(".")[2]: r["compiled_code"] for r in results["results"]}
    assert {f"valid_values_{model}" for model in MODELS} | {KEY_OF_CALLS} <= set(statements)
    return Built(settings, statements)


@pytest.fixture
def found(built: Built) -> Callable[[str, str], list[tuple[Any, ...]]]:
    """What the test of a model finds after a statement, which is undone."""

    def find(model: str, damage: str) -> list[tuple[Any, ...]]:
        with warehouse.connect(built.settings) as connection:
            connection.execute("set role callhouse_owner")
            changed = connection.execute(damage.encode()).rowcount
            assert changed, "nothing to find"
            rows = connection.execute(
                "select severity, column_name, value, problem, of_source, rows_found from ("
                f"{built.statements[f'valid_values_{model}']}) as found".encode()
            ).fetchall()
            connection.rollback()
        return rows

    return find


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_found_where_nothing_is_wrong(built: Built, model: str) -> None:
    with warehouse.connect(built.settings) as connection:
        connection.execute("set role callhouse_owner")
        assert warehouse.one(connection, f"select count(*) from candidate.{model}")[0] > 0
        assert not connection.execute(built.statements[f"valid_values_{model}"].encode()).fetchall()


@pytest.mark.parametrize(
    ("model", "damage", "row"),
    [
        pytest.param(
            "fct_calls",
            f"update candidate.fct_calls set queue_id = 'q0' where call_key in {TWO_CALLS}",
            ("fail", "queue_id", "q0", "not in dim_queue", SOURCE, 2),
            id="no member of any source",
        ),
        pytest.param(
            "fct_calls",
            "with known as (insert into candidate.dim_agent (source, agent_id, valid_from) "
            "values ('other', 'a0', '2026-03-01')) "
            f"update candidate.fct_calls set agent_id = 'a0' where call_key = {ONE_CALL}",
            ("fail", "agent_id", "a0", "not in dim_agent", SOURCE, 1),
            id="a member of another source",
        ),
        pytest.param(
            "fct_calls",
            f"update candidate.fct_calls set hotline_id = null where call_key = {ONE_CALL}",
            ("warn", "hotline_id", None, "not in dim_hotline", SOURCE, 1),
            id="null is no member of a source",
        ),
        pytest.param(
            "fct_calls",
            f"update candidate.fct_calls set outcome = 'lost' where call_key = {ONE_CALL}",
            ("fail", "outcome", "lost", "not in dim_outcome", SOURCE, 1),
            id="no member",
        ),
        pytest.param(
            "fct_calls",
            f"update candidate.fct_calls set region_code = 'XX' where call_key = {ONE_CALL}",
            ("warn", "region_code", "XX", "not in dim_region", SOURCE, 1),
            id="no member, which is a warning",
        ),
        pytest.param(
            "int_calls__unioned",
            "update candidate.int_calls__unioned set abandon_stage = 'lift' "
            f"where call_id = {ONE_RECORD}",
            ("fail", "abandon_stage", "lift", "no known code", SOURCE, 1),
            id="no code",
        ),
        pytest.param(
            "int_calls__unioned",
            "update candidate.int_calls__unioned set hangup_party = 'nobody' "
            f"where call_id = {ONE_RECORD}",
            ("warn", "hangup_party", "nobody", "no known code", SOURCE, 1),
            id="no code, which is a warning",
        ),
        pytest.param(
            "int_calls__unioned",
            "update candidate.int_calls__unioned set ivr_seconds = -3 "
            f"where call_id = {ONE_RECORD}",
            ("warn", "ivr_seconds", "-3", "negative", SOURCE, 1),
            id="a negative number",
        ),
    ],
)
def test_a_wrong_value_is_found_with_its_column_and_source(
    found: Callable[[str, str], list[tuple[Any, ...]]], model: str, damage: str,
    row: tuple[Any, ...],
) -> None:  # fmt: skip
    assert found(model, damage) == [row]


@pytest.mark.parametrize(
    ("model", "damage"),
    [
        pytest.param(
            "fct_calls", "update candidate.fct_calls set business_type = null", id="member"
        ),
        pytest.param(
            "int_calls__unioned", "update candidate.int_calls__unioned set abandon_stage = null",
            id="code",
        ),
        pytest.param(
            "int_calls__unioned", "update candidate.int_calls__unioned set ivr_seconds = null",
            id="number",
        ),
    ],
)  # fmt: skip
def test_what_is_not_known_is_no_wrong_value(
    found: Callable[[str, str], list[tuple[Any, ...]]], model: str, damage: str
) -> None:
    assert found(model, damage) == []


def test_a_table_without_sources_is_read_too(
    found: Callable[[str, str], list[tuple[Any, ...]]],
) -> None:
    rows = found("dim_outcome", "update candidate.dim_outcome set outcome = 'lost' "
                 "where outcome = 'closed'")  # fmt: skip
    assert rows == [("fail", "outcome", "lost", "no known code", None, 1)]


def change(settings: Settings, statement: str) -> None:
    """Damage the candidates, or mend them."""
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute(statement.encode())


@pytest.mark.parametrize(
    ("damage", "shared_by"),
    [
        pytest.param("update candidate.fct_calls set calls = calls", [], id="good rows"),
        pytest.param(
            "insert into candidate.fct_calls select * from candidate.fct_calls "
            f"where call_key = {ONE_CALL}",
            [2],
            id="a key twice",
        ),
        pytest.param(
            "alter table candidate.fct_calls alter call_key drop not null; "
            f"update candidate.fct_calls set call_key = null where call_key = {ONE_CALL}",
            [1],
            id="a key without a part",
        ),
    ],
)
def test_keys_are_complete_and_of_one_row(built: Built, damage: str, shared_by: list[int]) -> None:
    with warehouse.connect(built.settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute(damage.encode())
        rows = connection.execute(built.statements[KEY_OF_CALLS].encode()).fetchall()
        connection.rollback()
    assert [count for _, _, count in rows] == shared_by


def said_of_calls(built: Built) -> dbt.NodeResult:
    """What dbt says of `valid_values` of the calls."""
    results = dbt.run(built.settings, *TEST_OF_CALLS, report=dbt.quiet)
    [result] = [r for r in results if r.node.startswith("test.")]
    return result


def test_a_failed_build_names_the_values_and_a_warning_is_no_failure(built: Built) -> None:
    """dbt itself says how many there are, and of one test for all columns not even of which."""
    change(built.settings, "create table candidate.kept as table candidate.fct_calls")
    try:
        change(built.settings, f"update candidate.fct_calls set outcome = 'lost', "
               f"hotline_id = null where call_key in {TWO_CALLS}")  # fmt: skip
        with pytest.raises(dbt.BuildError) as failed:
            said_of_calls(built)
        warned = f"hotline_id null of source '{SOURCE}' is not in dim_hotline (2 rows)"
        assert str(failed.value).endswith(
            f": outcome 'lost' of source '{SOURCE}' is not in dim_outcome (2 rows), {warned}"
        )
        assert "valid_values_fct_calls" in str(failed.value)
        change(built.settings, "update candidate.fct_calls set outcome = kept.outcome "
               "from candidate.kept where fct_calls.call_key = kept.call_key")  # fmt: skip
        result = said_of_calls(built)
        assert (result.status, result.failures) == ("warn", 1)
        assert result.message is not None and result.message.endswith(f": {warned}")
        change(built.settings, "update candidate.fct_calls set region_code = 'X' || call_key")
        result = said_of_calls(built)
        assert result.message is not None and result.message.endswith(" more")
    finally:
        change(built.settings, "truncate candidate.fct_calls; insert into candidate.fct_calls "
               "table candidate.kept; drop table candidate.kept")  # fmt: skip
    result = said_of_calls(built)
    assert (result.status, result.failures) == ("pass", 0)
