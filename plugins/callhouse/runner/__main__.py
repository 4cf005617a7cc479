"""`python -m callhouse.runner run|prepare|health <name>`: what a supervisor or container calls."""

from __future__ import annotations

import os
import sys

from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.runner import components


def main(arguments: list[str]) -> int:
    """Dispatch; people use `./callhouse` instead."""
    match arguments:
        case ["run", "postgres"]:
            from callhouse.runner import postgres

            settings = settings_module.load()
            cluster = postgres.embedded_cluster(settings)
            command = cluster.server_command()
            kept = ("PATH", "LANG", "LC_ALL", "CALLHOUSE_INSTANCE", "TZ")
            environment = {k: os.environ[k] for k in kept if k in os.environ}
            os.chdir("/")
            os.execvpe(command[0], command, environment)  # noqa: S606 (no shell is wanted)
        case ["run", name] if component := components.named(name):
            settings = settings_module.load()
            directory = components.working_directory(settings, component.kind)
            directory.mkdir(parents=True, exist_ok=True)
            command = components.command(settings, component)
            environment = components.component_environment(settings, component.kind)
            os.chdir(directory)
            os.execve(command[0], command, environment)  # noqa: S606 (no shell is wanted)
        case ["prepare", ("airflow" | "superset" | "warehouse") as what]:
            from callhouse.runner import preparation

            preparation.prepare(settings_module.load(), what)
        case ["health", name]:
            from callhouse.runner import health

            return 0 if health.answers(settings_module.load(), name) else 1
        case _:
            names = ", ".join(["postgres", *components.BY_NAME])
            raise CallhouseError(f"usage: run|health <{names}>, prepare warehouse|airflow|superset")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except CallhouseError as error:
        sys.exit(f"callhouse: {error}")
