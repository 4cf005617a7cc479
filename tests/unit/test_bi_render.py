"""Boards: form of the descriptions, what a bundle holds, and the committed datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from callhouse.bi import datasets, floor, layout, ledger, render
from callhouse.errors import CallhouseError
from callhouse.semantic import Catalogue, Column, Dataset, Metric

BOARD = """
slug: tiny
title: {en: Tiny, zh: 小}
description: {en: A tiny board., zh: 小看板。}
filters:
  - {kind: time, name: period, title: {en: Period, zh: 时间段}}
  - kind: value
    name: source
    title: {en: Source, zh: 数据源}
    dataset: agg_calls_daily
    column: source
    is_first_value_default: true
rows:
  - height: 20
    tiles:
      - name: offered
        chart: big_number
        dataset: agg_calls_daily
        metrics: [calls_offered]
        width: 3
        title: {en: Offered, zh: 呼入量}
      - name: asa
        chart: big_number
        dataset: agg_calls_daily
        metrics: [asa]
        width: 3
        title: {en: ASA, zh: 平均应答速度}
      - name: days
        chart: records
        dataset: data_status
        columns: [business_day, status]
        width: 6
        title: {en: Days, zh: 业务日}
"""


def metric(name: str, expression: str, unit: str) -> Metric:
    return Metric(
        name=name,
        expression=expression,
        relation="agg_calls_daily",
        columns=frozenset(),
        is_additive=True,
        label_en=name.upper(),
        label_zh=f"{name} 中",
        description=f"What {name} is.",
        unit=unit,
    )


@pytest.fixture
def catalogue() -> Catalogue:
    metrics = (
        metric("calls_offered", "sum(calls_offered)", "count"),
        metric("asa", "sum(w) / nullif(sum(n), 0)", "seconds"),
    )
    columns = (
        Column("business_day", "date", "The day.", "Day", "日期"),
        Column("source", "text", "The source.", "Source", "数据源"),
    )
    dataset = Dataset("agg_calls_daily", "Calls per day.", columns, metrics)
    return Catalogue({m.name: m for m in metrics}, [dataset])


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(BOARD, encoding="utf-8")
    return tmp_path


def loaded(files: render.Bundle, path: str) -> dict[str, Any]:
    content = yaml.safe_load(files[path])
    assert isinstance(content, dict)
    return content


def change(boards: Path, old: str, new: str) -> Path:
    file = boards / "tiny.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    return boards


def test_bundle_holds_every_kind_of_asset(catalogue: Catalogue, boards: Path) -> None:
    made = [*ledger.datasets(), *floor.datasets()]
    assert sorted(render.bundle(catalogue, "en", boards)) == [
        "charts/tiny__asa.yaml",
        "charts/tiny__days.yaml",
        "charts/tiny__offered.yaml",
        "dashboards/tiny.yaml",
        "databases/Callhouse.yaml",
        "datasets/Callhouse/agg_calls_daily.yaml",
        *sorted(f"datasets/Callhouse/{source.name}.yaml" for source in made),
        "metadata.yaml",
    ]


def test_rendering_twice_gives_the_same_bytes(catalogue: Catalogue, boards: Path) -> None:
    assert render.bundle(catalogue, "zh", boards) == render.bundle(catalogue, "zh", boards)


def test_language_changes_words_and_no_identity(catalogue: Catalogue, boards: Path) -> None:
    english = render.bundle(catalogue, "en", boards)
    chinese = render.bundle(catalogue, "zh", boards)
    for path in english:
        if path != "metadata.yaml":
            assert loaded(english, path)["uuid"] == loaded(chinese, path)["uuid"]
    assert loaded(english, "dashboards/tiny.yaml")["dashboard_title"] == "Tiny"
    assert loaded(chinese, "dashboards/tiny.yaml")["dashboard_title"] == "小"
    assert loaded(chinese, "charts/tiny__asa.yaml")["slice_name"] == "平均应答速度"


def test_connection_names_no_host_person_or_password(catalogue: Catalogue, boards: Path) -> None:
    database = loaded(render.bundle(catalogue, "en", boards), "databases/Callhouse.yaml")
    assert database["sqlalchemy_uri"] == (
        "postgresql+psycopg2://callhouse_superset@warehouse/callhouse"
    )
    # Without it one person's cached rows would be shown to another.
    assert database["extra"]["per_user_caching"] is True
    assert not any(database[k] for k in ("allow_dml", "allow_csv_upload", "allow_ctas"))


def test_seconds_are_shown_as_a_clock_of_the_same_expression(
    catalogue: Catalogue, boards: Path
) -> None:
    files = render.bundle(catalogue, "en", boards)
    metrics = {
        m["metric_name"]: m
        for m in loaded(files, "datasets/Callhouse/agg_calls_daily.yaml")["metrics"]
    }
    assert metrics["asa"]["expression"] == "sum(w) / nullif(sum(n), 0)"
    assert metrics["asa_clock"]["expression"] == "1000 * round(sum(w) / nullif(sum(n), 0))"
    assert metrics["asa"]["verbose_name"] == "ASA (s)"
    assert loaded(files, "charts/tiny__asa.yaml")["params"]["metric"] == "asa_clock"
    assert loaded(files, "charts/tiny__offered.yaml")["params"]["metric"] == "calls_offered"


def test_chart_uses_saved_metrics_only(catalogue: Catalogue, boards: Path) -> None:
    with pytest.raises(CallhouseError, match=r"tile offered.* no saved metric 'calls_ofered'"):
        render.bundle(catalogue, "en", change(boards, "[calls_offered]", "[calls_ofered]"))


def test_unknown_dataset_and_column_are_named(catalogue: Catalogue, boards: Path) -> None:
    change(boards, "columns: [business_day, status]", "columns: [business_day, colour]")
    with pytest.raises(CallhouseError, match="data_status has no column 'colour'"):
        render.bundle(catalogue, "en", boards)
    change(boards, "dataset: data_status", "dataset: data_state")
    with pytest.raises(CallhouseError, match="there is no dataset 'data_state'"):
        render.bundle(catalogue, "en", boards)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("width: 6", "width: 9", "15 columns wide, more than 12"),
        ("width: 6", "width: 2", "narrower than 3 columns"),
        ("chart: records", "chart: pie", "chart 'pie' is not one of"),
        ("{en: Days, zh: 业务日}", "{en: Days}", "tile days: needs words in zh"),
        ("name: asa", "name: offered", "several tiles are called offered"),
        ("width: 6", "width: 6\n        colour: red", "unknown keys colour"),
        ("slug: tiny", "slag: tiny", "board: needs slug"),
        ("kind: time", "kind: clock", "kind 'clock' is not one of"),
    ],
)
def test_malformed_board_is_refused_with_a_sentence(
    catalogue: Catalogue, boards: Path, old: str, new: str, problem: str
) -> None:
    with pytest.raises(CallhouseError, match=problem):
        render.bundle(catalogue, "en", change(boards, old, new))


def test_unit_without_a_format_is_refused(catalogue: Catalogue) -> None:
    odd = Dataset("odd", "", (), (metric("calls", "sum(calls)", "furlongs"),))
    with pytest.raises(CallhouseError, match="calls has unit 'furlongs'"):
        datasets.dataset(odd, "en")


def test_differences_name_changed_missing_and_superfluous_files(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    render.write(render.committed(catalogue), tmp_path)
    assert render.differences(catalogue, tmp_path) == []
    folder = tmp_path / "datasets" / "Callhouse"
    (folder / "agg_calls_daily.yaml").write_text("---\n", encoding="utf-8")
    (folder / "data_status.yaml").unlink()
    (folder / "old.yaml").write_text("---\n", encoding="utf-8")
    assert render.differences(catalogue, tmp_path) == [
        "datasets/Callhouse/agg_calls_daily.yaml",
        "datasets/Callhouse/data_status.yaml",
        "datasets/Callhouse/old.yaml",
    ]


def committed_catalogue() -> dict[str, dict[str, Any]]:
    """The committed datasets by name, as Superset will read them."""
    files = sorted((render.COMMITTED / "datasets").rglob("*.yaml"))
    assets = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    return {asset["table_name"]: asset for asset in assets}


def test_chain_from_dashboard_to_column_is_whole() -> None:
    """Without dbt or Superset: every name on a committed board exists in a committed dataset."""
    found = committed_catalogue()
    assert {"agg_calls_daily", "fct_queue_visits", "fct_agent_connections", "data_status"} <= set(
        found
    )
    boards = [layout.load(file, "en") for file in sorted(render.BOARDS.glob("*.yaml"))]
    assert [board.slug for board in boards] == [
        "access_audit",
        "data_quality",
        "executive_summary",
        "live_floor",
        "operations_overview",
    ]
    checked = 0
    for board in boards:
        for tile in board.tiles:
            if tile.chart == "text":
                continue
            metrics = {m["metric_name"] for m in found[tile.dataset]["metrics"]}
            columns = {c["column_name"] for c in found[tile.dataset]["columns"]}
            trend = [*tile.options.get("bars", ()), *tile.options.get("lines", ())]
            assert {*tile.metrics, *trend} <= metrics, tile.name
            axes = [tile.options[axis] for axis in "xy" if axis in tile.options]
            named = [*tile.options.get("dimensions", ()), *tile.options.get("columns", ()), *axes]
            assert set(named) <= columns, tile.name
            checked += 1
        for one in board.filters:
            if one.kind == "value":
                columns = {c["column_name"] for c in found[one.dataset]["columns"]}
                assert one.column in columns
    assert checked >= 14


def test_tiles_of_the_overview_obey_regional_row_security() -> None:
    """A regional manager gets rows only from relations that carry a region."""
    board = layout.load(render.BOARDS / "operations_overview.yaml", "en")
    found = committed_catalogue()
    used = {tile.dataset for tile in board.tiles if tile.dataset} - {"data_status"}
    assert used
    for name in used:
        assert "region_code" in {c["column_name"] for c in found[name]["columns"]}, name


def test_committed_assets_carry_no_ids_times_or_connections() -> None:
    files = sorted(render.COMMITTED.rglob("*.yaml"))
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert "sqlalchemy_uri" not in text
        asset = yaml.safe_load(text)
        assert not {"id", "changed_on", "created_on"} & set(asset)
        assert not any(column["expression"] for column in asset["columns"])
        assert asset["sql"] is None


def test_query_context_asks_for_what_the_chart_shows(catalogue: Catalogue, boards: Path) -> None:
    chart = loaded(render.bundle(catalogue, "en", boards), "charts/tiny__offered.yaml")
    queries = json.loads(chart["query_context"])["queries"]
    assert [q["metrics"] for q in queries] == [["calls_offered"], ["calls_offered"]]
    assert queries[1]["columns"] == []
