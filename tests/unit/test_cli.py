"""The command line as other tools rely on it; nothing here needs a warehouse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from callhouse import cli, settings
from callhouse.errors import CallhouseError

CONTRACT = [
    "up", "down", "status", "doctor", "land", "transform", "audit", "metric", "psql", "simulate",
    "render", "access", "quarantine", "capture", "bench",
]  # fmt: skip


def run(
    *arguments: str, home: Path, python: Path | str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """The command line as a process, on a port base where nothing listens."""
    return subprocess.run(
        [python, "-m", "callhouse", *arguments],
        env={"CALLHOUSE_HOME": str(home), "CALLHOUSE_PORT_BASE": "64000", "PATH": "/usr/bin:/bin",
             "PYTHONPATH": str(settings.REPOSITORY / "plugins")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", CONTRACT)
def test_every_command_of_the_contract_explains_itself(command: str, tmp_path: Path) -> None:
    result = run(command, "--help", home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert command in result.stdout


def test_benchmarks_are_found_from_the_environment_that_people_call(tmp_path: Path) -> None:
    """pytest is in another one than the command line."""
    python = settings.load({}).pipeline_bin / "python"
    if not python.exists():
        pytest.skip("the environments are not installed: run `requirements/install`")
    result = run("bench", "--collect-only", "-k", "readers", home=tmp_path, python=python)
    assert result.returncode == 0, result.stderr
    assert "bench_readers.py::test_readers" in result.stdout


def test_options_that_take_several_values() -> None:
    assert cli._expand(
        ["metric", "calls", "--by", "queue", "day", "--from", "2026-10-05", "--json",
         "--where", "source=x", "queue=y", "--as", "director"]
    ) == [
        "metric", "calls", "--by", "queue", "--by", "day", "--from", "2026-10-05", "--json",
        "--where", "source=x", "--where", "queue=y", "--as", "director",
    ]  # fmt: skip
    assert cli._expand(["land", "--by", "x", "y"]) == ["land", "--by", "x", "y"]


def test_a_problem_is_one_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    result = run("psql", "--as", "Robert'); drop table", home=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("callhouse: ")
    assert result.stderr.count("\n") == 1
    result = run("access", "list", home=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "make up" in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_usage_ends_with_2(tmp_path: Path) -> None:
    assert run("simulate", home=tmp_path).returncode == 2
    assert run("nonsense", home=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("CALLHOUSE_PORT_BASE", "80", "between 1024 and 65000"),
        ("CALLHOUSE_PORT_BASE", "high", "is no port number"),
        ("CALLHOUSE_TIME_ZONE", "Mars/Olympus", "is no time zone"),
        ("CALLHOUSE_LANG", "de", "en, zh"),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str, words: str) -> None:
    with pytest.raises(CallhouseError, match=variable) as problem:
        settings.load({variable: value})
    assert words in str(problem.value)


def test_a_secret_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    loaded = settings.load({"CALLHOUSE_HOME": str(tmp_path)})
    first = loaded.secret("people_key")
    assert len(first) > 30
    assert loaded.secret("people_key") == first
    assert (tmp_path / "secrets" / "people_key").stat().st_mode & 0o777 == 0o600
    handed = settings.load({"CALLHOUSE_HOME": str(tmp_path), "CALLHOUSE_SECRET_PEOPLE_KEY": "x"})
    assert handed.secret("people_key") == "x"


def test_a_password_with_quotes_survives_the_connection_string(tmp_path: Path) -> None:
    from psycopg.conninfo import conninfo_to_dict

    secret = r"it's a \ secret"
    loaded = settings.load(
        {"CALLHOUSE_HOME": str(tmp_path), "CALLHOUSE_SECRET_CALLHOUSE_PIPELINE_PASSWORD": secret}
    )
    assert conninfo_to_dict(loaded.dsn())["password"] == secret


def test_days_and_ranges() -> None:
    assert [d.day for d in cli._days("2026-10-30..2026-11-01")] == [30, 31, 1]
    with pytest.raises(CallhouseError, match="ends before it begins"):
        cli._days("2026-10-30..2026-10-01")
    with pytest.raises(CallhouseError, match="is no date"):
        cli._days("30.10.2026")
