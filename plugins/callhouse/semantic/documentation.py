"""The dictionary and the metric catalogue, written from the manifest so that they cannot drift."""

from __future__ import annotations

from pathlib import Path

from callhouse.semantic import Catalogue, Dataset, Metric


def write(catalogue: Catalogue, directory: Path) -> list[Path]:
    """Write `metrics.md` and `dictionary.md` into `directory`; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    pages = {
        "metrics.md": _metrics(list(catalogue.metrics.values())),
        "dictionary.md": "\n".join(["# Dictionary", *map(_dataset, catalogue.datasets)]),
    }
    written = []
    for name, text in pages.items():
        file = directory / name
        file.write_text(text.rstrip() + "\n", encoding="utf-8")
        written.append(file)
    return written


def _metrics(metrics: list[Metric]) -> str:
    lines = ["# Metrics", ""]
    for relation in sorted({m.relation for m in metrics}):
        lines += [f"## On `{relation}`", "", "| metric | 指标 | unit | meaning | formula |",
                  "|---|---|---|---|---|"]  # fmt: skip
        lines += [
            f"| `{m.name}` {m.label_en} | {m.label_zh} | {m.unit} | {_cell(m.description)} "
            f"| `{_cell(m.expression)}` |"
            for m in metrics
            if m.relation == relation
        ]
        lines.append("")
    return "\n".join(lines)


def _dataset(dataset: Dataset) -> str:
    lines = ["", f"## `bi.{dataset.name}`", "", dataset.description, "", "| column | type | text |",
             "|---|---|---|"]  # fmt: skip
    lines += [f"| `{c.name}` | {c.data_type} | {_cell(c.description)} |" for c in dataset.columns]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
