"""The step of the `prune_metadata` DAG."""

from __future__ import annotations

import logging
import subprocess
from datetime import UTC, datetime, timedelta

from airflow.sdk.exceptions import AirflowException

from callhouse import settings as settings_module

LOG = logging.getLogger(__name__)


def prune() -> None:
    """Have Airflow remove what is older than it keeps, but nothing that the trail has yet to take.

    Safe to repeat. Its command gets an environment made anew: a task is kept from the database.
    """
    from callhouse.runner import components
    from callhouse.security import trail

    settings = settings_module.load()
    before = datetime.now(UTC) - timedelta(days=settings.airflow_keep_days)
    if (waits := trail.oldest_in_airflow(settings)) and waits < before:
        LOG.warning("the audit trail has not collected since %s: what is newer stays", waits)
        before = waits
    done = subprocess.run(
        [
            settings.pipeline_bin / "airflow", "db", "clean", "--yes", "--skip-archive",
            "--error-on-cleanup-failure", "--clean-before-timestamp", before.isoformat(),
        ],
        env=components.component_environment(settings, "airflow"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    LOG.info(done.stdout)
    if done.returncode:
        raise AirflowException(f"airflow db clean ended with {done.returncode}: see above")
