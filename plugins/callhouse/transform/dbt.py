"""Running dbt: one process per build, its environment, and what it reported."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callhouse.errors import CallhouseError
from callhouse.settings import Settings

Report = Callable[[str], None]

# dbt ends with the process that waits for it (Linux: PR_SET_PDEATHSIG, SIGKILL). The dbt of a
# killed transform would go on writing candidates while the next one builds, audits and seals its
# own.
TETHER = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); "
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
)


def quiet(_line: str) -> None:
    """A report that keeps silent."""


@dataclass(frozen=True)
class NodeResult:
    """What dbt reports of one model or test. `seconds` is wall time."""

    node: str
    status: str
    seconds: float
    affected_rows: int | None
    failures: int | None
    message: str | None

    @property
    def is_bad(self) -> bool:
        """True for a failed test or a model that did not run; a warning is not bad."""
        return self.status in ("fail", "error", "runtime error")


class BuildError(CallhouseError):
    """dbt ran and found something wrong with the rows (not with the server or the project)."""


def project(settings: Settings) -> Path:
    """The dbt project's folder."""
    return settings.repository / "dbt_project"


def target(settings: Settings) -> Path:
    """Where dbt writes; one manifest per instance, never in the checkout."""
    return settings.home / "dbt" / "target"


def environment(settings: Settings) -> dict[str, str]:
    """Environment of every dbt process of this instance."""
    return {
        **os.environ,
        "DBT_PROFILES_DIR": str(project(settings)),
        "DBT_PROJECT_DIR": str(project(settings)),
        "DBT_TARGET_PATH": str(target(settings)),
        "DBT_LOG_PATH": str(settings.home / "dbt" / "logs"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DBT_HOST": settings.database_host,
        "DBT_PORT": str(settings.postgres_port),
        "DBT_USER": "callhouse_pipeline",
        "DBT_PASSWORD": settings.secret("callhouse_pipeline_password"),
        "DBT_DATABASE": "callhouse",
    }


def run(
    settings: Settings, *arguments: str, report: Report = print, attempts: int = 3,
    folder: Path | None = None,
) -> list[NodeResult]:  # fmt: skip
    """Run dbt and return its per-node results; it writes into `folder`, else `target`.

    Raises BuildError where nodes failed, CallhouseError where dbt could not run at all. Two
    threads that replace views of one another may meet in a deadlock: chance, and no fault of the
    rows, so dbt runs again, `attempts` times in all.
    """
    results_file = (folder or target(settings)) / "run_results.json"
    results_file.unlink(missing_ok=True)
    command = [str(settings.pipeline_bin / "dbt"), "--no-use-colors", *arguments]
    if sys.platform == "linux":
        command = [sys.executable, "-IS", "-c", TETHER, str(os.getpid()), *command]
    process = subprocess.Popen(
        command,
        env=environment(settings) | ({"DBT_TARGET_PATH": str(folder)} if folder else {}),
        cwd=project(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    tail: list[str] = []
    for line in process.stdout or ():
        tail = [*tail[-30:], line.rstrip()]
        report(line.rstrip())
    code = process.wait()
    results = read_results(results_file)
    bad = [r for r in results if r.is_bad]
    if attempts > 1 and any("deadlock detected" in (r.message or "") for r in bad):
        report("dbt met a deadlock between its own threads and runs again")
        return run(settings, *arguments, report=report, attempts=attempts - 1, folder=folder)
    if code and any(_is_infrastructure(r.message or "") for r in bad):
        raise CallhouseError(f"dbt lost the warehouse: {bad[0].message}")
    if bad:
        sentences = [f"{r.node}: {(r.message or r.status).strip()}" for r in bad]
        raise BuildError("; ".join(sentences))
    if code:
        raise CallhouseError("dbt did not run: " + " | ".join(t for t in tail[-8:] if t.strip()))
    return results


def _is_infrastructure(message: str) -> bool:
    signs = ("server closed the connection", "could not connect", "connection refused",
             "terminating connection", "the database system is", "no space left",
             "deadlock detected")  # fmt: skip
    return any(sign in message.lower() for sign in signs)


def read_results(file: Path) -> list[NodeResult]:
    """Per-node results of the last run; empty where dbt wrote none."""
    if not file.exists():
        return []
    return [
        NodeResult(
            node=r["unique_id"],
            status=r["status"],
            seconds=float(r["execution_time"]),
            affected_rows=(r.get("adapter_response") or {}).get("rows_affected"),
            failures=r.get("failures"),
            message=r.get("message"),
        )
        for r in json.loads(file.read_text(encoding="utf-8"))["results"]
    ]


def manifest(settings: Settings, *, is_seeding: bool = False) -> dict[str, Any]:
    """dbt's manifest of this instance; parses the project where there is none or it is stale.

    With `is_seeding` the seeds are loaded as well, by the same process.
    """
    file = target(settings) / "manifest.json"
    stamp = target(settings) / "manifest.stamp"
    current = project_hash(settings)
    is_stale = not file.exists() or not stamp.exists() or stamp.read_text() != current
    if is_stale or is_seeding:
        # Partial parsing counts the metrics of a changed YAML file twice (dbt-core 1.12.6).
        options = ("--no-partial-parse",) if is_stale else ()
        run(settings, *options, "seed" if is_seeding else "parse", report=quiet)
        stamp.write_text(current)
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded


def metricflow_environment(settings: Settings) -> dict[str, str]:
    """Environment in which `mf query` answers from the published marts.

    MetricFlow reads `target/` below the project it is pointed at, hence a folder of links.
    """
    folder = settings.home / "dbt" / "metricflow"
    published = folder / "target"
    published.mkdir(parents=True, exist_ok=True)
    link = folder / "dbt_project.yml"
    if not link.is_symlink():
        link.symlink_to(project(settings) / "dbt_project.yml")
    stamp = published / "stamp"
    current = project_hash(settings)
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != current:
        arguments = ("--target", "published", "--target-path", str(published))
        run(settings, "--no-partial-parse", "parse", *arguments, report=quiet)
        stamp.write_text(current, encoding="utf-8")
    return {
        **environment(settings),
        "DBT_TARGET": "published",
        "DBT_TARGET_PATH": str(published),
        "DBT_PROJECT_DIR": str(folder),
        "PATH": f"{settings.pipeline_bin}:{settings.environment.get('PATH', '')}",
    }


def project_hash(settings: Settings, *suffixes: str) -> str:
    """Fingerprint of the dbt project's files, or of those with one of `suffixes`."""
    digest = hashlib.sha256()
    wanted = suffixes or (".sql", ".yml", ".csv", ".md")
    for path in sorted(project(settings).rglob("*")):
        if path.is_file() and path.suffix in wanted and "target" not in path.parts:
            digest.update(str(path.relative_to(project(settings))).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
