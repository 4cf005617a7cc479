"""What becomes of dbt runs that fail by chance, and of those that find something."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.transform import dbt


def run(monkeypatch: pytest.MonkeyPatch, home: Path, *messages: str) -> tuple[list[str], Any]:
    """(what was reported, the results or the error) where dbt's runs end with `messages`."""
    endings = iter(messages)
    said: list[str] = []

    class Process:
        stdout = ()

        def __init__(self, *_: object, **__: object) -> None: ...

        def wait(self) -> int:
            return 1

    def results(_file: object) -> list[dbt.NodeResult]:
        message = next(endings)
        status = "error" if message else "success"
        return [dbt.NodeResult("model.callhouse.some", status, 0.1, None, None, message)]

    settings = settings_module.load({"PATH": os.environ["PATH"], "CALLHOUSE_HOME": str(home)})
    monkeypatch.setattr("subprocess.Popen", Process)
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
