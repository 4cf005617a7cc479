"""The boards about calls in a browser: numbers are SQL's, ways keep the filters, rows are whose."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.conftest import TILE

from callhouse import bi, semantic, warehouse
from callhouse.bi import dashboards, layout, members, render, words
from callhouse.security import login_password
from callhouse.semantic import query
from callhouse.settings import LANGUAGES, Settings

if TYPE_CHECKING:
    from tests.e2e.conftest import Visit, Visitor

pytestmark = pytest.mark.timeout(1800)
SAMPLE = "sample_hotline"
EXPLORER = "call_explorer"
# Board → big number that is checked, and its metric.
BOARDS = {
    EXPLORER: {"calls": "calls", "abnormal_call_rate": "abnormal_call_rate"},
    "agents_teams": {
        "connections_handled": "connections_handled",
        "occupancy": "occupancy",
        "offer_answer_rate": "offer_answer_rate",
    },
    "channels": {
        "channel_requests": "channel_requests",
        "csat": "csat",
        "cost_per_contact": "cost_per_contact",
    },
    "callers_regions": {"contacts": "contacts", "repeat_rate": "repeat_rate"},
}
# Calls are their agents' and teams'; sums by queue and region are of neither.
LEAD_BOARDS = (EXPLORER,)


def board(settings: Settings, slug: str) -> layout.Board:
    return layout.load(render.BOARDS / f"{slug}.yaml", settings.language)


def charts(board: layout.Board) -> int:
    return sum(tile.chart not in layout.WORDS_ONLY for tile in board.tiles)


def title(board: layout.Board, tile: str) -> str:
    return next(one.title for one in board.tiles if one.name == tile)


def chosen(board: layout.Board, **columns: str) -> str:
    """`native_filters` of an address, as the filter bar writes it: filter=value."""
    parts = []
    for one in board.filters:
        if value := columns.get(one.name):
            name = dashboards.filter_id(board, one.name)
            clause = f"extraFormData:(filters:!((col:{one.column},op:IN,val:!('{value}'))))"
            state = f"filterState:(label:'{value}',validateStatus:!f,value:!('{value}'))"
            parts.append(f"{name}:({clause},{state},id:{name},ownState:())")
    return f"({','.join(parts)})"


def ask(settings: Settings, statement: str, arguments: list[Any]) -> list[tuple[Any, ...]]:
    """Rows that SQL answers to the director."""
    password = login_password(settings, "director")
    with warehouse.connect_as(settings, "director", password) as connection:
        return list(connection.execute(statement.encode(), arguments))


def since(settings: Settings) -> date:
    """First day that boards show at first: a month ends with the newest day of the sample."""
    ((first,),) = ask(
        settings,
        "select (max(business_day) + 1 - interval '1 month')::date from bi.source_days"
        " where source = %s",
        [SAMPLE],
    )
    return date.fromisoformat(str(first))


def answers(settings: Settings, person: str, *names: str) -> dict[str, str]:
    """What `./callhouse metric --as person` says, as a big number shows it."""
    catalogue = semantic.load(settings)
    question = query.Question(names, start=since(settings), where=(("source", SAMPLE),))
    _, rows = query.ask(settings, catalogue, question, person)
    values = dict(zip(names, rows[0], strict=True))
    looks = {"rate": "{:.1%}", "number": "{:,.2f}", "count": "{:,}"}
    return {
        name: looks[catalogue.metrics[name].unit].format(value) for name, value in values.items()
    }


def check_board(seen: Visit, settings: Settings, slug: str, person: str) -> None:
    """Open a board: no tile fails, nothing leaves, and its numbers are those of the metrics."""
    shown = board(settings, slug)
    seen.open(slug, charts(shown), chosen(shown, source=SAMPLE))
    assert (seen.errors(), seen.problems, seen.outside) == ([], [], [])
    wanted = answers(settings, person, *BOARDS[slug].values())
    assert {
        metric: seen.number(title(shown, tile)) for tile, metric in BOARDS[slug].items()
    } == wanted


def rows_of(seen: Visit, column: str) -> list[dict[str, Any]]:
    """Rows of the last answer to a tile that shows `column`."""
    return next(
        results[0] for results in seen.tiles.values() if results[0] and column in results[0][0]
    )


@pytest.mark.parametrize(
    ("person", "slugs"), [("director", (*BOARDS,)), ("lead_gz_a", LEAD_BOARDS)]
)
def test_boards_show_what_the_metrics_say(
    product: Settings, visit: Visitor, artefacts: Path, person: str, slugs: tuple[str, ...]
) -> None:
    with visit(person) as seen:
        for slug in slugs:
            check_board(seen, product, slug, person)
            seen.screenshot(artefacts / f"{slug}_{person}.png")
            if slug == EXPLORER:
                assert {row["caller_masked"] for row in rows_of(seen, "caller_masked")} != {None}
                rows = rows_of(seen, "transfers_count")
                teams = {row["team_name"] for row in rows} - {"No team"}
                assert person != "lead_gz_a" or teams == {"Guangzhou A"}


def test_a_queue_leads_down_to_its_calls_and_a_call_to_its_events(
    product: Settings, visit: Visitor, artefacts: Path
) -> None:
    """Down with the filters, one call by a click, and back up: the totals agree at each level."""
    operations, explorer = board(product, "operations_overview"), board(product, EXPLORER)
    first = since(product)
    ((offered, calls),) = ask(
        product,
        "select (select sum(calls_offered) from bi.fct_queue_visits"
        " where source = %s and queue_name = 'Cards' and business_day >= %s),"
        " (select sum(calls) from bi.fct_calls"
        " where source = %s and queue_name = 'Cards' and business_day >= %s)",
        [SAMPLE, first, SAMPLE, first],
    )
    with visit("director") as seen:
        filters = chosen(operations, source=SAMPLE, queue="Cards")
        seen.open("operations_overview", charts(operations), filters)
        assert seen.number(title(operations, "calls_offered")) == f"{offered:,}"
        # The page has put what was chosen into its own address, which the link is followed by.
        seen.page.wait_for_url("**native_filters_key=**")
        seen.tiles.clear()
        seen.page.click(f"a[href='/boards/{EXPLORER}/']")
        seen.page.wait_for_url(f"**/dashboard/{EXPLORER}/**")
        seen.wait_until_drawn(EXPLORER, charts(explorer))
        assert seen.number(title(explorer, "calls")) == f"{calls:,}"
        listed = rows_of(seen, "transfers_count")
        assert {row["queue_name"] for row in listed} == {"Cards"}
        call = str(listed[0]["call_key"])
        seen.page.locator("td", has_text=call).first.click()
        seen.page.wait_for_timeout(2000)
        seen.wait_until_drawn(EXPLORER, charts(explorer))
        seen.screenshot(artefacts / "one_call.png")
        events = ask(
            product,
            "select event from bi.fct_call_events where call_key = %s order by event_number",
            [call],
        )
        assert events
        assert [(row["event"],) for row in rows_of(seen, "event_at")] == events
        assert (seen.errors(), seen.problems, seen.outside) == ([], [], [])
        # Up again: the same filters, now in the other board's address.
        seen.page.click("a[href='/boards/operations_overview/']")
        seen.page.wait_for_url(
            lambda url: "/dashboard/operations_overview/" in url and "Cards" in url,
            wait_until="commit",
        )


@pytest.mark.parametrize(
    "person", ["director", "manager_gd", "lead_gz_a", "agent_103", "executive"]
)
def test_views_of_boards_add_up_to_the_facts_of_each_person(product: Settings, person: str) -> None:
    """Three steps per call, one per request; contributions are the change of the whole."""
    with warehouse.connect_as(product, person, login_password(product, person)) as connection:
        steps, calls, paths, requests = warehouse.one(
            connection,
            "select (select count(*) from bi.fct_call_flows),"
            " (select coalesce(sum(calls), 0) from bi.fct_calls),"
            " (select count(*) from bi.fct_channel_paths),"
            " (select count(*) from bi.fct_channel_requests)",
        )
        changes = connection.execute(
            "select dimension, sum(service_contribution),"
            " 1.0 * sum(answered_within_target) / sum(answered_or_abandoned)"
            " - 1.0 * sum(answered_within_target_before) / sum(answered_or_abandoned_before)"
            " from bi.agg_group_changes_weekly where source = %s and is_newest group by dimension",
            [SAMPLE],
        ).fetchall()
    assert (steps, paths) == (3 * calls, requests)
    assert bool(calls) == (person != "executive")
    # A regional manager's are of the region; what moved a queue's rate is of no team.
    assert len(changes) == (6 if person in ("director", "executive", "manager_gd") else 0)
    for dimension, contributed, changed in changes:
        assert float(contributed) == pytest.approx(float(changed), abs=1e-9), dimension


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_empty_tile_says_why(
    product: Settings, visit: Visitor, artefacts: Path, language: str
) -> None:
    """A lead has no sums of queues and regions: those tiles say so, in the person's language."""
    shown = board(product, "operations_overview")
    with visit("lead_gz_a") as seen:
        seen.page.goto(f"{seen.base}/lang/{language}")
        seen.open(shown.slug, charts(shown), chosen(shown, source=SAMPLE))
        seen.screenshot(artefacts / f"empty_{language}.png")
        # Beside no row of its days a big number has its total: a row of nothing.
        empty = sum(not results[0] for results in seen.tiles.values())
        assert empty > 5
        tiles = seen.page.locator(TILE)
        for said in words.EMPTY[language]:
            assert tiles.get_by_text(said, exact=True).count() == empty, said
        assert tiles.get_by_text(words.TITLE).count() == 0
        assert tiles.get_by_text(words.REASON).count() == 0


def test_a_chinese_instance_has_chinese_boards(
    product: Settings, visit: Visitor, artefacts: Path
) -> None:
    chinese = replace(product, language="zh")
    try:
        bi.install(chinese, print)
        with visit("director") as seen:
            for slug in ("channels",):
                shown = board(chinese, slug)
                seen.open(slug, charts(shown), chosen(shown, source=SAMPLE))
                seen.screenshot(artefacts / f"{slug}_zh.png")
                assert seen.errors() == []
                texts = seen.page.locator(".header-title").all_inner_texts()
                assert {tile.title for tile in shown.tiles if tile.title} <= set(texts)
                assert shown.title in seen.page.inner_text("body")
            # The board filtered by the word is what SQL says of the code.
            by_word = rows_of(seen, "channel_requests_served")
            filters = chosen(shown, source=SAMPLE, channel="人工坐席")
            seen.open("channels", charts(shown), filters)
            (only,) = rows_of(seen, "channel_requests_served")
    finally:
        bi.install(product, print)
    first = since(product)
    with warehouse.connect_as(product, "director", login_password(product, "director")) as person:
        by_code = dict(
            person.execute(
                "select channel, sum(channel_requests) from bi.fct_channel_requests"
                " where source = %s and business_day >= %s group by channel",
                [SAMPLE, first],
            ).fetchall()
        )
    said = members.words("fct_channel_requests", "channel", "zh")
    assert {row["channel"]: row["channel_requests"] for row in by_word} == {
        said[code]: requests for code, requests in by_code.items()
    }
    assert (only["channel"], only["channel_requests"]) == ("人工坐席", by_code["human"])
