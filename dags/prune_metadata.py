"""
**Purpose** Remove from Airflow's own database runs, tasks and log entries that are older than
`CALLHOUSE_AIRFLOW_KEEP_DAYS` (30): DAGs by the minute make thousands a day.

**Owner** data-engineering

**Schedule** Daily at 03:40 UTC.

**Rerun** Trigger the DAG (a now-run, there are no intervals to fill). Always safe: the last run of
each DAG stays, and so does what the audit trail has not collected yet.

**Triage**
- `prune` failed: its log ends with what `airflow db clean` said; nothing else waits for it.
- `prune` warns that the trail has not collected: look at the DAG `audit_trail`.
"""

# Airflow's decorators have no types that mypy is given.
# mypy: disable-error-code="untyped-decorator"

from airflow.sdk import task

from callhouse.orchestration import metadata
from callhouse.orchestration.vocabulary import Tag, by_the_clock


@by_the_clock(
    "40 3 * * *", dag_id="prune_metadata", name="Prune Airflow", doc=__doc__, tag=Tag.UPKEEP
)
def prune_metadata() -> None:
    """Prune; see the module's text."""

    @task
    def prune() -> None:
        metadata.prune()

    prune()


prune_metadata()
