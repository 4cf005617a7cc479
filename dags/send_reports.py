"""
**Purpose** Send reports by mail that are due: boards, saved charts and changes of metrics, each
with its recipient's own rows.

**Owner** data-engineering

**Schedule** Every five minutes; when a report is due is told by its own schedule, on the clock of
each recipient.

**Rerun** Trigger the DAG, or run `./callhouse report send --due`: it sends what is due *now* (a
now-run, there are no intervals to fill). Always safe: nobody gets the same one twice. What failed
is not tried again by itself: `./callhouse report send NAME --to PERSON` sends it now.

**Triage**
- `report_failures` failed: the message names report, recipient and why; the owner has been told by
  mail. `./callhouse report history` lists all; `docs/operators/running.md` says what to do.
- `send` failed: a declaration is malformed (the message names it), or the warehouse cannot be
  reached; the next run looks again.
- `send` skipped: nothing was due.
"""

# Airflow's decorators have no types that mypy is given.
# mypy: disable-error-code="untyped-decorator"

from airflow.sdk import task

from callhouse.orchestration import reports
from callhouse.orchestration.vocabulary import Tag, by_the_clock


@by_the_clock(
    "*/5 * * * *", dag_id="send_reports", name="Send reports", doc=__doc__, tag=Tag.REPORTS
)
def send_reports() -> None:
    """Send, and tell; see the module's text."""

    @task
    def send() -> list[str]:
        return reports.send()

    @task(retries=0)
    def report_failures(sentences: list[str]) -> None:
        reports.report_failures(sentences)

    report_failures(send())


send_reports()
