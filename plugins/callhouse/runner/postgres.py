"""The embedded PostgreSQL server: which binaries, which account, where the data lies."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from callhouse.errors import CallhouseError
from callhouse.runner import components
from callhouse.settings import Settings

MINIMUM_VERSION = 15

SETTINGS_FILE = "callhouse.conf"

# Analytics on a small machine. Durability stays on: a lost commit would be a lost call.
TUNING = {
    "work_mem": "32MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_completion_target": "0.9",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "100",
    "max_connections": "200",
    "max_locks_per_transaction": "512",
    "jit": "off",
    # To start a worker takes what a tile's query of a month takes: only what reads years gets one.
    "parallel_setup_cost": "10000",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "password_encryption": "scram-sha-256",
    "log_min_duration_statement": "5s",
    # The audit trail reads this log. People's statements are in it by a setting of their logins.
    "logging_collector": "on",
    "log_destination": "jsonlog",
    "log_directory": "log",
    "log_rotation_age": "1d",
    "log_rotation_size": "100MB",
    "log_connections": "on",
    "unix_socket_directories": "",
}


def tuning() -> dict[str, str]:
    """TUNING, and what fits this machine: an eighth of its memory for the buffers, its cores.

    A query never has more processes than there are cores: on two, a third only stood in the way.
    """
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        **TUNING,
        "shared_buffers": f"{min(max(megabytes // 8, 128), 1024)}MB",
        "effective_cache_size": f"{max(megabytes // 4, 512)}MB",
        "max_parallel_workers_per_gather": str(min(max((os.cpu_count() or 1) - 1, 1), 2)),
    }


@dataclass(frozen=True)
class Binaries:
    """A PostgreSQL installation. `origin` is `system` or `wheel`."""

    directory: Path
    major: int
    origin: str


def find_binaries(settings: Settings) -> Binaries | None:
    """The newest system PostgreSQL >= 15, else the wheel in `.venv/postgres`, else None.

    A data directory that exists decides otherwise: it needs the version that made it.
    """
    candidates = list(_installed(settings))
    for directory in data_directories(settings):
        version = directory / "PG_VERSION"
        if version.exists():
            major = int(version.read_text(encoding="ascii"))
            candidates = [b for b in candidates if b.major == major] or candidates
    preferred = [b for b in candidates if b.origin == "system"] or candidates
    return max(preferred, key=lambda b: b.major, default=None)


def _installed(settings: Settings) -> Iterator[Binaries]:
    if settings.postgres_flavour != "wheel":
        directories = {Path(p) for p in Path("/usr/lib/postgresql").glob("*/bin")}
        if found := shutil.which("initdb"):
            directories.add(Path(found).resolve().parent)
        yield from (b for d in sorted(directories) if (b := _probe(d, "system")))
    if settings.postgres_flavour != "system":
        root = settings.repository / ".venv" / "postgres"
        yield from (b for p in root.rglob("bin/initdb") if (b := _probe(p.parent, "wheel")))


def _probe(directory: Path, origin: str) -> Binaries | None:
    if not all((directory / tool).exists() for tool in ("initdb", "postgres", "pg_ctl")):
        return None
    output = subprocess.run(
        [directory / "postgres", "--version"], capture_output=True, text=True, check=False
    ).stdout
    words = output.split()
    if len(words) < 3:
        return None
    # "15.18", and before a release "19devel" or "19beta1".
    found = re.match(r"\d+", words[2])
    major = int(found[0]) if found else 0
    return Binaries(directory, major, origin) if major >= MINIMUM_VERSION else None


@dataclass(frozen=True)
class Cluster:
    """One data directory. PostgreSQL refuses to run as root, hence `account`."""

    binaries: Binaries
    data_directory: Path
    port: int
    password: str
    account: str | None

    def as_account(self, command: list[str]) -> list[str]:
        """`command`, run by the account that owns the data directory."""
        if self.account is None:
            return command
        return [
            "setpriv",
            f"--reuid={self.account}",
            f"--regid={_group(self.account)}",
            "--init-groups",
            *command,
        ]

    def server_command(self) -> list[str]:
        """Foreground server, for a supervisor."""
        binary = str(self.binaries.directory / "postgres")
        return self.as_account([binary, "-D", str(self.data_directory)])

    def initialise(self) -> bool:
        """Create the data directory if it is not there. True when it was created."""
        if self.data_directory.exists():
            self._check_version()
            self._write_settings()
            return False
        parent = self.data_directory.parent
        # The account must be able to pass, whatever the umask says.
        _make_passable(parent)
        # initdb writes PG_VERSION first, so a killed initdb looks complete: only a finished
        # directory gets the name.
        unfinished = parent / f"{self.data_directory.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._give_to_account(unfinished)
        # initdb takes the password by file only: one that just the account can read, for a second.
        with tempfile.NamedTemporaryFile("w", suffix=".password", dir=parent) as file:
            file.write(self.password)
            file.flush()
            self._give_to_account(Path(file.name))
            command = [
                str(self.binaries.directory / "initdb"),
                *("-D", str(unfinished), "-U", "postgres", "-A", "scram-sha-256"),
                *("-E", "UTF8", "--locale=C", f"--pwfile={file.name}"),
            ]
            result = subprocess.run(
                self.as_account(command), capture_output=True, text=True, check=False, cwd="/"
            )
        if result.returncode:
            raise CallhouseError(
                f"initdb could not create {self.data_directory}: {result.stderr.strip()[-400:]}"
            )
        with (unfinished / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(f"\ninclude = '{SETTINGS_FILE}'\n")
        unfinished.rename(self.data_directory)
        self._write_settings()
        return True

    def _check_version(self) -> None:
        made_by = int((self.data_directory / "PG_VERSION").read_text().strip())
        if made_by != self.binaries.major:
            raise CallhouseError(
                f"{self.data_directory} was made by PostgreSQL {made_by}, but the server found is "
                f"{self.binaries.major}: install version {made_by}, or move the data with pg_dump"
            )

    def _write_settings(self) -> None:
        # A file of its own, read before postgresql.auto.conf: ALTER SYSTEM still has the last word.
        values = {**tuning(), "port": str(self.port), "listen_addresses": "127.0.0.1"}
        lines = [f"{name} = '{value}'" for name, value in values.items()]
        file = self.data_directory / SETTINGS_FILE
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._give_to_account(file)

    def _give_to_account(self, path: Path) -> None:
        if self.account:
            shutil.chown(path, self.account, _group(self.account))

    def start(self) -> None:
        """Start in the background without a supervisor (tests) and wait until it answers."""
        self._pg_ctl("start", "-w", "-l", str(self.data_directory / "server.log"))

    def stop(self, mode: str = "fast") -> None:
        """Stop what `start` started."""
        self._pg_ctl("stop", "-w", "-m", mode)

    def _pg_ctl(self, *arguments: str) -> None:
        command = [str(self.binaries.directory / "pg_ctl"), "-D", str(self.data_directory)]
        # Output to /dev/null: a pipe would be inherited by the server and never close.
        result = subprocess.run(
            self.as_account([*command, *arguments]),
            check=False,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if result.returncode:
            log = self.data_directory / "server.log"
            tail = log.read_text(errors="replace")[-400:] if log.exists() else ""
            raise CallhouseError(f"PostgreSQL did not {arguments[0]}: {tail.strip()}")


def embedded_cluster(settings: Settings) -> Cluster:
    """The instance's own cluster; raises CallhouseError where no server can be had."""
    binaries = find_binaries(settings)
    if binaries is None:
        raise CallhouseError("no PostgreSQL >= 15 here: run `make up`, which installs one")
    account = None
    directory = settings.home / "postgres"
    if os.geteuid() == 0:
        account = _unprivileged_account()
        settings.home.mkdir(parents=True, exist_ok=True)
        if not _can_reach(account, settings.home):
            # A private checkout (mode 0700) is closed to the account: the data lies outside,
            # in a place that is this instance's own for as long as its home exists.
            directory = _outside(settings)
        if not _can_reach(account, binaries.directory):
            binaries = _copy_binaries(binaries, directory.parent / "server")
    return Cluster(
        binaries, directory, settings.postgres_port, settings.secret("postgres_password"), account
    )


def data_directories(settings: Settings) -> tuple[Path, ...]:
    """Every place where `embedded_cluster` may put this instance's data."""
    return (settings.home / "postgres", _outside(settings))


def _outside(settings: Settings) -> Path:
    return Path("/var/lib/callhouse") / components.instance_id(settings) / "postgres"


def _make_passable(directory: Path) -> None:
    for path in (*reversed(directory.parents), directory):
        if not path.exists():
            path.mkdir()
            path.chmod(0o755)


def _unprivileged_account() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise CallhouseError("PostgreSQL refuses to run as root and no account 'nobody' exists here")


def _group(account: str) -> int:
    return pwd.getpwnam(account).pw_gid


def _can_reach(account: str, path: Path) -> bool:
    existing = next(p for p in (path, *path.parents) if p.exists())
    command = [
        "setpriv",
        f"--reuid={account}",
        f"--regid={_group(account)}",
        "--init-groups",
        "test",
        "-x",
        str(existing),
    ]
    return subprocess.run(command, check=False, cwd="/").returncode == 0


def _copy_binaries(binaries: Binaries, target: Path) -> Binaries:
    if not target.exists():
        _make_passable(target.parent)
        unfinished = target.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(binaries.directory.parent, unfinished, symlinks=True)
        unfinished.rename(target)
    return Binaries(target / "bin", binaries.major, binaries.origin)
