"""The step of the `retention` DAG."""

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
