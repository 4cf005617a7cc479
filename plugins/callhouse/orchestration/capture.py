"""The steps of the `watch_capture` DAG."""

from __future__ import annotations

import logging
from typing import TypedDict

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from callhouse import settings as settings_module

LOG = logging.getLogger(__name__)


class News(TypedDict):
    """What somebody should hear of; handed from task to task."""

    alarms: list[str]


def watch() -> News:
    """Look at every device; skipped where nobody needs to hear of anything.

    Safe to repeat: an incident opens once.
    """
    from callhouse import capture

    outcome = capture.watch(settings_module.load())
    for incident in outcome.resolved:
        LOG.info("resolved: %s (%s)", incident.sentence, incident.resolution)
    alarms = [incident.sentence for incident in outcome.opened]
    alarms += [f"not acknowledged: {incident.sentence}" for incident in outcome.escalated]
    alarms += outcome.problems
    if not alarms:
        raise AirflowSkipException("nothing new is wrong")
    return {"alarms": alarms}


def report_incidents(news: News) -> None:
    """Fails, without another try, so that whoever watches Airflow hears of it."""
    if alarms := news["alarms"]:
        raise AirflowFailException(f"{len(alarms)} alarms: " + " | ".join(alarms))
