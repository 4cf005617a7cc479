"""
**Purpose** Collect the audit trail: who looked at what, from the logs of Postgres, Superset,
Airflow, dbt and the command line. Anchors the head of the chain outside the database.

**Owner** data-engineering

**Schedule** Every minute.

**Rerun** Trigger the DAG, or run `./callhouse audit-trail collect`: it takes what is there *now* (a
now-run, there are no intervals to fill). Always safe: each line of a log is taken once.

**Triage**
- `collect` failed with "not as it was anchored": somebody has changed, removed or rewritten
  entries. `./callhouse audit-trail verify` names the first; keep the anchor file and the logs,
  and call who is responsible for security. `docs/operators/audit-trail.md` says how to go on.
- `collect` failed with "were removed" or "cannot be read": a log was shortened, or its server is
  away. What is still in the logs is taken by the next run.
"""

# Airflow's decorators have no types that mypy is given.
# mypy: disable-error-code="untyped-decorator"

from airflow.sdk import task

from callhouse.orchestration import trail
from callhouse.orchestration.vocabulary import EVERY_MINUTE, Tag, by_the_clock


@by_the_clock(
    EVERY_MINUTE,
    dag_id="audit_trail",
    name="Collect the audit trail",
    doc=__doc__,
    tag=Tag.SECURITY,
)
def audit_trail() -> None:
    """Collect; see the module's text."""

    @task
    def collect() -> None:
        trail.collect()

    collect()


audit_trail()
