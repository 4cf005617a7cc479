"""The table of faults names tests that exist."""

from __future__ import annotations

import re

from callhouse.settings import REPOSITORY

NAMED = re.compile(r"`((?:\w+/)?\w+\.py)::(test_\w+)")


def test_each_fault_has_its_test() -> None:
    named = NAMED.findall((REPOSITORY / "docs/contributors/faults.md").read_text("utf-8"))
    assert len(named) > 50
    tests = REPOSITORY / "tests"
    for file, test in named:
        path = tests / (file if "/" in file else f"faults/{file}")
        assert f"def {test}(" in path.read_text("utf-8"), f"{file}::{test}"
