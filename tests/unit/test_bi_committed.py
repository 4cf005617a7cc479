"""CI's render diff: superset/assets is what the dbt project says today."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from callhouse import bi, semantic
from callhouse import settings as settings_module
from callhouse.bi import render
from callhouse.settings import LANGUAGES, Settings


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    environment = {"PATH": os.environ["PATH"], "CALLHOUSE_HOME": str(home)}
    for name in ("CALLHOUSE_PIPELINE_ENV",):
        if value := os.environ.get(name):
            environment[name] = value
    return settings_module.load(environment)


def test_committed_datasets_are_up_to_date(parsed: Settings) -> None:
    changed = bi.render_committed(parsed, check=True)
    assert changed == [], "run `make render` and commit what it changes"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_board_renders_from_the_real_catalogue(parsed: Settings, language: str) -> None:
    files = render.bundle(semantic.load(parsed), language)
    assert "dashboards/operations_overview.yaml" in files
    charts = [path for path in files if path.startswith("charts/operations_overview__")]
    assert len(charts) == 14


def test_check_writes_nothing(parsed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    monkeypatch.setattr(render, "write", lambda _files, directory: written.append(directory))
    bi.render_committed(parsed, check=True)
    assert written == []
