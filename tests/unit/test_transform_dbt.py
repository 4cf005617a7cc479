"""The process that dbt runs in, and what becomes of runs that fail by chance or find something."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.transform import dbt


def run(monkeypatch: pytest.MonkeyPatch, home: Path, *messages: str) -> tuple[list[str], Any]:
    """(what was reported, the results or the error) where dbt's runs end with `messages`."""
    endings = iter(messages)
    said: list[str] = []

    class Process:
        def ask(self, *_: object) -> tuple[int, list[str]]:
            return 1, []

    def results(_file: object) -> list[dbt.NodeResult]:
        message = next(endings)
        status = "error" if message else "success"
        return [dbt.NodeResult("model.callhouse.some", status, 0.1, None, None, message)]

    settings = settings_module.load({"PATH": os.environ["PATH"], "CALLHOUSE_HOME": str(home)})
    monkeypatch.setattr(dbt, "_process", lambda _: Process())
    monkeypatch.setattr(dbt, "read_results", results)
    try:
        found: Any = dbt.run(settings, "build", report=said.append)
    except CallhouseError as error:
        found = error
    assert next(endings, None) is None, "dbt ran less often than it should"
    return said, found


def test_a_deadlock_is_no_fault_of_the_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said, found = run(monkeypatch, tmp_path, "Database Error: deadlock detected", "a real fault")
    assert isinstance(found, dbt.BuildError) and "a real fault" in str(found)
    assert len(said) == 1 and "deadlock" in said[0]


def test_deadlock_after_deadlock_holds_no_day(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """BuildError would split the days and hold them."""
    said, found = run(monkeypatch, tmp_path, *["deadlock detected"] * 3)
    assert isinstance(found, CallhouseError) and not isinstance(found, dbt.BuildError)
    assert len(said) == 2


def test_a_fault_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said, found = run(monkeypatch, tmp_path, "Failure in test unique")
    assert isinstance(found, dbt.BuildError) and said == []


# ------------------------------------------------------------------------------ its process
@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Settings]:
    """Settings of an instance that has no server; dbt can tell of itself all the same."""
    yield settings_module.load({"PATH": os.environ["PATH"], "CALLHOUSE_HOME": str(tmp_path)})
    dbt._own.__dict__.pop("process").end()


def asked(instance: Settings) -> tuple[int, list[str]]:
    """(the process that dbt was imported in, what it said of itself)"""
    said: list[str] = []
    assert dbt.run(instance, "--help", report=said.append) == []
    return dbt._own.process.process.pid, said


def test_dbt_is_imported_once(instance: Settings) -> None:
    first, said = asked(instance)
    assert said[0].startswith("Usage:")
    assert asked(instance) == (first, said), "what one run says is none of the next one's"
    dbt._own.process.asked_at -= dbt.IDLE_SECONDS
    second, said_again = asked(instance)
    assert second != first and said_again == said
    assert not psutil.pid_exists(first)


def test_what_dbt_refuses_is_told(instance: Settings) -> None:
    with pytest.raises(CallhouseError, match=r"did not run.*no-such-option"):
        dbt.run(instance, "parse", "--no-such-option", report=dbt.quiet)


def test_a_run_that_is_killed_did_not_run(instance: Settings) -> None:
    first, said = asked(instance)

    def kill(_line: str) -> None:
        for process in (*psutil.Process(first).children(), psutil.Process(first)):
            process.kill()

    with pytest.raises(CallhouseError, match="did not run"):
        dbt.run(instance, "parse", report=kill)
    assert asked(instance)[1] == said


def test_a_run_that_nobody_waits_for_any_more_ends(instance: Settings) -> None:
    """A task of Airflow that has taken too long, say. The next run hears nothing of it."""
    first, said = asked(instance)
    runs: list[psutil.Process] = []

    def leave(_line: str) -> None:
        runs.extend(psutil.Process(first).children())
        raise TimeoutError

    with pytest.raises(TimeoutError):
        dbt.run(instance, "parse", report=leave)
    assert runs and not psutil.wait_procs(runs, timeout=5)[1], "dbt goes on"
    assert asked(instance)[1] == said


def test_the_process_ends_with_its_thread(instance: Settings) -> None:
    asked(instance)
    found: list[psutil.Process] = []
    thread = threading.Thread(target=lambda: found.append(psutil.Process(asked(instance)[0])))
    thread.start()
    thread.join()
    assert found and not psutil.wait_procs(found, timeout=5)[1]


def test_a_fork_has_a_process_of_its_own(instance: Settings) -> None:
    first, _ = asked(instance)
    child = os.fork()
    if not child:
        os._exit(int(asked(instance)[0] == first))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asked(instance)[0] == first
