"""Running dbt: its process, its environment, and what it reported."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import psycopg

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.settings import Settings

Report = Callable[[str], None]

# It says END when a run is over, and ends by itself a while after it was last asked.
PROCESS, END, IDLE_SECONDS = Path(__file__).with_name("dbt_process.py"), "\0", 30
# The test that tells which values are wrong, and how many of them a message names.
VALUES_TEST, VALUES_NAMED = ".valid_values_", 5


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
    # What a data test has compiled to: it gives the rows that dbt only counts.
    statement: str | None = None

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
        # What it says is in the log of who runs it. With every statement besides it takes longer.
        "DBT_LOG_LEVEL_FILE": "none",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DBT_HOST": settings.database_host,
        "DBT_PORT": str(settings.postgres_port),
        "DBT_USER": "callhouse_pipeline",
        "DBT_PASSWORD": settings.secret("callhouse_pipeline_password"),
        "DBT_DATABASE": "callhouse",
    }


class _Process:
    """A process that has imported dbt and forks for each run; see dbt_process.py."""

    def __init__(self, settings: Settings) -> None:
        self.environment = settings.pipeline_bin
        self.asked_at = time.monotonic()
        python = [str(settings.pipeline_bin / "python"), "-I", "-X", "utf8"]
        self.process = subprocess.Popen(
            [*python, str(PROCESS), str(os.getpid())],
            cwd=project(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        self.questions = cast(IO[str], self.process.stdin)
        self.answers = cast(IO[str], self.process.stdout)

    def is_ready(self, settings: Settings) -> bool:
        """Not where it may be about to end. A fork of who made it finds no such child: ended."""
        return (
            self.environment == settings.pipeline_bin
            and time.monotonic() - self.asked_at < IDLE_SECONDS
            and self.process.poll() is None
        )

    def ask(self, request: dict[str, Any], report: Report) -> tuple[int, list[str]]:
        """dbt's exit code and the last lines that it said."""
        tail: list[str] = []
        try:
            print(json.dumps(request), file=self.questions, flush=True)
            for line in self.answers:
                if line.startswith(END):
                    self.asked_at = time.monotonic()
                    return int(line[1:]), tail
                tail = [*tail[-30:], line.rstrip()]
                report(line.rstrip())
        except BrokenPipeError:
            pass
        except BaseException:
            # What it would go on to say is no answer to the next one who asks.
            self.end()
            raise
        self.end()
        return 1, tail

    def end(self) -> None:
        """End it, and the run that it is at."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.questions.close()
        self.answers.close()


# One for each thread, with which it ends.
_own = threading.local()


def _process(settings: Settings) -> _Process:
    """This thread's process."""
    process: _Process | None = getattr(_own, "process", None)
    if process is None or not process.is_ready(settings):
        if process is not None:
            process.end()
        process = _own.process = _Process(settings)
    return process


def run(
    settings: Settings, *arguments: str, report: Report = print, attempts: int = 3,
    folder: Path | None = None, writes_manifest: bool = False,
) -> list[NodeResult]:  # fmt: skip
    """Run dbt and return its per-node results; it writes into `folder`, else `target`.

    Raises BuildError where nodes failed, CallhouseError where dbt could not run at all. Two
    threads that replace views of one another may meet in a deadlock: chance, and no fault of the
    rows, so dbt runs again, `attempts` times in all.
    """
    written = folder or target(settings)
    results_file = written / "run_results.json"
    results_file.unlink(missing_ok=True)
    json_option = "--write-json" if writes_manifest else "--no-write-json"
    request = {
        "arguments": ["--no-use-colors", json_option, *arguments],
        "environment": environment(settings) | {"DBT_TARGET_PATH": str(written)},
        "results": str(results_file),
    }
    code, tail = _process(settings).ask(request, report)
    results = [_with_values(settings, r) for r in read_results(results_file)]
    bad = [r for r in results if r.is_bad]
    if attempts > 1 and any("deadlock detected" in (r.message or "") for r in bad):
        report("dbt met a deadlock between its own threads and runs again")
        return run(
            settings, *arguments, report=report, attempts=attempts - 1, folder=folder,
            writes_manifest=writes_manifest,
        )  # fmt: skip
    if code and any(_is_infrastructure(r.message or "") for r in bad):
        raise CallhouseError(f"dbt lost the warehouse: {bad[0].message}")
    if bad:
        sentences = [f"{r.node}: {(r.message or r.status).strip()}" for r in bad]
        raise BuildError("; ".join(sentences))
    if code:
        raise CallhouseError("dbt did not run: " + " | ".join(t for t in tail[-8:] if t.strip()))
    return results


def _with_values(settings: Settings, result: NodeResult) -> NodeResult:
    """The same, its message naming the values that the test `valid_values` has found."""
    if VALUES_TEST not in result.node or not result.failures or result.statement is None:
        return result
    try:
        with warehouse.connect(settings) as connection:
            connection.execute("set role callhouse_owner")
            rows = connection.execute(result.statement.encode()).fetchall()
    except (CallhouseError, psycopg.Error):
        return result  # which says what dbt knows
    sentences = [
        f"{column} {'null' if value is None else repr(value[:60])}"
        f"{f' of source {source!r}' if source else ''} is {problem} ({count} rows)"
        for _severity, column, value, problem, source, count in rows[:VALUES_NAMED]
    ]
    if len(rows) > VALUES_NAMED:
        sentences.append(f"and {len(rows) - VALUES_NAMED} more")
    return replace(result, message=f"{result.message}: {', '.join(sentences)}")


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
            statement=r.get("compiled_code"),
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
        command = "seed" if is_seeding else "parse"
        run(settings, *options, command, report=quiet, writes_manifest=True)
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
        options = ("--no-partial-parse", "parse", "--target", "published")
        run(settings, *options, report=quiet, folder=published, writes_manifest=True)
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
