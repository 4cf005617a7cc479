"""The dictionary and the metric catalogue, written from the manifest so that they cannot drift."""

from __future__ import annotations

import re
from pathlib import Path

from callhouse.errors import CallhouseError
from callhouse.semantic import Catalogue, Dataset, Metric

TARGETS = "dim_queue"  # carries the effective-dated targets
NUMBER = re.compile(r"\d+(\.\d+)?")
HEADINGS = ("metric", "指标", "meaning", "formula", "numerator ÷ denominator", "unit", "target",
            "owner", "source", "also on")  # fmt: skip
INTRODUCTION = """\
Generated from the dbt project by `./callhouse docs`. A metric is one expression over rows of the
relation it stands under; it is right at any combination of the relation's dimensions and for any
period (`day`, `week`, `month`, `quarter`, `year`), because ratios are ratios of sums. A target
named by a column is the queue's on that day (`dim_queue`); history keeps the target of its day."""


def write(catalogue: Catalogue, directory: Path) -> list[Path]:
    """Write `metrics.md` and `dictionary.md` into `directory`; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    pages = {
        "metrics.md": metrics(catalogue),
        "dictionary.md": "\n".join(["# Dictionary", *map(_dataset, catalogue.datasets)]),
    }
    written = []
    for name, text in pages.items():
        file = directory / name
        file.write_text(text.rstrip() + "\n", encoding="utf-8")
        written.append(file)
    return written


def metrics(catalogue: Catalogue) -> str:
    """The metric catalogue: a section per relation, which gives its metrics grain and dimensions.

    Raises CallhouseError where a metric does not say who owns it, who defines it so, and which
    target it has.
    """
    lines = ["# Metrics", "", INTRODUCTION, ""]
    for relation in sorted({m.relation for m in catalogue.metrics.values()}):
        home = catalogue.dataset(relation)
        lines += [
            f"## On `{relation}`",
            "",
            f"**Grain** {grain(home)}",
            "",
            f"**Dimensions** {', '.join(f'`{name}`' for name in home.dimensions)}",
            "",
            f"| {' | '.join(HEADINGS)} |",
            "|---" * len(HEADINGS) + "|",
        ]
        lines += [_metric(m, catalogue) for m in home.metrics if m.relation == relation]
        lines.append("")
    return "\n".join(lines)


def grain(dataset: Dataset) -> str:
    """The sentence of a relation's description that says what one row is."""
    sentence = " ".join(dataset.description.split()).split(". ")[0].rstrip(".") + "."
    if not sentence.startswith("One row per "):
        raise CallhouseError(f"the description of {dataset.name} must begin with 'One row per'")
    return sentence


def _metric(metric: Metric, catalogue: Catalogue) -> str:
    for name in ("description", "unit", "target", "owner", "source"):
        if not getattr(metric, name):
            raise CallhouseError(f"metric {metric.name} has no {name} in its meta")
    _check_target(metric, catalogue)
    parts = f"`{metric.numerator}` ÷ `{metric.denominator}`" if metric.denominator else "–"
    others = [
        f"`{d.name}`"
        for d in catalogue.datasets
        if d.name != metric.relation and metric in d.metrics
    ]
    cells = [
        f"`{metric.name}` {metric.label_en}", metric.label_zh, metric.description,
        f"`{metric.expression}`", parts, metric.unit, metric.target, metric.owner, metric.source,
        ", ".join(others) or "–",
    ]  # fmt: skip
    return f"| {' | '.join(map(_cell, cells))} |"


def _check_target(metric: Metric, catalogue: Catalogue) -> None:
    if metric.target == "none":
        return
    direction, _, bound = metric.target.rpartition(" ")
    known = catalogue.dataset(TARGETS).column_names
    if direction not in ("at least", "at most") or not (bound in known or NUMBER.fullmatch(bound)):
        raise CallhouseError(
            f"metric {metric.name} has target {metric.target!r}: write `none`, or `at least` or "
            f"`at most` with a number or a column of {TARGETS}"
        )


def _dataset(dataset: Dataset) -> str:
    lines = ["", f"## `bi.{dataset.name}`", "", dataset.description, "", "| column | type | text |",
             "|---|---|---|"]  # fmt: skip
    lines += [f"| `{c.name}` | {c.data_type} | {_cell(c.description)} |" for c in dataset.columns]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
