"""Schedule and step of the `synchronise_access` DAG."""

from __future__ import annotations

import logging

from airflow.sdk.exceptions import AirflowSkipException

from callhouse import settings as settings_module
from callhouse.orchestration.vocabulary import EVERY_MINUTE

LOG = logging.getLogger(__name__)


def schedule() -> str | None:
    """When to look at the file; None without one."""
    return EVERY_MINUTE if settings_module.load().access_file else None


def synchronise() -> None:
    """Make sec.* and Superset's users agree with the file; skipped where no file is set.

    Safe to repeat. CallhouseError says what of the file cannot be, before anything was changed.
    """
    from callhouse import bi
    from callhouse.security import people

    settings = settings_module.load()
    if settings.access_file is None:
        raise AirflowSkipException("CALLHOUSE_ACCESS_FILE is not set")
    changes = people.synchronise(settings, settings.access_file, by="synchronise_access")
    for line in changes:
        LOG.info(line)
    if changes:
        LOG.info(bi.synchronise_people(settings))
