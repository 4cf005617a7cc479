"""Steps of the `send_reports` DAG."""

from __future__ import annotations

import logging

from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from callhouse import settings as settings_module

LOG = logging.getLogger(__name__)


def send() -> list[str]:
    """Send what is due; returns a sentence for everyone who got nothing.

    Safe to repeat: each moment of each recipient is taken once. Skipped where nothing was due.
    """
    from callhouse import reports

    outcomes = reports.send_due(settings_module.load(), LOG.info)
    if not outcomes:
        raise AirflowSkipException("nothing was due")
    return [
        f"{one.report} to {one.person} {one.status}: {one.detail}"
        for one in outcomes
        if one.status in ("failed", "refused")
    ]


def report_failures(sentences: list[str]) -> None:
    """Fail with who got nothing, so that it is seen; their owners have been told."""
    if sentences:
        raise AirflowException(" | ".join(sentences))
