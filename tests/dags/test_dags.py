"""Integrity of the DAG files: what they contain, and that reading them touches nothing."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from callhouse import settings as settings_module
from callhouse.sources import registry

DAGS = settings_module.REPOSITORY / "dags"
FACTORIES = {"land"}
# What is watched tells nobody that it has stopped: only the clock looks. None: never by itself.
BY_THE_CLOCK = {
    "watch_capture": "* * * * *",
    "audit_trail": "* * * * *",
    "send_reports": "*/5 * * * *",
    "synchronise_access": None,
    "prune_metadata": "40 3 * * *",
    "retention": "30 19 * * *",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Throwaway homes of Airflow and of the instance, before Airflow is imported."""
    directory = tmp_path_factory.mktemp("dags")
    values = {
        "AIRFLOW_HOME": str(directory / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(settings_module.REPOSITORY / "plugins"),
        "CALLHOUSE_HOME": str(directory / "home"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield directory


@pytest.fixture(scope="module")
def bag(home: Path) -> Any:
    """The DAG files, read without any network, process or file of the instance."""
    from airflow.dag_processing.dagbag import DagBag

    def refuse(*arguments: object, **keywords: object) -> None:
        raise AssertionError(f"a DAG file reached out: {arguments}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(subprocess, "Popen", refuse)
        return DagBag(DAGS)


def test_bag_holds_the_dags(bag: Any) -> None:
    feeds = {feed.file.stem for feed in registry.feeds(settings_module.load())}
    assert {"anonymous_bank", "sample_hotline", "asterisk_queue_log", "asterisk_cdr"} <= feeds
    single = {"transform", "rebuild", *BY_THE_CLOCK}
    assert set(bag.dags) == {*single, *(f"land_{feed}" for feed in feeds)}
    assert bag.import_errors == {}


def test_parsing_leaves_no_trace(bag: Any, home: Path) -> None:
    # A secret or a folder made while parsing would be made by whoever parses first.
    assert bag.dags
    assert not (home / "home").exists()


def test_names_follow_their_file(bag: Any) -> None:
    stems = {file.stem for file in DAGS.glob("*.py")}
    assert stems == {"land", "rebuild", "transform", *BY_THE_CLOCK}
    for dag in bag.dags.values():
        stem = Path(dag.fileloc).stem
        assert dag.dag_id == stem or (stem in FACTORIES and dag.dag_id.startswith(f"{stem}_"))
        assert not dag.dag_id.startswith("dbt_")


def test_settings_are_explicit(bag: Any) -> None:
    from callhouse.orchestration import vocabulary

    # Defaults of the installation must not decide how often a load is repeated.
    for file in [*DAGS.glob("*.py"), Path(vocabulary.__file__)]:
        if file.stem in BY_THE_CLOCK:
            continue  # the factory's, in the vocabulary
        calls = [
            node
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            and node.func.id == "dag"
        ]  # fmt: skip
        assert calls, file
        for call in calls:
            assert {
                "schedule", "catchup", "max_active_runs", "default_args", "doc_md", "tags",
                "is_paused_upon_creation",
            } <= {keyword.arg for keyword in call.keywords}  # fmt: skip
    for dag in bag.dags.values():
        assert (dag.catchup, dag.max_active_runs) == (False, 1)
        assert dag.is_paused_upon_creation is False
        assert dag.default_args["retries"] == 4
        for task in dag.tasks:
            assert task.owner == "data-engineering"
            assert task.retries == (0 if task.task_id.startswith("report_") else 4)


def test_tags_are_in_the_enum(bag: Any) -> None:
    from callhouse.orchestration.vocabulary import Tag

    for dag in bag.dags.values():
        assert dag.tags, dag.dag_id
        assert set(dag.tags) <= set(Tag)


def test_pages_say_what_the_night_shift_needs(bag: Any) -> None:
    for dag in bag.dags.values():
        for heading in ("**Purpose**", "**Owner**", "**Schedule**", "**Rerun**", "**Triage**"):
            assert heading in dag.doc_md, dag.dag_id
        # Triage names real tasks.
        for line in dag.doc_md.splitlines():
            if line.startswith("- `") and ("failed:" in line or "skipped:" in line):
                assert line.split("`")[1] in dag.task_ids, line


def test_files_are_wiring_only() -> None:
    # STYLE rules 36 and 37: logic over five lines belongs to the package; no import from dags/.
    files = list(DAGS.glob("*.py"))
    assert len(files) == 9
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and any(
                "task" in ast.dump(decorator) for decorator in node.decorator_list
            ):
                assert len(node.body) <= 5, f"{file.name}: {node.name}"
            if isinstance(node, ast.ImportFrom):
                root = (node.module or "").split(".")[0]
                assert root in {"airflow", "callhouse", "datetime", "pathlib", "typing"}, (
                    node.module
                )
    assert not (DAGS / "__init__.py").exists()


def test_transform_order(bag: Any) -> None:
    dag = bag.dags["transform"]
    order = {task.task_id: set(task.downstream_task_ids) for task in dag.tasks}
    assert "build" in order["claim"]
    assert order["build"] == {"audit"}
    assert "publish" in order["audit"]
    assert {"wake_again", "report_held"} <= order["publish"]
    assert dag.get_task("build").pool == "dbt"
    # After a failed build its halves are dirty: the next run is not left to the clock.
    assert dag.get_task("wake_again").trigger_rule == "all_done"
    assert [asset.name for asset in dag.get_task("wake_again").outlets] == ["staging"]
    assert [asset.name for asset in dag.get_task("publish").outlets] == ["marts"]
    assert dag.params["max_rows"] == 2_000_000


def test_schedules(bag: Any) -> None:
    for name, expression in BY_THE_CLOCK.items():
        assert getattr(bag.dags[name].timetable, "expression", None) == expression
    for dag in bag.dags.values():
        timetable = dag.timetable
        if dag.dag_id == "rebuild":
            continue
        # A backfill of them would be a run for every ten minutes that have been.
        assert "backfill" not in dag.allowed_run_types
        if dag.dag_id in BY_THE_CLOCK:
            continue
        names = [asset.name for asset in timetable.asset_condition.objects]
        feed = dag.dag_id.removeprefix("land_")
        assert names == (["staging"] if dag.dag_id == "transform" else [f"inbox_{feed}"])
        # Asset events are a wake-up that can be lost, never the only one.
        assert timetable.timetable.expression == "*/10 * * * *"


def test_a_backfill_marks_the_days_that_it_names(bag: Any, monkeypatch: Any) -> None:
    from airflow.sdk.exceptions import AirflowSkipException
    from airflow.serialization.serialized_objects import DagSerialization

    from callhouse import transform
    from callhouse.orchestration import transform as steps

    dag = DagSerialization.from_dict(DagSerialization.to_dict(bag.dags["rebuild"]))
    assert dag.timetable.periodic and dag.allowed_run_types is None
    assert list(dag.task_ids) == ["mark"]
    assert [a.name for a in bag.dags["rebuild"].get_task("mark").outlets] == ["staging"]
    # Both ends as the command line gives them, and no day between them is left out.
    days = [
        info.logical_date
        for info in dag.iter_dagrun_infos_between(
            datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 4, tzinfo=UTC)
        )
    ]
    assert [day.date() for day in days] == [date(2026, 3, 2), date(2026, 3, 3), date(2026, 3, 4)]
    marked: list[tuple[date, str]] = []

    def mark_known(_settings: object, day: date, reason: str) -> bool:
        marked.append((day, reason))
        return day != date(2026, 3, 4)

    monkeypatch.setattr(transform, "mark_known", mark_known)
    steps.mark("backfill", days[0])
    steps.mark("manual", days[1])
    with pytest.raises(AirflowSkipException, match="nothing of 2026-03-04 was ever landed"):
        steps.mark("backfill", days[2])
    for run_type, day in (("scheduled", days[0]), ("manual", None)):
        with pytest.raises(AirflowSkipException, match="only a backfill"):
            steps.mark(run_type, day)
    assert marked == [(day.date(), "backfill") for day in days]


def test_landing_announces_only_what_was_staged(bag: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

    from callhouse.orchestration import landing

    dag = bag.dags["land_sample_hotline"]
    assert [asset.name for asset in dag.get_task("announce").outlets] == ["staging"]
    assert dag.get_task("land").outlets == []
    landing.announce({"staged_rows": 1, "refused": []})
    with pytest.raises(AirflowSkipException):
        landing.announce({"staged_rows": 0, "refused": []})
    landing.report_refused({"staged_rows": 0, "refused": []})
    with pytest.raises(AirflowFailException, match=r"1 refused: a\.csv: no column call_id"):
        landing.report_refused({"staged_rows": 5, "refused": ["a.csv: no column call_id"]})


def test_incidents_are_reported_by_a_task_that_fails(bag: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from callhouse.orchestration import capture

    dag = bag.dags["watch_capture"]
    assert dag.get_task("watch").downstream_task_ids == {"report_incidents"}
    with pytest.raises(AirflowFailException, match=r"1 alarms: pbx, heartbeat 7 \(telephony\)"):
        capture.report_incidents({"alarms": ["pbx, heartbeat 7 (telephony): no heartbeat"]})


def test_access_is_synchronised_by_the_minute_where_there_is_a_file(
    home: Path, tmp_path: Path
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALLHOUSE_ACCESS_FILE", str(tmp_path / "people.yaml"))
        found = DagBag(DAGS / "synchronise_access.py")
    assert found.dags["synchronise_access"].timetable.expression == "* * * * *"


@pytest.mark.parametrize("waits_for", [None, timedelta(days=1), timedelta(days=40)])
def test_pruning_leaves_what_the_trail_has_yet_to_take(
    home: Path, tmp_path: Path, waits_for: timedelta | None
) -> None:
    from airflow.sdk.exceptions import AirflowException

    from callhouse.orchestration import metadata
    from callhouse.security import trail

    told = tmp_path / "told"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "airflow"
    program.write_text(
        f'#!/bin/sh\necho "$AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" "$@" > {told}\nexit $FAILS\n'
    )
    program.chmod(0o755)
    now = datetime.now(UTC)
    waits = waits_for and now - waits_for
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trail, "oldest_in_airflow", lambda _: waits)
        patch.setenv("CALLHOUSE_PIPELINE_ENV", str(tmp_path))
        patch.setenv("CALLHOUSE_HOME", str(tmp_path / "home"))
        patch.setenv("CALLHOUSE_AIRFLOW_KEEP_DAYS", "20")
        patch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
        patch.setenv("FAILS", "0")
        metadata.prune()
        patch.setenv("FAILS", "1")
        with pytest.raises(AirflowException, match="ended with 1"):
            metadata.prune()
    database, *arguments = told.read_text().split()
    assert database.startswith("postgresql+psycopg2://airflow:")
    assert arguments[:2] == ["db", "clean"] and {"--yes", "--skip-archive"} <= set(arguments)
    before = datetime.fromisoformat(arguments[-1])
    kept = now - max(timedelta(days=20), waits_for or timedelta())
    assert abs(before - kept) < timedelta(minutes=1)


def test_broken_mapping_costs_only_its_own_dag(home: Path, tmp_path: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (tmp_path / "broken.yaml").write_text("source: [", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALLHOUSE_FEEDS", str(tmp_path))
        found = DagBag(DAGS / "land.py")
    assert found.import_errors == {}
    assert "land_sample_hotline" in found.dags
    assert "land_broken" not in found.dags


def test_plugin_folder_is_ignored() -> None:
    # Airflow would run every file of the package as a module of its bare stem.
    ignored = (settings_module.REPOSITORY / "plugins" / ".airflowignore").read_text("utf-8")
    assert "callhouse" in ignored.splitlines()


def test_package_outside_orchestration_needs_no_airflow() -> None:
    # STYLE rule 33, seen from the outside: importing the steps' code must not load Airflow.
    code = (
        "import sys; import callhouse.transform, callhouse.settings, callhouse.sources.registry; "
        "import callhouse.capture; from callhouse.security import trail; "
        "assert not [name for name in sys.modules if name.split('.')[0] == 'airflow']"
    )
    environment = {**os.environ, "PYTHONPATH": str(settings_module.REPOSITORY / "plugins")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
