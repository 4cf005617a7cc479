"""
**Purpose** Remove personal data that is older than its class is kept: numbers of callers, free
text, content of rows in quarantine, raw files, Superset's histories and caches. Then put old days
of staging into compressed files, where `CALLHOUSE_STAGING_ARCHIVE_DAYS` says so.

**Owner** data-engineering

**Schedule** Every day at 19:30 UTC, in the night of China.

**Rerun** Trigger the DAG, or run `./callhouse retention`: it removes what is older *now* (a
now-run, there are no intervals to fill). Always safe: what is gone stays gone, and no metric
changes.

**Triage**
- `remove` failed: the message names the class and why. The other classes are done; the next run
  takes up what is left. `./callhouse retention --dry-run` tells what is waiting.
- `archive` failed: the message names the file; what it names is in staging as it was. Days that are
  in use are left for the next run. `./callhouse staging list` shows what is archived.
- `remove` failed with a sentence about `retention.yaml`: nothing was removed; mend the file
  (`docs/operators/personal-data.md`).
"""

# Airflow's decorators have no types that mypy is given.
# mypy: disable-error-code="untyped-decorator"

from airflow.sdk import task

from callhouse.orchestration import retention as steps
from callhouse.orchestration.vocabulary import Tag, by_the_clock


@by_the_clock("30 19 * * *", dag_id="retention", name="Retention", doc=__doc__, tag=Tag.SECURITY)
def retention() -> None:
    """Remove, then archive; see the module's text."""

    @task
    def remove() -> None:
        steps.remove()

    @task
    def archive() -> None:
        steps.archive()

    remove() >> archive()


retention()
