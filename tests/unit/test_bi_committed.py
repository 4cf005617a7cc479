"""CI's render diff: superset/assets is what the dbt project says today."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from callhouse import bi, semantic
from callhouse import settings as settings_module
from callhouse.bi import members, render
from callhouse.errors import CallhouseError
from callhouse.semantic import documentation
from callhouse.settings import LANGUAGES, Settings
from callhouse.transform import dbt


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    environment = {"PATH": os.environ["PATH"], "CALLHOUSE_HOME": str(home)}
    for name in ("CALLHOUSE_PIPELINE_ENV",):
        if value := os.environ.get(name):
            environment[name] = value
    return settings_module.load(environment)


def test_committed_datasets_are_up_to_date(parsed: Settings) -> None:
    changed = bi.render_committed(parsed, check=True)
    assert changed == [], "run `make render` and commit what it changes"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_board_renders_from_the_real_catalogue(parsed: Settings, language: str) -> None:
    files = render.bundle(semantic.load(parsed), language)
    assert "dashboards/operations_overview.yaml" in files
    charts = [path for path in files if path.startswith("charts/operations_overview__")]
    assert len(charts) == 20


def test_every_code_that_a_column_may_have_is_a_word_in_chinese(parsed: Settings) -> None:
    """Accepted values of published columns, and every code of the seeds that have names."""
    manifest = dbt.manifest(parsed)
    published = {
        identity: node["name"]
        for identity, node in manifest["nodes"].items()
        if node["config"].get("meta", {}).get("published")
    }
    checked, missing = 0, set()
    for test in manifest["nodes"].values():
        if test.get("test_metadata", {}).get("name") != "valid_values":
            continue
        relation = published.get(test["attached_node"])
        if relation is None:
            continue
        for severity in ("fail", "warn"):
            wanted = test["test_metadata"]["kwargs"].get(severity, {})
            for column, values in wanted.get("codes", {}).items():
                words = members.words(relation, column, "zh")
                missing |= {(relation, column, v) for v in values if v not in words}
                checked += 1
    assert checked >= 8
    assert missing == set()


def test_the_metric_catalogue_tells_everything_of_every_metric(parsed: Settings) -> None:
    """Formula, grain, source, owner, target, unit, parts and dimensions, or it is not written."""
    catalogue = semantic.load(parsed)
    page = documentation.metrics(catalogue)
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len(catalogue.metrics) > 100
    assert page.count("**Grain** One row per ") == page.count("**Dimensions** `day`")
    row = next(line for line in rows if line.startswith("| `service_level` "))
    assert (
        "| `answered_within_target` ÷ `answered_or_abandoned` | rate "
        "| at least service_level_target | Operations | Cisco type 2, ICMI #3, Genesys base formula"
    ) in row
    for missing in ("owner", "source", "target", "unit", "description"):
        change: dict[str, Any] = {missing: ""}
        with pytest.raises(CallhouseError, match=f"metric aht has no {missing}"):
            documentation.metrics(with_aht(catalogue, **change))


@pytest.mark.parametrize("target", ["80 %", "at least no_such_column", "about 0.8"])
def test_a_target_is_a_direction_and_a_known_bound(parsed: Settings, target: str) -> None:
    with pytest.raises(CallhouseError, match="metric aht has target"):
        documentation.metrics(with_aht(semantic.load(parsed), target=target))


def with_aht(catalogue: semantic.Catalogue, **change: Any) -> semantic.Catalogue:
    """The catalogue with one metric changed, wherever it stands."""
    changed = replace(catalogue.metrics["aht"], **change)
    datasets = [
        replace(d, metrics=tuple(changed if m.name == "aht" else m for m in d.metrics))
        for d in catalogue.datasets
    ]
    return semantic.Catalogue({**catalogue.metrics, "aht": changed}, datasets)


def test_check_writes_nothing(parsed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    monkeypatch.setattr(render, "write", lambda _files, directory: written.append(directory))
    bi.render_committed(parsed, check=True)
    assert written == []
