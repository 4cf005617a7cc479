"""Which files of a drop folder are complete."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from callhouse import landing
from callhouse import settings as settings_module
from callhouse.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_module.load({"CALLHOUSE_HOME": str(tmp_path)})


def drop(settings: Settings, name: str, *, age: float = 60.0) -> Path:
    path = settings.inbox / "hotline" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_no_folder_is_an_empty_inbox(settings: Settings) -> None:
    assert landing.inbox(settings, "hotline") == []


def test_complete_files_only(settings: Settings) -> None:
    wanted = [drop(settings, "a.csv"), drop(settings, "b.csv.gz")]
    for name in (".hidden", "c.csv.part", "d.csv.tmp", "e.CSV.PART", "~lock"):
        drop(settings, name)
    drop(settings, "fresh.csv", age=0.5)
    (settings.inbox / "hotline" / "refused").mkdir()
    assert landing.inbox(settings, "hotline") == wanted


def test_a_growing_file_waits(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    path = drop(settings, "a.csv")

    def grow(_: float) -> None:
        status = path.stat()
        with path.open("a") as file:
            file.write("more")
        # A copy that keeps the old modification time still shows by its size.
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    monkeypatch.setattr("time.sleep", grow)
    assert landing.inbox(settings, "hotline") == []
