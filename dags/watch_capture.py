"""
**Purpose** Watch who delivers: heartbeats, silence against what is usual, files that are late,
empty or missing, clocks. Opens incidents, closes those whose cause is gone, counts what came late.

**Owner** data-engineering

**Schedule** Every minute.

**Rerun** Trigger the DAG, or run `./callhouse capture check`: it looks at what is there *now* (a
now-run, there are no intervals to fill). Always safe: an incident opens once.

**Triage**
- `report_incidents` failed: an incident has opened, or nobody has acknowledged one in time. The
  message names device, kind, owner and what was found; `docs/operators/capture-health.md` says what
  to do for each kind. It fails once for each, `./callhouse capture incidents` lists what is open.
- of device `notifier`: nobody is told of alerts, see `docs/operators/alerts.md`.
- `watch` failed: the warehouse cannot be reached; the next run looks again. `./callhouse doctor`
  tells when nobody has looked for a quarter of an hour.
- `watch` skipped: nothing new is wrong.
"""

# Airflow's decorators have no types that mypy is given.
# mypy: disable-error-code="untyped-decorator"

from airflow.sdk import task

from callhouse.orchestration import capture
from callhouse.orchestration.vocabulary import EVERY_MINUTE, Tag, by_the_clock


@by_the_clock(
    EVERY_MINUTE, dag_id="watch_capture", name="Watch capture", doc=__doc__, tag=Tag.CAPTURE
)
def watch_capture() -> None:
    """Look, and report; see the module's text."""

    @task
    def watch() -> capture.News:
        return capture.watch()

    @task(retries=0)
    def report_incidents(news: capture.News) -> None:
        capture.report_incidents(news)

    report_incidents(watch())


watch_capture()
