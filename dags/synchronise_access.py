"""
**Purpose** Make people, and what they may see, agree with the file of `CALLHOUSE_ACCESS_FILE`.

**Owner** data-engineering

**Schedule** Every minute; without that setting never.

**Rerun** Trigger the DAG, or run `./callhouse access sync` (a now-run, there are no intervals to
fill). Always safe: what agrees already is left alone.

**Triage**
- `synchronise` failed with a sentence about the file: nothing was changed; mend the file.
- `synchronise` failed with "superuser": logins can only be made by it; `docs/operators/access.md`
  says how its password is handed over.
"""

# Airflow's decorators have no types that mypy is given.
# mypy: disable-error-code="untyped-decorator"

from airflow.sdk import task

from callhouse.orchestration import access
from callhouse.orchestration.vocabulary import Tag, by_the_clock


@by_the_clock(
    access.schedule(),
    dag_id="synchronise_access",
    name="Synchronise access",
    doc=__doc__,
    tag=Tag.SECURITY,
)
def synchronise_access() -> None:
    """Synchronise; see the module's text."""

    @task
    def synchronise() -> None:
        access.synchronise()

    synchronise()


synchronise_access()
