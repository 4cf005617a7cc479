"""
**Purpose** Land the files of one feed: from its drop folder into `staging`, the ledger and the
quarantine. One DAG per registered feed.

**Owner** data-engineering

**Schedule** As soon as a file has arrived in `inbox/<feed>/` and has stopped growing; every ten
minutes besides, because a wake-up can be lost. A feed with a `location` in object storage or with
`pages` of a vendor is looked through by that clock; an object is fetched once, an interval of pages
as often as the mapping says.

**Rerun** Trigger the DAG: it takes what lies in the folder *now* (a now-run, there are no intervals
to fill). Always safe: a file that was landed is recognised by its content and changes nothing. To
land a file again after its mapping was mended, move it back from `refused/` into the folder.

**Triage**
- `report_refused` failed: its message names file, line and fix. Everything else has landed. The
  file is in `inbox/<feed>/refused/`; correct it or the mapping, and move it back.
- A file stays in the folder: it is still being written, or cannot be read (then `report_refused`
  says so); every look tries it again.
- `land` failed: the warehouse or the disk. The files are still in the folder and nothing is half
  landed; the next run takes them.
- An interval of pages is refused: the vendor's answers do not fit together or do not come. Nothing
  of it is landed, and every look tries it again.
- Rows are missing: `./callhouse status` shows the quarantine, with the reason for each row.
- A feed has no DAG: its mapping cannot be read; `./callhouse doctor` says why.
"""

# Airflow's decorators have no types that mypy is given.
# mypy: disable-error-code="untyped-decorator"

from pathlib import Path

from airflow.sdk import dag, task

from callhouse.orchestration import landing
from callhouse.orchestration.vocabulary import (
    NOW_RUNS,
    STAGING,
    TASK_DEFAULTS,
    Tag,
    inbox_asset,
    woken_by,
)


def create(drop: landing.Drop) -> None:
    """The DAG of one feed."""

    @dag(
        dag_id=f"land_{drop.feed}",
        dag_display_name=f"Land {drop.label}",
        schedule=woken_by(inbox_asset(drop.feed, Path(drop.inbox)), safety_net="*/10 * * * *"),
        catchup=False,
        max_active_runs=1,
        allowed_run_types=NOW_RUNS,
        is_paused_upon_creation=False,
        default_args=TASK_DEFAULTS,
        doc_md=__doc__,
        tags=[Tag.LANDING],
    )
    def land_feed() -> None:
        @task
        def land() -> landing.Summary:
            return landing.land(drop.feed)

        @task(outlets=[STAGING])
        def announce(summary: landing.Summary) -> None:
            landing.announce(summary)

        @task(retries=0)
        def report_refused(summary: landing.Summary) -> None:
            landing.report_refused(summary)

        summary = land()
        announce(summary)
        report_refused(summary)

    land_feed()


for found in landing.drops():
    create(found)
