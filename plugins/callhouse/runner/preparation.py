"""What must be true before a component starts: roles, schemas, metadata, first accounts."""

from __future__ import annotations

import hashlib
import subprocess
import time
from pathlib import Path
from typing import Literal

from callhouse.errors import CallhouseError
from callhouse.runner import components
from callhouse.settings import Settings

Product = Literal["airflow", "superset"]
HERE = Path(__file__).parent


def prepare(settings: Settings, what: Literal["warehouse", "airflow", "superset"]) -> None:
    """One preparation in the foreground, as a container's one-time service does it."""
    if what == "warehouse":
        bootstrap_warehouse(settings)
    else:
        finish(start(settings, what))


def bootstrap_warehouse(settings: Settings) -> bool:
    """Roles, databases and schemas. False when an external server's superuser is not known."""
    from callhouse import warehouse
    from callhouse.security import callers

    if settings.postgres_host and not _superuser_known(settings):
        with warehouse.connect(settings):
            return False
    warehouse.bootstrap(settings, settings.dsn("postgres", "postgres"))
    callers.fill_masks(settings)
    return True


def _superuser_known(settings: Settings) -> bool:
    variable = "CALLHOUSE_SECRET_POSTGRES_PASSWORD"
    return bool(
        settings.environment.get(variable)
        or settings.environment.get(f"{variable}_FILE")
        or (settings.home / "secrets" / "postgres_password").exists()
    )


# A migration is finished for exactly these programs; the database itself remembers which.
def fingerprint(settings: Settings, product: Product) -> str:
    """Identity of what a migration depends on: the locked packages and the script."""
    lock = "pipeline.txt" if product == "airflow" else "superset.txt"
    digest = hashlib.sha256()
    for file in (settings.repository / "requirements" / lock, HERE / f"prepare_{product}.py"):
        digest.update(file.read_bytes() if file.exists() else b"")
    return f"callhouse {digest.hexdigest()[:16]}"


def is_prepared(settings: Settings, product: Product) -> bool:
    """Whether the metadata database was migrated by the programs that are installed now.

    The mark is a comment on the database: it cannot survive the database, as a file would.
    """
    import psycopg

    query = (
        "select shobj_description(oid, 'pg_database') from pg_database "
        "where datname = current_database()"
    )
    with psycopg.connect(settings.dsn(product, product)) as connection:
        row = connection.execute(query).fetchone()
    return row is not None and row[0] == fingerprint(settings, product)


def mark_prepared(settings: Settings, product: Product) -> None:
    """Remember that the migration is done."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(settings.dsn(product, product)) as connection:
        connection.execute(
            sql.SQL("comment on database {} is {}").format(
                sql.Identifier(product), sql.Literal(fingerprint(settings, product))
            )
        )


class Preparation:
    """A migration that runs in its own process."""

    def __init__(self, product: Product, process: subprocess.Popen[bytes], log: Path) -> None:
        self.product = product
        self.process = process
        self.log = log
        self.started = time.monotonic()


def start(settings: Settings, product: Product) -> Preparation:
    """Begin to migrate a product's metadata database and create its administrator."""
    directory = settings.pipeline_bin if product == "airflow" else settings.superset_bin
    work = components.working_directory(settings, product)
    work.mkdir(parents=True, exist_ok=True)
    settings.log_directory.mkdir(parents=True, exist_ok=True)
    log = settings.log_directory / f"{product}-prepare.log"
    environment = components.component_environment(settings, product)
    environment["CALLHOUSE_ADMIN_PASSWORD"] = settings.secret(f"{product}_admin_password")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(directory / "python"), str(HERE / f"prepare_{product}.py")],
            env=environment,
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    return Preparation(product, process, log)


def finish(preparation: Preparation) -> float:
    """Wait for a migration; its seconds, or CallhouseError with the end of its log."""
    code = preparation.process.wait()
    if code:
        text = preparation.log.read_text(errors="replace").strip().splitlines()[-8:]
        raise CallhouseError(
            f"{preparation.product} could not be prepared (see {preparation.log}):\n"
            + "\n".join(text)
        )
    return time.monotonic() - preparation.started
