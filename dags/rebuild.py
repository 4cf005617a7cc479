"""
**Purpose** Backfills: the run of a day marks that business day dirty, and `transform` builds it
again like any other dirty day. Nothing is built here, so two builds never meet.

**Owner** data-engineering

**Schedule** Daily, only because Airflow backfills nothing without a schedule: runs by the clock
mark nothing and are skipped.

**Rerun** An interval-run: its logical date is the business day.
`./callhouse airflow backfill create --dag-id rebuild --from-date 2026-10-05 --to-date 2026-10-11
--reprocess-behavior completed` builds these days again, the last one included, as often as wanted
and while new files land. For long ranges `./callhouse transform --days FIRST..LAST` is quicker.

**Triage**
- `mark` skipped: the run was one by the clock, or nothing of that day was ever landed.
- `mark` failed: the warehouse is away; it is tried again.
- The day keeps its old numbers: look at the runs of `transform`, which every mark wakes up.
"""

# Airflow's decorators have no types that mypy is given.
# mypy: disable-error-code="untyped-decorator"

from typing import Any

from airflow.sdk import CronTriggerTimetable, dag, task

from callhouse.orchestration import transform as steps
from callhouse.orchestration.vocabulary import STAGING, TASK_DEFAULTS, Tag


@dag(
    dag_id="rebuild",
    dag_display_name="Build days again",
    schedule=CronTriggerTimetable("0 0 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=TASK_DEFAULTS,
    doc_md=__doc__,
    tags=[Tag.TRANSFORM],
)
def rebuild() -> None:
    """Mark the run's day; see the module's text."""

    @task(outlets=[STAGING])
    def mark(dag_run: Any) -> None:
        steps.mark(dag_run.run_type, dag_run.logical_date)

    mark()


rebuild()
