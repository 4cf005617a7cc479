"""Metric YAML → SQL: what the dashboards, the command line and the tests all rely on."""

from __future__ import annotations

from typing import Any

import pytest

from callhouse import semantic
from callhouse.errors import CallhouseError
from callhouse.semantic.query import Question, compose, condition


def metric(name: str, kind: str = "simple", **parameters: Any) -> dict[str, Any]:
    meta = parameters.pop("meta", {})
    agg = parameters.pop("agg", "sum")
    if kind == "simple":
        parameters["metric_aggregation_params"] = {
            "semantic_model": parameters.pop("model", "fct_visits"),
            "agg": agg,
            "agg_params": {"percentile": 0.8},
        }
    return {
        "name": name,
        "label": name.upper(),
        "description": "",
        "type": kind,
        "type_params": parameters,
        "config": {"meta": meta},
    }


def model(name: str, *columns: str) -> dict[str, Any]:
    return {
        "name": name,
        "resource_type": "model",
        "description": "",
        "config": {"meta": {"published": True}},
        "columns": {
            c: {"name": c, "description": "", "data_type": "text" if c.endswith("_id") else "date"}
            for c in columns
        },
    }


@pytest.fixture
def manifest() -> dict[str, Any]:
    metrics = [
        metric("answered", expr="answered"),
        metric("offered", expr="offered"),
        metric("wait_p80", agg="percentile", expr="wait_seconds"),
        metric("agents", model="fct_legs", expr="legs"),
        metric(
            "answer_rate", "ratio", numerator={"name": "answered"}, denominator={"name": "offered"}
        ),
        metric(
            "lost", "derived", expr="offered - answered",
            metrics=[{"name": "offered"}, {"name": "answered"}],
        ),
    ]  # fmt: skip
    return {
        "metrics": {m["name"]: m for m in metrics},
        "semantic_models": {
            n: {"name": n, "node_relation": {"alias": n}} for n in ("fct_visits", "fct_legs")
        },
        "nodes": {
            "a": model("fct_visits", "business_day", "queue_id", "answered", "offered",
                       "wait_seconds"),
            "b": model("agg_daily", "business_day", "queue_id", "answered", "offered",
                       "wait_seconds"),
            "c": model("fct_legs", "business_day", "legs", "answered", "offered"),
        },
    }  # fmt: skip


def test_a_ratio_is_a_ratio_of_sums_and_null_on_nothing(manifest: dict[str, Any]) -> None:
    metrics = semantic.catalogue(manifest).metrics
    assert metrics["answer_rate"].expression == "sum(answered)::numeric / nullif(sum(offered), 0)"
    assert metrics["answered"].expression == "coalesce(sum(answered), 0)"
    assert metrics["lost"].expression == "sum(offered) - sum(answered)"
    assert (
        metrics["wait_p80"].expression
        == "percentile_cont(0.8) within group (order by wait_seconds)"
    )


def test_aggregates_get_what_adds_up_and_nothing_else(manifest: dict[str, Any]) -> None:
    catalogue = semantic.catalogue(manifest)
    names = {d.name: {m.name for m in d.metrics} for d in catalogue.datasets}
    assert names["fct_visits"] == {"answered", "offered", "wait_p80", "answer_rate", "lost"}
    assert names["agg_daily"] == {"answered", "offered", "answer_rate", "lost"}
    assert names["fct_legs"] == {"agents"}, "another grain must not lend its names"


def test_a_metric_over_two_relations_is_refused(manifest: dict[str, Any]) -> None:
    wrong = metric("mixed", "ratio", numerator={"name": "answered"}, denominator={"name": "agents"})
    manifest["metrics"]["mixed"] = wrong
    with pytest.raises(CallhouseError, match="mixed needs 2 relations"):
        semantic.catalogue(manifest)


def test_a_question_becomes_one_statement(manifest: dict[str, Any]) -> None:
    catalogue = semantic.catalogue(manifest)
    question = Question(("answered",), where=(condition("queue=it's"),))
    statement = compose(
        catalogue, catalogue.dataset("fct_visits"), ["answered"], ["day", "queue"],
        question,
    ).as_string()  # fmt: skip
    assert statement == (
        'select business_day, "queue_id", coalesce(sum(answered), 0) from bi."fct_visits"'
        " where \"queue_id\" = 'it''s' group by 1, 2"
    )


def test_an_unknown_dimension_is_told_with_those_that_exist(manifest: dict[str, Any]) -> None:
    with pytest.raises(CallhouseError, match="no dimension 'colour': it has day, week, month"):
        semantic.catalogue(manifest).dataset("fct_visits").dimension("colour")


def test_a_condition_needs_a_value() -> None:
    with pytest.raises(CallhouseError, match="dimension=value"):
        condition("queue")
