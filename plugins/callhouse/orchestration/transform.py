"""The steps of the `transform` DAG."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from callhouse import settings as settings_module
from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.settings import Settings

# A build in one of these states has come to an end, good or bad. Any other was interrupted, most
# likely because the server is away: waking up at once would only fail again.
ENDED = ("published", "held", "failed")


def _status(settings: Settings, build_id: int) -> str | None:
    with warehouse.connect(settings) as connection:
        row = connection.execute(
            "select status from ops.builds where build_id = %s", [build_id]
        ).fetchone()
    return str(row[0]) if row else None


@contextmanager
def _step(build_id: int) -> Iterator[Settings]:
    """Skips where `./callhouse transform` has taken the days over meanwhile.

    A build that has failed is not tried again: its days are claimed anew.
    """
    settings = settings_module.load()
    try:
        yield settings
    except CallhouseError as problem:
        status = _status(settings, build_id)
        if status == "abandoned":
            raise AirflowSkipException("another transform has taken the days over") from None
        if status == "failed":
            raise AirflowFailException(str(problem)) from None
        raise


def mark(run_type: str, logical_date: datetime | None) -> None:
    """Mark the business day of a run of `rebuild`; skipped by the clock, and for unknown days."""
    from callhouse import transform

    if run_type == "scheduled" or logical_date is None:
        raise AirflowSkipException("only a backfill, or a trigger with a logical date, marks a day")
    # Days are named in UTC here, as the command line reads them; a business day has no zone.
    if not transform.mark_known(settings_module.load(), logical_date.date(), "backfill"):
        raise AirflowSkipException(f"nothing of {logical_date.date()} was ever landed")


def claim(max_rows: int) -> int:
    """Claim the oldest dirty days; skipped where there are none."""
    from callhouse import transform

    build_id = transform.claim(settings_module.load(), max_rows=max_rows)
    if build_id is None:
        raise AirflowSkipException("no day is dirty")
    return build_id


def build(build_id: int) -> None:
    """Build the candidates. Rows that fail the project's tests fail again: no second try."""
    from callhouse import transform
    from callhouse.transform.dbt import BuildError

    with _step(build_id) as settings:
        try:
            transform.build(settings, build_id)
        except BuildError as failure:
            raise AirflowFailException(str(failure)) from None


def audit(build_id: int) -> dict[str, str]:
    """Audit the candidates; the days to hold back, each with its reasons."""
    from callhouse import transform

    with _step(build_id) as settings:
        failing = transform.audit(settings, build_id)
    return {day.isoformat(): reason for day, reason in failing.items()}


def publish(build_id: int) -> dict[str, int]:
    """Publish the days that passed."""
    from callhouse import transform

    with _step(build_id) as settings:
        report = transform.publish(settings, build_id)
    return {
        "published_days": len(report.published_days),
        "held_days": len(report.held_days),
        "inserted_rows": report.inserted_rows,
        "deleted_rows": report.deleted_rows,
    }


def wake_again(build_id: int | None) -> None:
    """Succeeds, and so starts the next run, while days are dirty and builds come to an end."""
    from callhouse import transform

    if build_id is None:
        raise AirflowSkipException("nothing was claimed")
    settings = settings_module.load()
    if _status(settings, build_id) not in ENDED:
        raise AirflowSkipException("the build was interrupted: the clock tries it again")
    if not transform.pending(settings):
        raise AirflowSkipException("no day is dirty")


def report_held(failing: dict[str, str]) -> None:
    """Fails, without another try, where days were held back; the others are published by now."""
    if failing:
        raise AirflowFailException(
            f"{len(failing)} held: "
            + " | ".join(f"{day}: {reason}" for day, reason in sorted(failing.items()))
        )
