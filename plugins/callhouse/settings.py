"""Every setting of an instance, and the only place that reads the environment."""

from __future__ import annotations

import os
import secrets as token_source
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callhouse.errors import CallhouseError

REPOSITORY = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class MailServer:
    """Where mails are handed in. `security` is starttls, tls or none."""

    host: str
    port: int
    user: str | None
    sender: str
    security: str


@dataclass(frozen=True)
class Settings:
    """Where an instance lives and how it listens. Built by `load`, never by hand outside tests."""

    home: Path
    port_base: int
    host: str
    time_zone: str
    language: str
    feeds_directory: Path
    postgres_host: str | None
    postgres_external_port: int
    postgres_flavour: str
    is_demo: bool
    s3_endpoint: str | None
    s3_region: str | None
    s3_access_key: str | None
    environment: Mapping[str, str]

    @property
    def repository(self) -> Path:
        """Root of the checkout."""
        return REPOSITORY

    @property
    def postgres_port(self) -> int:
        """TCP port of the warehouse server."""
        return self.postgres_external_port if self.postgres_host else self.port_base + 32

    @property
    def database_host(self) -> str:
        """Address that clients on this machine connect to."""
        return self.postgres_host or "127.0.0.1"

    @property
    def airflow_port(self) -> int:
        """HTTP port of Airflow's api-server."""
        return self.port_base + 80

    @property
    def superset_port(self) -> int:
        """HTTP port of Superset."""
        return self.port_base + 88

    @property
    def receiver_port(self) -> int:
        """HTTP port that records are pushed to."""
        return self.port_base + 90

    @property
    def run_directory(self) -> Path:
        """Process control files."""
        return self.home / "run"

    @property
    def log_directory(self) -> Path:
        """Component logs."""
        return self.home / "logs"

    @property
    def inbox(self) -> Path:
        """Drop folders, one per feed."""
        return self.home / "inbox"

    @property
    def archive(self) -> Path:
        """Files that the `land` DAGs have landed, one folder per feed."""
        return self.home / "archive"

    @property
    def cold(self) -> Path:
        """Old days of staging, one folder per table (callhouse.landing.cold)."""
        return self.home / "cold"

    @property
    def staging_archive_days(self) -> int | None:
        """After how many days a day of staging goes into the archive; None: never."""
        value = self.environment.get("CALLHOUSE_STAGING_ARCHIVE_DAYS")
        if not value or value == "never":
            return None
        if not (value.isascii() and value.isdigit()) or not 1 <= int(value) <= 36_500:
            raise CallhouseError(
                f"CALLHOUSE_STAGING_ARCHIVE_DAYS={value!r} is no number of days, nor never"
            )
        return int(value)

    @property
    def devices_file(self) -> Path:
        """Exchanges, trunks, recorders and collectors that are watched; it may be missing."""
        return Path(self.environment.get("CALLHOUSE_DEVICES") or self.home / "devices.yaml")

    @property
    def channels_file(self) -> Path:
        """Where alerts are sent to; its addresses are secrets. It may be missing."""
        return Path(self.environment.get("CALLHOUSE_CHANNELS") or self.home / "channels.yaml")

    @property
    def mail_directory(self) -> Path:
        """Mail folders of people, for alerts that go nowhere else."""
        return self.home / "mail"

    @property
    def superset_url(self) -> str:
        """Address of Superset as people's browsers know it, for links."""
        given = self.environment.get("CALLHOUSE_SUPERSET_URL")
        return (given or f"http://127.0.0.1:{self.superset_port}").rstrip("/")

    @property
    def retention_file(self) -> Path:
        """For how many days each class of personal data is kept; it may be missing."""
        return Path(self.environment.get("CALLHOUSE_RETENTION") or self.home / "retention.yaml")

    @property
    def access_file(self) -> Path | None:
        """YAML or CSV file of people and scopes that is kept in version control; None without."""
        path = self.environment.get("CALLHOUSE_ACCESS_FILE")
        return Path(path).expanduser() if path else None

    @property
    def mail_server(self) -> MailServer | None:
        """The server of CALLHOUSE_SMTP_*; None without CALLHOUSE_SMTP_HOST."""
        host = self.environment.get("CALLHOUSE_SMTP_HOST")
        if not host:
            return None
        security = self.environment.get("CALLHOUSE_SMTP_SECURITY") or "starttls"
        ports = {"starttls": "587", "tls": "465", "none": "25"}
        if security not in ports:
            raise CallhouseError(f"CALLHOUSE_SMTP_SECURITY={security!r}: use {', '.join(ports)}")
        port = self.environment.get("CALLHOUSE_SMTP_PORT") or ports[security]
        sender = self.environment.get("CALLHOUSE_SMTP_FROM") or ""
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise CallhouseError(f"CALLHOUSE_SMTP_PORT={port!r} is no port")
        if "@" not in sender:
            raise CallhouseError("CALLHOUSE_SMTP_FROM must be the address that reports come from")
        user = self.environment.get("CALLHOUSE_SMTP_USER") or None
        return MailServer(host, int(port), user, sender, security)

    @property
    def airflow_keep_days(self) -> int:
        """For how long Airflow keeps runs, tasks and its log, in days."""
        value = self.environment.get("CALLHOUSE_AIRFLOW_KEEP_DAYS") or "30"
        if not value.isdigit() or int(value) < 1:
            raise CallhouseError(f"CALLHOUSE_AIRFLOW_KEEP_DAYS={value!r} is no number of days")
        return int(value)

    @property
    def data_docs(self) -> Path:
        """Great Expectations' HTML pages."""
        return self.home / "data_docs"

    @property
    def pipeline_bin(self) -> Path:
        """Executables of the pipeline environment (Airflow, dbt, Great Expectations)."""
        return self._environment_bin("CALLHOUSE_PIPELINE_ENV", "pipeline")

    @property
    def superset_bin(self) -> Path:
        """Executables of the Superset environment."""
        return self._environment_bin("CALLHOUSE_SUPERSET_ENV", "superset")

    @property
    def dev_bin(self) -> Path:
        """Executables of the tools that test, lint and measure; only a checkout has them."""
        return REPOSITORY / ".venv" / "dev" / "bin"

    def _environment_bin(self, variable: str, name: str) -> Path:
        return Path(self.environment.get(variable) or REPOSITORY / ".venv" / name) / "bin"

    @property
    def mysql_option_file(self) -> Path:
        """Where the passwords of readers in MySQL are, as its own clients find them."""
        return Path(self.environment.get("CALLHOUSE_MYSQL_OPTION_FILE") or "~/.my.cnf").expanduser()

    @property
    def object_storage(self) -> dict[str, Any]:
        """Arguments of s3fs. Without an access key the machine's own identity is used."""
        arguments: dict[str, Any] = {}
        if self.s3_endpoint:
            arguments["endpoint_url"] = self.s3_endpoint
        if self.s3_region:
            arguments["client_kwargs"] = {"region_name": self.s3_region}
        if self.s3_access_key:
            secret = self.given_secret("s3_secret_key")
            if secret is None:
                raise CallhouseError(
                    "CALLHOUSE_S3_ACCESS_KEY is set, but no secret belongs to it: set "
                    "CALLHOUSE_SECRET_S3_SECRET_KEY or CALLHOUSE_SECRET_S3_SECRET_KEY_FILE"
                )
            arguments |= {"key": self.s3_access_key, "secret": secret}
        return arguments

    def given_secret(self, name: str) -> str | None:
        """Secret `name` as it was handed over; None where it was not."""
        variable = f"CALLHOUSE_SECRET_{name.upper()}"
        if value := self.environment.get(variable):
            return value
        if path := self.environment.get(f"{variable}_FILE"):
            return Path(path).read_text(encoding="utf-8").strip()
        return None

    def secret(self, name: str, *, is_made: bool = True) -> str:
        """Secret `name`, generated on first use into `home/secrets` unless `is_made` is false.

        `CALLHOUSE_SECRET_<NAME>` or a file named by `CALLHOUSE_SECRET_<NAME>_FILE` takes
        precedence, which is how containers and production hand secrets over.
        """
        if given := self.given_secret(name):
            return given
        directory = self.home / "secrets"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = directory / name
        if not is_made and not file.exists():
            raise CallhouseError(f"secret {file} is missing: restore it, nothing else fits")
        # O_EXCL: two processes that start together must agree on one value.
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            value = file.read_text(encoding="utf-8").strip()
            if not value:
                raise CallhouseError(
                    f"secret {file} is empty: restore it, or remove it to make a new one"
                ) from None
            return value
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            value = token_source.token_urlsafe(32)
            handle.write(value)
        return value

    def dsn(self, user: str = "callhouse_pipeline", database: str = "callhouse") -> str:
        """libpq connection string of one of the service logins (never of a person)."""
        return (
            f"host={self.database_host} port={self.postgres_port} dbname={database} "
            f"user={user} password={_quoted(self.secret(user + '_password'))}"
        )


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environment` (default: the process's) or raise CallhouseError."""
    env = os.environ if environment is None else environment
    home = Path(env.get("CALLHOUSE_HOME") or REPOSITORY / "var").expanduser().absolute()
    time_zone = env.get("CALLHOUSE_TIME_ZONE") or "Asia/Shanghai"
    try:
        zoneinfo.ZoneInfo(time_zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        raise CallhouseError(
            f"CALLHOUSE_TIME_ZONE={time_zone!r} is no time zone: use a name such as Asia/Shanghai"
        ) from None
    language = env.get("CALLHOUSE_LANG") or "en"
    if language not in LANGUAGES:
        raise CallhouseError(f"CALLHOUSE_LANG={language!r} is not one of {', '.join(LANGUAGES)}")
    return Settings(
        home=home,
        port_base=_port(env, "CALLHOUSE_PORT_BASE", 8400),
        host=env.get("CALLHOUSE_HOST") or "127.0.0.1",
        time_zone=time_zone,
        language=language,
        feeds_directory=Path(env.get("CALLHOUSE_FEEDS") or home / "feeds"),
        postgres_host=env.get("CALLHOUSE_POSTGRES_HOST") or None,
        postgres_external_port=_port(env, "CALLHOUSE_POSTGRES_PORT", 5432),
        is_demo=(env.get("CALLHOUSE_DEMO") or "1") != "0",
        postgres_flavour=env.get("CALLHOUSE_POSTGRES") or "auto",
        s3_endpoint=env.get("CALLHOUSE_S3_ENDPOINT") or None,
        s3_region=env.get("CALLHOUSE_S3_REGION") or None,
        s3_access_key=env.get("CALLHOUSE_S3_ACCESS_KEY") or None,
        environment=dict(env),
    )


def _quoted(value: str) -> str:
    """`value` as libpq wants it in a connection string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    value = env.get(name) or str(default)
    if not value.isdigit() or not 1024 <= int(value) <= 65000:
        raise CallhouseError(f"{name}={value!r} is no port number between 1024 and 65000")
    return int(value)
