"""Names that several DAGs share: tags, assets, pools and how often a task is tried."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, AssetOrTimeSchedule, AssetWatcher, CronTriggerTimetable, dag

from callhouse.orchestration.triggers import InboxTrigger


class Tag(StrEnum):
    """Every tag a DAG may carry."""

    LANDING = "landing"
    TRANSFORM = "transform"
    CAPTURE = "capture"
    SECURITY = "security"
    REPORTS = "reports"
    UPKEEP = "upkeep"


EVERY_MINUTE = "* * * * *"

# Rows were staged. Only a wake-up: the work itself is read from ops.dirty_marks.
STAGING = Asset("staging")
# Days were published.
MARTS = Asset("marts")

# Its single slot is made by `make up`: builds share the candidate schema.
DBT_POOL = "dbt"

# Of DAGs that do what there is to do now: a backfill would be a run for every ten minutes gone by.
NOW_RUNS = ("scheduled", "asset_triggered", "asset_materialization", "manual", "operator_triggered")

TASK_DEFAULTS: dict[str, Any] = {
    "owner": "data-engineering",
    "retries": 4,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
}


def inbox_asset(feed: str, directory: Path) -> Asset:
    """The drop folder of one feed, watched by the triggerer."""
    trigger = InboxTrigger(directory=str(directory))
    return Asset(f"inbox_{feed}", watchers=[AssetWatcher(name=f"inbox_{feed}", trigger=trigger)])


def woken_by(asset: Asset, *, safety_net: str) -> AssetOrTimeSchedule:
    """On the asset's events, and by the clock because events can be lost."""
    timetable = CronTriggerTimetable(safety_net, timezone="UTC")
    return AssetOrTimeSchedule(timetable=timetable, assets=[asset])


def by_the_clock(
    schedule: str | None, *, dag_id: str, name: str, doc: str | None, tag: Tag
) -> Callable[[Callable[[], None]], Callable[[], Any]]:
    """Makes a DAG that does what there is to do now. `schedule` is in UTC; None: when triggered."""
    decorator: Callable[[Callable[[], None]], Callable[[], Any]] = dag(
        dag_id=dag_id,
        dag_display_name=name,
        schedule=CronTriggerTimetable(schedule, timezone="UTC") if schedule else None,
        catchup=False,
        allowed_run_types=NOW_RUNS,
        max_active_runs=1,
        is_paused_upon_creation=False,
        default_args=TASK_DEFAULTS,
        doc_md=doc,
        tags=[tag],
    )
    return decorator
