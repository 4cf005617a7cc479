"""A vendor's name stands in its own places only, so that the tenth costs what the second did."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from callhouse import settings as settings_module
from callhouse.sources import registry

ROOT = settings_module.REPOSITORY
WHERE = ("dags", "dbt_project", "expectations", "plugins", "superset")
SUFFIXES = (".py", ".sql", ".yml", ".yaml")
# Where vendors come together: a line each, and the inputs of these models' own unit tests.
TOGETHER = re.compile(r"models/intermediate/\w+/(int_\w+__(unioned|versions)\.sql|_int_\w+\.yml)")


def files() -> list[Path]:
    return [
        file
        for folder in WHERE
        for file in (ROOT / folder).rglob("*")
        if file.suffix in SUFFIXES and "target" not in file.parts
    ]


def own_places(vendor: str) -> tuple[str, ...]:
    return (
        f"plugins/callhouse/sources/{vendor}/",
        f"dbt_project/models/staging/{vendor}/",
        f"expectations/staging/{vendor}.yaml",
    )


def test_vendors_are_found_by_their_folders() -> None:
    assert registry.vendors() == ["amazon_connect", "asterisk", "delimited"]
    for vendor in registry.vendors():
        for place in own_places(vendor):
            assert (ROOT / place).exists(), place
        assert (ROOT / "tests" / "fixtures" / vendor).is_dir()
        assert f"staging.{vendor}_".encode() in registry.tables()


@pytest.mark.parametrize("vendor", registry.vendors())
def test_a_vendor_s_name_stands_nowhere_else(vendor: str) -> None:
    names = re.compile(rf"\b(stg_)?{vendor}_|sources[./]{vendor}\b|vendor = '{vendor}'")
    # A vendor has a suite more where its rows are read by builds of two lanes.
    own = (*own_places(vendor), f"expectations/staging/{vendor}_")
    known, strange = 0, []
    for file in files():
        name = file.relative_to(ROOT).as_posix()
        if names.search(file.read_text(encoding="utf-8")):
            if name.startswith(own) or TOGETHER.search(name):
                known += 1
            else:
                strange.append(name)
    assert known >= 8
    assert strange == []
