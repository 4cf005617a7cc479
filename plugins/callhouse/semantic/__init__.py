"""Metrics as dbt's manifest defines them, turned into SQL expressions on one relation.

The only place that turns a metric into SQL: Superset's datasets and `callhouse metric` get it from
here, and `mf query` computes the same from the same YAML.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from callhouse.errors import CallhouseError
from callhouse.settings import Settings

TIME_DIMENSIONS = {
    "day": "business_day",
    "week": "date_trunc('week', business_day)::date",
    "month": "date_trunc('month', business_day)::date",
    "quarter": "date_trunc('quarter', business_day)::date",
    "year": "date_trunc('year', business_day)::date",
    "interval": "interval_start_at",
    "hour": "local_hour",
    "weekday": "iso_weekday",
}
_SUFFIXES = ("", "_id", "_code")


@dataclass(frozen=True)
class Metric:
    """A saved metric: `expression` over rows of `relation`, in `unit` count, rate or seconds.

    `numerator`, `denominator`: names of the metrics that a ratio divides, else empty. `source`: who
    defines it so. `target`: column of the effective-dated targets, after `at least` or `at most`;
    `none` where there is none.
    """

    name: str
    expression: str
    relation: str
    columns: frozenset[str]
    is_additive: bool
    label_en: str
    label_zh: str
    description: str
    unit: str
    numerator: str = ""
    denominator: str = ""
    note: str = ""
    source: str = ""
    owner: str = ""
    target: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a published relation, as readers see it."""

    name: str
    data_type: str
    description: str
    label_en: str
    label_zh: str

    @property
    def is_time(self) -> bool:
        """True for dates and timestamps."""
        return self.data_type.startswith(("date", "timestamp"))


@dataclass(frozen=True)
class Dataset:
    """A relation of schema `bi` with the metrics that are right on it."""

    name: str
    description: str
    columns: tuple[Column, ...]
    metrics: tuple[Metric, ...]

    @property
    def main_time_column(self) -> str | None:
        """The column that time filters use."""
        names = [c.name for c in self.columns]
        return next((n for n in ("business_day", "happened_at") if n in names), None)

    @cached_property
    def column_names(self) -> frozenset[str]:
        """Names of `columns`."""
        return frozenset(c.name for c in self.columns)

    def dimension(self, name: str) -> str:
        """SQL of dimension `name` (a column, or its name without `_id` or `_code`)."""
        if name in TIME_DIMENSIONS:
            expression = TIME_DIMENSIONS[name]
            needed = "business_day" if "business_day" in expression else expression
            if needed in self.column_names:
                return expression
        for suffix in _SUFFIXES:
            if name + suffix in self.column_names:
                return f'"{name}{suffix}"'
        raise CallhouseError(
            f"{self.name} has no dimension {name!r}: it has {', '.join(self.dimensions)}"
        )

    @property
    def dimensions(self) -> list[str]:
        """Dimension names that this relation answers."""
        times = [
            name
            for name, expression in TIME_DIMENSIONS.items()
            if ("business_day" if "business_day" in expression else expression) in self.column_names
        ]
        measured = {column for metric in self.metrics for column in metric.columns}
        hidden = measured | set(TIME_DIMENSIONS.values())
        others = [
            re.sub(r"_(id|code)$", "", c.name)
            for c in self.columns
            if c.name not in hidden and c.data_type == "text" and not c.name.endswith("_key")
        ]
        return times + others


@dataclass(frozen=True)
class Catalogue:
    """Every saved metric and every dataset."""

    metrics: dict[str, Metric]
    datasets: list[Dataset]

    def dataset(self, name: str) -> Dataset:
        """The dataset of a relation."""
        for dataset in self.datasets:
            if dataset.name == name:
                return dataset
        raise CallhouseError(f"no dataset {name!r}")


def load(settings: Settings) -> Catalogue:
    """The catalogue of this instance's dbt project."""
    from callhouse.transform import dbt

    return catalogue(dbt.manifest(settings))


def catalogue(manifest: dict[str, Any]) -> Catalogue:
    """Build the catalogue from dbt's manifest."""
    nodes = {m["name"]: m for m in manifest["metrics"].values()}
    relations = {s["name"]: _relation(s) for s in manifest["semantic_models"].values()}
    metrics = {}
    for name, node in sorted(nodes.items()):
        meta = node["config"].get("meta", {})
        expression, columns, homes, additive = _expression(name, nodes, relations)
        if len(homes) != 1:
            raise CallhouseError(
                f"metric {name} needs {len(homes)} relations ({', '.join(sorted(homes))}): "
                "a published metric resolves on one mart"
            )
        unit = meta.get("unit", "count")
        if unit == "count" and node["type"] == "simple" and expression.startswith("sum("):
            expression = f"coalesce({expression}, 0)"
        metrics[name] = Metric(
            name=name,
            expression=expression,
            relation=homes.pop(),
            columns=frozenset(columns),
            is_additive=additive,
            label_en=node["label"],
            label_zh=meta.get("label_zh", node["label"]),
            description=(node["description"] or "").strip(),
            unit=unit,
            numerator=_part(node, "numerator"),
            denominator=_part(node, "denominator"),
            note=meta.get("note", ""),
            source=meta.get("source", ""),
            owner=meta.get("owner", ""),
            target=meta.get("target", ""),
        )
    datasets = []
    for node in manifest["nodes"].values():
        if node["resource_type"] != "model" or not node["config"].get("meta", {}).get("published"):
            continue
        readable = tuple(_column(c) for c in node["columns"].values())
        if masked := node["config"]["meta"].get("masked_caller"):  # the view adds it
            column = {"name": "caller_masked", "data_type": "text", "meta": masked}
            readable += (_column({**column, "description": masked["description"]}),)
        names = {c.name for c in readable}
        datasets.append(
            Dataset(
                name=node["name"],
                description=(node["description"] or "").strip(),
                columns=readable,
                # An aggregate carries sums under the names of the row facts, so what adds up
                # on the facts adds up there; percentiles and extremes stay with the rows.
                metrics=tuple(
                    m
                    for m in metrics.values()
                    if m.relation == node["name"]
                    or (node["name"].startswith("agg_") and m.is_additive and m.columns <= names)
                ),
            )
        )
    return Catalogue(metrics, sorted(datasets, key=lambda d: d.name))


def _part(node: dict[str, Any], part: str) -> str:
    return str(node["type_params"][part]["name"]) if node["type"] == "ratio" else ""


def _relation(semantic_model: dict[str, Any]) -> str:
    return str(semantic_model["node_relation"]["alias"])


def _column(node: dict[str, Any]) -> Column:
    meta = {**(node.get("meta") or {}), **((node.get("config") or {}).get("meta") or {})}
    label = str(meta.get("label", node["name"].replace("_", " ").capitalize()))
    return Column(
        name=node["name"],
        data_type=node["data_type"],
        description=(node["description"] or "").strip(),
        label_en=label,
        label_zh=str(meta.get("label_zh", label)),
    )


def _expression(
    name: str, nodes: dict[str, Any], relations: dict[str, str]
) -> tuple[str, set[str], set[str], bool]:
    """SQL, columns, relations and additivity of metric `name`."""
    if name not in nodes:
        raise CallhouseError(f"no metric {name!r}")
    node = nodes[name]
    if node.get("filter"):
        raise CallhouseError(f"metric {name} has a filter: make it a 0/1 column of the mart")
    parameters = node["type_params"]
    if node["type"] == "simple":
        aggregation = parameters["metric_aggregation_params"]
        expression = parameters["expr"]
        return (
            _aggregate(name, aggregation, expression),
            set(re.findall(r"[a-z_][a-z0-9_]*", expression)),
            {relations[aggregation["semantic_model"]]},
            aggregation["agg"] == "sum",
        )
    if node["type"] == "ratio":
        top = _expression(parameters["numerator"]["name"], nodes, relations)
        bottom = _expression(parameters["denominator"]["name"], nodes, relations)
        return (
            f"{top[0]}::numeric / nullif({bottom[0]}, 0)",
            top[1] | bottom[1],
            top[2] | bottom[2],
            top[3] and bottom[3],
        )
    if node["type"] == "derived":
        inputs = {
            (i.get("alias") or i["name"]): _expression(i["name"], nodes, relations)
            for i in parameters["metrics"]
        }
        text = re.sub(
            r"[a-z_][a-z0-9_]*",
            lambda word: inputs[word[0]][0] if word[0] in inputs else word[0],
            parameters["expr"],
        )
        return (
            text,
            set().union(*(i[1] for i in inputs.values())),
            set().union(*(i[2] for i in inputs.values())),
            all(i[3] for i in inputs.values()),
        )
    raise CallhouseError(f"metric {name} is of type {node['type']}, which has no SQL here")


def _aggregate(name: str, aggregation: dict[str, Any], expression: str) -> str:
    match aggregation["agg"]:
        case "sum" | "max" | "min" as function:
            return f"{function}({expression})"
        case "average":
            return f"avg({expression})"
        case "count_distinct":
            return f"count(distinct {expression})"
        case "median":
            return f"percentile_cont(0.5) within group (order by {expression})"
        case "percentile":
            share = aggregation["agg_params"]["percentile"]
            return f"percentile_cont({share}) within group (order by {expression})"
        case other:
            raise CallhouseError(f"metric {name} aggregates with {other}, which has no SQL here")
