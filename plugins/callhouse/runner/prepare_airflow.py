"""Migrate Airflow's metadata database, create its administrator and pools, in one process.

Run by the pipeline environment's Python with the components' environment. Each `airflow` command
costs seconds to start, so they share one.
"""

from __future__ import annotations

import os

POOLS = {"dbt": (1, "dbt builds: one at a time, they share the candidate schema")}


def main() -> None:
    """Safe to repeat."""
    from airflow.models.pool import Pool
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.utils import db

    db.upgradedb()
    password = os.environ["CALLHOUSE_ADMIN_PASSWORD"]
    os.environ["AIRFLOW__FAB__UPDATE_FAB_PERMS"] = "True"
    with get_application_builder() as builder:
        manager = builder.sm
        manager.sync_roles()
        user = manager.find_user("admin")
        if user is None:
            role = manager.find_role("Admin")
            manager.add_user(
                "admin", "Callhouse", "Administrator", "admin@localhost", role, password
            )
        else:
            manager.reset_password(user.id, password)
    for name, (slots, description) in POOLS.items():
        Pool.create_or_update_pool(
            name=name, slots=slots, description=description, include_deferred=False
        )


if __name__ == "__main__":
    main()
