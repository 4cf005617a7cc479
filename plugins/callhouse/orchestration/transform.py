"""The steps of the `transform` DAG."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from callhouse import settings as settings_module

# A build in one of these states has come to an end, good or bad. Any other was interrupted, most
# likely because the server is away: waking up at once would only fail again.
ENDED = ("published", "held", "failed")


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

    try:
        transform.build(settings_module.load(), build_id)
    except transform.BuildError as failure:
        raise AirflowFailException(str(failure)) from None


def audit(build_id: int) -> dict[str, str]:
    """Audit the candidates; the days to hold back, each with its reasons."""
    from callhouse import transform

    failing = transform.audit(settings_module.load(), build_id)
    return {day.isoformat(): reason for day, reason in failing.items()}


def publish(build_id: int) -> dict[str, int]:
    """Publish the days that passed."""
    from callhouse import transform

    report = transform.publish(settings_module.load(), build_id)
    return {
        "published_days": len(report.published_days),
        "held_days": len(report.held_days),
        "inserted_rows": report.inserted_rows,
        "deleted_rows": report.deleted_rows,
    }


def wake_again(build_id: int | None) -> None:
    """Succeeds, and so starts the next run, while days are dirty and builds come to an end."""
    from callhouse import transform, warehouse

    settings = settings_module.load()
    if build_id is None:
        raise AirflowSkipException("nothing was claimed")
    with warehouse.connect(settings) as connection:
        row = connection.execute(
            "select status from ops.builds where build_id = %s", [build_id]
        ).fetchone()
    if row is None or row[0] not in ENDED:
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
