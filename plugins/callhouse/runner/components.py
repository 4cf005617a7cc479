"""What runs: the components of an instance, their commands and their environment.

The supervisor and the containers start the same commands through `python -m callhouse.runner run
<component>`; what differs between them is only `CALLHOUSE_*` settings. Standard library only: this
module is also imported by Superset's environment.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from callhouse.errors import CallhouseError
from callhouse.settings import Settings

Kind = Literal["airflow", "superset"]


@dataclass(frozen=True)
class Component:
    """One long-running process. `command[0]` is an executable of the environment of `kind`."""

    name: str
    kind: Kind
    command: tuple[str, ...]


COMPONENTS = (
    Component("airflow-api-server", "airflow", ("airflow", "api-server")),
    # Logs are read from the shared log folder, so the log servers (which listen on every
    # address) are not needed.
    Component("airflow-scheduler", "airflow", ("airflow", "scheduler", "--skip-serve-logs")),
    Component("airflow-dag-processor", "airflow", ("airflow", "dag-processor")),
    Component("airflow-triggerer", "airflow", ("airflow", "triggerer", "--skip-serve-logs")),
    Component(
        "superset-web",
        "superset",
        (
            "gunicorn",
            *("--worker-class", "gthread", "--workers", "2", "--threads", "4"),
            *("--timeout", "120", "--graceful-timeout", "5"),
            "superset.app:create_app()",
        ),
    ),
    Component(
        "superset-worker",
        "superset",
        (
            "celery",
            "--app=superset.tasks.celery_app:app",
            *("worker", "--loglevel=INFO", "--concurrency=1", "-O", "fair"),
            *("--without-gossip", "--without-mingle"),
        ),
    ),
    Component(
        "superset-beat",
        "superset",
        (
            "celery",
            "--app=superset.tasks.celery_app:app",
            *("beat", "--loglevel=INFO", "--pidfile="),
        ),
    ),
    Component("notifier", "airflow", ("python", "-m", "callhouse", "alert", "run")),
)
BY_NAME = {component.name: component for component in COMPONENTS}
# Runs only where a feed follows a log, or an exchange is listened to.
COLLECTOR = Component("collector", "airflow", ("python", "-m", "callhouse", "collect"))
# Runs only where a feed receives pushes.
RECEIVER = Component("receiver", "airflow", ("python", "-m", "callhouse", "receive"))
# Runs only in the demo, which makes this feed: the exchange whose log the collector follows there.
SAMPLE_FEED = "live_hotline"
EXCHANGE = Component(
    "sample-exchange", "airflow", ("python", "-m", "callhouse", "simulate", "--live")
)  # fmt: skip
OPTIONAL = {component.name: component for component in (COLLECTOR, RECEIVER, EXCHANGE)}


def named(name: str) -> Component | None:
    """The component called `name`."""
    return {**OPTIONAL, **BY_NAME}.get(name)


# Values that an operator may override by setting the same variable.
AIRFLOW_DEFAULTS = {
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
}


def instance_id(settings: Settings) -> str:
    """Name of this instance in the environment of all its processes; same as long as its home."""
    text = f"{settings.home}:{settings.secret('instance')}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def settings_environment(settings: Settings) -> dict[str, str]:
    """The `CALLHOUSE_*` variables from which `settings.load` makes the same settings."""
    values = {
        "CALLHOUSE_HOME": str(settings.home),
        "CALLHOUSE_PORT_BASE": str(settings.port_base),
        "CALLHOUSE_HOST": settings.host,
        "CALLHOUSE_TIME_ZONE": settings.time_zone,
        "CALLHOUSE_LANG": settings.language,
        "CALLHOUSE_FEEDS": str(settings.feeds_directory),
        "CALLHOUSE_POSTGRES": settings.postgres_flavour,
        "CALLHOUSE_DEMO": "1" if settings.is_demo else "0",
    }
    if settings.postgres_host:
        values["CALLHOUSE_POSTGRES_HOST"] = settings.postgres_host
        values["CALLHOUSE_POSTGRES_PORT"] = str(settings.postgres_external_port)
    return values


def marked_environment(settings: Settings) -> dict[str, str]:
    """The environment of every process of the instance: the caller's, and what marks it ours.

    Left out are variables that change how another program's Python behaves, such as a
    PYTHONDONTWRITEBYTECODE that doubles the time to start.
    """
    inherited = {
        name: value
        for name, value in settings.environment.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV", "SUPERSET", "FLASK", "CELERY", "GUNICORN"))
    }
    local = "127.0.0.1,localhost"
    no_proxy = ",".join(filter(None, [inherited.get("NO_PROXY"), local]))
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        **inherited,
        **settings_environment(settings),
        "CALLHOUSE_INSTANCE": instance_id(settings),
        # Process titles would otherwise overwrite the mark by which `down` finds a process.
        "SPT_NOENV": "1",
        "PYTHONPATH": str(settings.repository / "plugins"),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "TZ": "UTC",
    }


def component_environment(settings: Settings, kind: Kind) -> dict[str, str]:
    """The whole environment of an Airflow or Superset process, secrets included.

    This is the only place that translates settings into the variables of the two products.
    """
    if kind == "airflow":
        return marked_environment(settings) | _airflow(settings)
    return marked_environment(settings) | _superset(settings)


def _airflow(settings: Settings) -> dict[str, str]:
    home = settings.home / "airflow"
    api_host = settings.environment.get("CALLHOUSE_AIRFLOW_HOST") or "127.0.0.1"
    defaults = {
        **AIRFLOW_DEFAULTS,
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{settings.airflow_port}",
    }
    database = database_url(settings, "airflow")
    return {
        **{name: settings.environment.get(name) or value for name, value in defaults.items()},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(settings.repository / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(settings.repository / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DEFAULT_TIMEZONE": "utc",
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
        ),
        "AIRFLOW__CORE__FERNET_KEY": _fernet_key(settings),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": (
            f"http://{api_host}:{settings.airflow_port}/execution/"
        ),
        "AIRFLOW__API__HOST": settings.host,
        "AIRFLOW__API__PORT": str(settings.airflow_port),
        "AIRFLOW__API__SECRET_KEY": settings.secret("airflow_api_key"),
        "AIRFLOW__API_AUTH__JWT_SECRET": settings.secret("airflow_jwt_key"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
        "AIRFLOW__FAB__CONFIG_FILE": str(
            settings.repository / "plugins" / "callhouse" / "orchestration" / "webserver_config.py"
        ),
        "AIRFLOW__FAB__UPDATE_FAB_PERMS": "False",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(settings.log_directory / "airflow"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "False",
        "GX_ANALYTICS_ENABLED": "false",
    }


def _superset(settings: Settings) -> dict[str, str]:
    # Everything else superset_config.py reads from `callhouse.settings`.
    return {
        "SUPERSET_HOME": str(settings.home / "superset"),
        # An own file that imports ours and adds to it, such as a company's single sign-on.
        "SUPERSET_CONFIG_PATH": settings.environment.get("CALLHOUSE_SUPERSET_CONFIG")
        or str(settings.repository / "superset" / "superset_config.py"),
        "FLASK_APP": "superset.app:create_app()",
        "GUNICORN_CMD_ARGS": f"--bind {settings.host}:{settings.superset_port}",
        "SCARF_ANALYTICS": "false",
    }


def database_url(settings: Settings, login: str) -> str:
    """`user:password@host:port/database` of a metadata database, which is named as its login."""
    password = quote(settings.secret(f"{login}_password"), safe="")
    return f"{login}:{password}@{settings.database_host}:{settings.postgres_port}/{login}"


def _fernet_key(settings: Settings) -> str:
    # Fernet wants exactly 32 bytes; an operator may choose any text.
    digest = hashlib.sha256(settings.secret("airflow_fernet_key").encode()).digest()
    return base64.urlsafe_b64encode(digest).decode()


def command(settings: Settings, component: Component) -> list[str]:
    """`component`'s command with the executable's path."""
    directory = settings.pipeline_bin if component.kind == "airflow" else settings.superset_bin
    executable = directory / component.command[0]
    if not executable.exists():
        raise CallhouseError(f"{executable} is not there: run `make up`, which installs it")
    return [str(executable), *component.command[1:]]


def working_directory(settings: Settings, kind: Kind) -> Path:
    """Where the components of `kind` run and keep their state files."""
    return settings.home / kind
