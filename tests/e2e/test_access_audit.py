"""The board "Who looked at what": an auditor sees who did what, nobody else sees a row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from callhouse.security import trail
from callhouse.settings import Settings

if TYPE_CHECKING:
    from tests.e2e.conftest import Visitor

pytestmark = pytest.mark.timeout(1800)
SLUG = "access_audit"
TILES = 8


@pytest.fixture
def auditor(product: Settings) -> Iterator[str]:
    """The director, who for this test is an auditor."""
    with psycopg.connect(product.dsn("postgres"), autocommit=True) as server:
        (before,) = server.execute(
            "select level from sec.people where person = 'director'"
        ).fetchone() or (None,)
        server.execute("update sec.people set level = 'auditor' where person = 'director'")
        yield "director"
        server.execute("update sec.people set level = %s where person = 'director'", [before])


def test_an_auditor_sees_who_looked_at_what(
    visit: Visitor, product: Settings, auditor: str, artefacts: Path
) -> None:
    with visit("manager_gd") as seen:
        seen.open("operations_overview", 1)
        seen.open(SLUG, TILES)
        assert seen.errors() == []
        assert not any(
            row.get("person") for results in seen.tiles.values() for data in results for row in data
        )
    trail.collect(product)
    boards = [
        e for e in trail.list_entries(product, "manager_gd")
        if (e["origin"], e["action"]) == ("superset", "dashboard")
    ]  # fmt: skip
    assert {"operations_overview", SLUG} <= {e["object_name"] for e in boards}
    charts = [
        e for e in trail.list_entries(product, "manager_gd")
        if (e["action"], e["outcome"]) == ("chart", "ok")
    ]  # fmt: skip
    assert charts
    assert all(e["address"] and e["row_count"] is not None and e["statement"] for e in charts)
    with visit(auditor) as seen:
        seen.open(SLUG, TILES)
        assert seen.errors() == []
        assert seen.outside == []
        assert int(seen.number("People").replace(",", "")) >= 2
        assert "manager_gd" in json.dumps(seen.tiles)
        seen.screenshot(artefacts / "access_audit_auditor.png")
    assert trail.verify(product).problem is None
