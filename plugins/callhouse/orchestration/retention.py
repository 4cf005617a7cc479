"""The steps of the `retention` DAG."""

from __future__ import annotations

import logging

from airflow.sdk.exceptions import AirflowException

from callhouse import settings as settings_module

LOG = logging.getLogger(__name__)


def remove() -> None:
    """Remove what is older than its class is kept; fails where a class could not be done.

    Safe to repeat. CallhouseError says what of the file of days cannot be, before anything is gone.
    """
    from callhouse.security import retention

    outcomes = retention.apply(settings_module.load(), by="retention")
    for item in outcomes:
        LOG.info("%s: %s %s", item.name, item.removed, item.counted_in)
    problems = [f"{item.name}: {item.problem}" for item in outcomes if item.problem]
    if problems:
        raise AirflowException(" | ".join(problems))


def archive() -> None:
    """Archive old days of staging, where that is set; what is in use waits for the next run."""
    from datetime import UTC, datetime, timedelta

    from callhouse.landing import cold

    settings = settings_module.load()
    days = settings.staging_archive_days
    if days is None:
        LOG.info("CALLHOUSE_STAGING_ARCHIVE_DAYS is not set: staging stays as it is")
        return
    before = datetime.now(UTC).date() - timedelta(days=days)
    for item in cold.archive(settings, before, by="retention"):
        LOG.info("%s of %s: %s", item.table, item.business_day, item.problem or f"{item.rows} rows")
