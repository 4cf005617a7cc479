"""Boards: form of the descriptions, what a bundle holds, and the committed datasets."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from callhouse.bi import (
    board_links,
    charts,
    datasets,
    floor,
    layout,
    ledger,
    members,
    render,
    targets,
    words,
)
from callhouse.errors import CallhouseError
from callhouse.semantic import Catalogue, Column, Dataset, Metric
from callhouse.settings import LANGUAGES

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
    # Of the marts that it is about there is none here.
    assert ledger.of_marts(catalogue.datasets) == []
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
        ("{en: Days, zh: 业务日}", "{en: Days, all, zh: 业务日}", "'all' is no language"),
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


def test_every_language_says_why_a_tile_is_empty() -> None:
    """Pages ask for the pack of English by another name: of `en` they ask for none."""
    assert set(words.MENDED) == set(LANGUAGES)
    asked = {language: words.bootstrap({"locale": language})["locale"] for language in LANGUAGES}
    assert asked == {"en": "en_GB", "zh": "zh"}
    for language, said in words.MENDED.items():
        assert (said[words.TITLE], said[words.REASON]) == words.EMPTY[language]


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
        "agent_coaching_pack",
        "agents_teams",
        "call_explorer",
        "callers_regions",
        "channels",
        "data_quality",
        "executive_summary",
        "live_day",
        "live_floor",
        "operations_overview",
        "product_line_peaks",
        "regional_comparison",
    ]
    checked = 0
    for board in boards:
        for tile in board.tiles:
            if tile.chart in layout.WORDS_ONLY:
                continue
            metrics = {m["metric_name"] for m in found[tile.dataset]["metrics"]}
            columns = {c["column_name"] for c in found[tile.dataset]["columns"]}
            trend = [*tile.options.get("bars", ()), *tile.options.get("lines", ())]
            assert {*tile.metrics, *trend} <= metrics, tile.name
            single = [
                tile.options[key] for key in ("y", "from", "to", "column") if key in tile.options
            ]
            if tile.options.get("x") not in (None, *charts.GRAINS):
                single.append(tile.options["x"])
            several = [
                name
                for key in ("dimensions", "columns", "split", "of", "by", "only", "without")
                for name in tile.options.get(key, ())
            ]
            assert {*single, *several} <= columns, tile.name
            checked += 1
        for one in board.filters:
            if one.kind != "time":
                columns = {c["column_name"] for c in found[one.dataset]["columns"]}
                assert one.column in columns
    assert checked >= 100


def test_boards_have_their_filters_in_one_order() -> None:
    order = [one["name"] for one in yaml.safe_load(layout.SHARED_FILTERS.read_text("utf-8"))]
    boards = [layout.load(file, "zh") for file in sorted(render.BOARDS.glob("*.yaml"))]
    shared = [
        [one.name for one in board.filters] for board in boards if board.slug != "access_audit"
    ]
    assert sum(len(names) > 4 for names in shared) >= 5
    for names in shared:
        assert names == sorted(names, key=order.index)


def test_boards_lead_down_and_up() -> None:
    """Every board about calls leads to single calls, and those back; packs of reports only down."""
    boards = {
        board.slug: board
        for board in (layout.load(file, "en") for file in sorted(render.BOARDS.glob("*.yaml")))
    }
    ways = {
        slug: [to for tile in board.tiles for to in tile.options.get("boards", ())]
        for slug, board in boards.items()
    }
    about_calls = set(boards) - {"access_audit", "data_quality"}
    assert len(about_calls) >= 6
    packs = {"agent_coaching_pack", "product_line_peaks", "regional_comparison"}
    for slug in about_calls - {"call_explorer"}:
        assert "call_explorer" in ways[slug], slug
        assert slug in packs or slug in ways["call_explorer"], slug


def test_a_tile_may_ignore_filters_of_its_board(catalogue: Catalogue, boards: Path) -> None:
    """Its place-holder is left out of that filter's scope and of what clicks reach, of no other."""
    change(boards, "name: asa\n", "name: asa\n        ignores: [source]\n")
    dashboard = loaded(render.bundle(catalogue, "en", boards), "dashboards/tiny.yaml")
    (number,) = {
        node["meta"]["chartId"]
        for name, node in dashboard["position"].items()
        if name == "CHART-asa"
    }
    metadata = dashboard["metadata"]
    scopes = [one["scope"]["excluded"] for one in metadata["native_filter_configuration"]]
    assert scopes == [[], [number]]
    assert metadata["global_chart_configuration"]["scope"]["excluded"] == [number]
    with pytest.raises(CallhouseError, match="tile asa: no filter called sorce"):
        render.bundle(catalogue, "en", change(boards, "ignores: [source]", "ignores: [sorce]"))


def test_tiles_of_the_overview_obey_regional_row_security() -> None:
    """A regional manager gets rows only from relations that carry a region."""
    board = layout.load(render.BOARDS / "operations_overview.yaml", "en")
    found = committed_catalogue()
    used = {tile.dataset for tile in board.tiles if tile.dataset} - {
        "data_status",
        "fct_annotations",
        "source_days",
    }
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


def test_targets_come_from_the_seed() -> None:
    parsed = replace(
        metric("service_level", "sum(a)", "rate"), target="at least service_level_target"
    )
    most = replace(metric("abandon_rate", "sum(b)", "rate"), target="at most 0.05")
    free = metric("asa", "sum(c)", "seconds")
    dataset = Dataset("agg_calls_daily", "", (), (parsed, most, free))
    assert targets.of(dataset, "service_level") == targets.Target(0.8, is_minimum=True)
    assert targets.of(dataset, "abandon_rate") == targets.Target(0.05, is_minimum=False)
    assert targets.of(dataset, "asa") is None


def test_a_line_over_a_metric_shows_its_target(catalogue: Catalogue, boards: Path) -> None:
    rate = replace(metric("service_level", "sum(a)", "rate"), target="at least 0.8")
    whole = replace(catalogue.datasets[0], metrics=(*catalogue.datasets[0].metrics, rate))
    change(boards, "chart: big_number", "chart: lines").joinpath("tiny.yaml")
    change(boards, "metrics: [calls_offered]", "metrics: [service_level, calls_offered]")
    change(boards, "name: asa\n        chart: lines", "name: asa\n        chart: big_number")
    files = render.bundle(replace(catalogue, datasets=[whole]), "en", boards)
    params = loaded(files, "charts/tiny__offered.yaml")["params"]
    (line,) = params["annotation_layers"]
    assert (line["name"], line["value"], line["style"]) == ("Target ≥ 80%", "0.8", "dashed")


def native(name: str, column: str | None) -> dict[str, Any]:
    """A filter as Superset keeps it; without a column it is the period's."""
    kind = "filter_select" if column else "filter_time"
    return {"id": name, "filterType": kind, "targets": [{"column": {"name": column}}]}


def test_members_are_words_of_the_language_under_the_name_of_their_column() -> None:
    source = Dataset(
        "fct_calls", "Calls.", (Column("outcome", "text", "How it ended.", "Outcome", "结果"),), ()
    )
    column = {
        language: datasets.dataset(source, language)["columns"][0] for language in ("en", "zh")
    }
    assert column["en"]["expression"] is None
    assert column["zh"]["column_name"] == "outcome"
    assert '"abandoned": "放弃"' in column["zh"]["expression"]
    assert column["zh"]["expression"].endswith("::jsonb, outcome), outcome)")
    board = layout.Board("b", "B", "", (), ())
    tile = layout.Tile(
        "calls",
        "records",
        6,
        dataset="fct_calls",
        options={
            "columns": ["outcome"],
            "only": {"outcome": "abandoned"},
            "highlight": [{"column": "outcome", "equals": "abandoned", "color": "abandoned"}],
        },
    )
    for language, word in (("en", "abandoned"), ("zh", "放弃")):
        shown = charts.chart(board, tile, source, language)
        assert shown["params"]["adhoc_filters"][0]["comparator"] == word
        assert shown["params"]["conditional_formatting"][0]["targetValue"] == word
        assert json.loads(shown["query_context"])["queries"][0]["filters"][0]["val"] == word


def test_a_list_of_members_is_said_word_by_word() -> None:
    """Rules of an abnormal call, "ping_pong, too_short"; none of them is an id within another."""
    found = members.words("fct_calls", "anomalies", "zh")
    assert {"too_short": "通话过短", "none": "无"}.items() <= found.items()
    shown = members.expression("fct_calls", "anomalies", "zh") or ""
    assert shown.count("replace(") == len(found) == 7
    value = "ping_pong, too_short"
    for member, word in re.findall(r"'([^']*)', '([^']*)'\)", shown):
        value = value.replace(member, word)
    assert value == "反复转接, 通话过短"
    assert members.expression("fct_calls", "anomalies", "en") is None


def test_a_seed_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "members.yaml"
    file.write_text("zh: {outcome: {codes: [outcomes.nothing]}}", "utf-8")
    monkeypatch.setattr(members, "FILE", file)
    members._known.cache_clear()
    with pytest.raises(CallhouseError, match=r"outcomes\.nothing is no column of a seed"):
        members.words("fct_calls", "outcome", "zh")
    members._known.cache_clear()


def test_filters_are_carried_by_their_column_and_a_clicked_value_wins() -> None:
    origin = [native("A-time", None), native("A-queue", "queue_name"), native("A-x", "nowhere")]
    target = [
        native("B-time", None),
        native("B-queue", "queue_name"),
        native("B-team", "team_name"),
    ]
    queues = {"filters": [{"col": "queue_name", "op": "IN", "val": ["Cards", "Loans"]}]}
    chosen = {
        "A-time": {"extraFormData": {"time_range": "w"}, "filterState": {"value": "w"}},
        "A-queue": {"extraFormData": queues, "filterState": {"value": ["Cards", "Loans"]}},
        "A-x": {"extraFormData": {"filters": []}, "filterState": {}},
    }
    carried = board_links.carry(chosen, origin, target)
    assert set(carried) == {"B-time", "B-queue"}
    assert carried["B-time"]["extraFormData"] == {"time_range": "w"}
    assert carried["B-queue"]["filterState"]["value"] == ["Cards", "Loans"]
    clicked = {"col": "queue_name", "op": "IN", "val": ["Cards"]}
    # Charts have numbers, which sort before the names of filters.
    chosen = {"17": {"extraFormData": {"filters": [clicked]}}, **chosen}
    carried = board_links.carry(chosen, origin, target)
    assert carried["B-queue"]["extraFormData"] == {"filters": [clicked]}
    assert carried["B-queue"]["filterState"] == {"value": ["Cards"], "label": "Cards"}


def test_a_link_names_values_of_columns_that_the_board_has_filters_for() -> None:
    target = [native("B-time", None), native("B-agent", "agent_name")]
    named = board_links.name({"agent_name": ["Li Na", "O'Neil"], "nowhere": ["x"]}, target)
    assert set(named) == {"B-agent"}
    clause = {"col": "agent_name", "op": "IN", "val": ["Li Na", "O'Neil"]}
    assert named["B-agent"]["extraFormData"] == {"filters": [clause]}
    assert named["B-agent"]["filterState"]["value"] == ["Li Na", "O'Neil"]


def test_query_context_asks_for_what_the_chart_shows(catalogue: Catalogue, boards: Path) -> None:
    chart = loaded(render.bundle(catalogue, "en", boards), "charts/tiny__offered.yaml")
    queries = json.loads(chart["query_context"])["queries"]
    assert [q["metrics"] for q in queries] == [["calls_offered"], ["calls_offered"]]
    assert queries[1]["columns"] == []
