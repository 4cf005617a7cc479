"""Brings Airflow's users up to date. Runs in the pipeline environment, job on stdin.

Pipelines are kept by engineers and administrators, and looked at by auditors; nobody else has a
user there: logs and run counts tell of all calls.
"""

from __future__ import annotations

import json
import sys
from typing import Any

ROLE_OF_LEVEL = {"engineer": "Op", "auditor": "Viewer"}


def role_of(person: dict[str, Any]) -> str | None:
    """Airflow's role of a person (level, rights, is_active); None for whom it is closed."""
    if not person["is_active"]:
        return None
    return "Admin" if "admin" in person["rights"] else ROLE_OF_LEVEL.get(person["level"])


def main() -> None:
    """Do the job on stdin and say on stdout what was done."""
    job = json.load(sys.stdin)
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    kept = 0
    with get_application_builder() as builder:
        manager = builder.sm
        for person in job["people"]:
            name = role_of(person)
            roles = [manager.find_role(name)] if name else []
            user = manager.find_user(username=person["name"])
            kept += bool(roles)
            if user is None and roles:
                if not manager.add_user(
                    person["name"], person["label"], "", f"{person['name']}@callhouse.invalid",
                    roles[0], password=person["password"],
                ):  # fmt: skip
                    raise SystemExit(f"Airflow could not create the user {person['name']}")
            elif user is not None and (user.roles != roles or user.active != bool(roles)):
                user.roles, user.active = roles, bool(roles)
                manager.update_user(user)
    sys.stdout.write(f"{kept} people of Airflow\n")


if __name__ == "__main__":
    main()
