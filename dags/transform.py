"""
**Purpose** From staging to published marts: claim the dirty days, build them beside the published
ones with dbt, audit them with Great Expectations, publish the difference. One run builds facts or,
when no facts wait, the follow-ups that look at the published days around.

**Owner** data-engineering

**Schedule** When rows were staged; every ten minutes besides, because a wake-up can be lost. Starts
itself again while days are dirty.

**Rerun** Trigger the DAG: it claims the days that are dirty *now* (a now-run, there are no
intervals to fill). Always safe: a day is a pure function of staging. To build days again, run
`./callhouse transform --days FIRST..LAST`, or backfill the DAG `rebuild`.

**Triage**
- `report_held` failed: these days did not pass the audit. Readers keep their last good version.
  The message names the expectation; `data_docs/index.html` shows its rows, and
  `docs/operators/data-quality.md` says what to do. A held day is built again when rows touch it
  or when it is marked.
- `build` failed: the message names the dbt test or model. The claimed days come back in halves
  until the one at fault is held alone.
- `audit` failed: there is no verdict, so nothing was published; a suite or the warehouse needs
  mending. If the server has crashed since the build, the days are built again by themselves.
- `publish` failed: the candidates are not what was audited (the server was restarted). The days
  are built again by themselves.
- `wake_again` skipped: nothing is left to do, or the build was interrupted and the clock tries it
  again.
- Any step skipped after `claim` succeeded: `./callhouse transform` has taken the days over.
"""

# Airflow's decorators have no types that mypy is given.
# mypy: disable-error-code="untyped-decorator"

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, TriggerRule, dag, task

from callhouse.orchestration import transform as steps
from callhouse.orchestration.vocabulary import (
    DBT_POOL,
    MARTS,
    NOW_RUNS,
    STAGING,
    TASK_DEFAULTS,
    Tag,
    woken_by,
)


@dag(
    dag_id="transform",
    dag_display_name="Transform and publish",
    schedule=woken_by(STAGING, safety_net="*/10 * * * *"),
    catchup=False,
    max_active_runs=1,
    allowed_run_types=NOW_RUNS,
    is_paused_upon_creation=False,
    default_args=TASK_DEFAULTS,
    doc_md=__doc__,
    tags=[Tag.TRANSFORM],
    params={
        "max_rows": Param(
            2_000_000,
            type="integer",
            minimum=1,
            description="Staged rows that one build takes at most; one day is always taken.",
        )
    },
)
def transform() -> None:
    """Claim, build, audit, publish; see the module's text."""

    @task
    def claim(params: dict[str, Any]) -> int:
        return steps.claim(params["max_rows"])

    @task(pool=DBT_POOL, execution_timeout=timedelta(hours=2))
    def build(build_id: int) -> None:
        steps.build(build_id)

    @task
    def audit(build_id: int) -> dict[str, str]:
        return steps.audit(build_id)

    @task(outlets=[MARTS])
    def publish(build_id: int) -> dict[str, int]:
        return steps.publish(build_id)

    @task(outlets=[STAGING], trigger_rule=TriggerRule.ALL_DONE)
    def wake_again(build_id: int | None) -> None:
        steps.wake_again(build_id)

    @task(retries=0)
    def report_held(failing: dict[str, str]) -> None:
        steps.report_held(failing)

    build_id = claim()
    failing = audit(build_id)
    published = publish(build_id)
    build(build_id) >> failing >> published >> [wake_again(build_id), report_held(failing)]


transform()
