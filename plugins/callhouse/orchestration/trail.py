"""The step of the `audit_trail` DAG."""

from __future__ import annotations

import logging

from airflow.sdk.exceptions import AirflowFailException

from callhouse import settings as settings_module

LOG = logging.getLogger(__name__)


def collect() -> None:
    """Append what is new; fails, without another try, where something is wrong with the trail.

    Safe to repeat: each line of a log is taken once.
    """
    from callhouse.security import trail

    collected = trail.collect(settings_module.load())
    LOG.info("new entries: %s", collected.added)
    if collected.problems:
        raise AirflowFailException(" | ".join(collected.problems))
