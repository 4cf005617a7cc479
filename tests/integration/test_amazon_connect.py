"""Streams come at least once, in any order and any files: what is staged must not know how."""

from __future__ import annotations

import copy
import itertools
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from callhouse import landing, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.transform import dbt

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "amazon_connect"
CONTACT: dict[str, Any] = json.loads((FIXTURES / "contact.json").read_text("utf-8"))
EVENT: dict[str, Any] = json.loads((FIXTURES / "agent_event.json").read_text("utf-8"))
CONTACTS, EVENTS = "amazon_connect_contacts", "amazon_connect_agent_events"
TABLES = (
    "staging.amazon_connect_contacts", "staging.amazon_connect_agent_events",
    "staging.amazon_connect_calls", "staging.amazon_connect_agents",
    "staging.amazon_connect_links",
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(settings: Settings, cluster: postgres.Cluster) -> Settings:
    """Staging tables and the vendor's views."""
    with warehouse.connect(settings) as connection:
        registry.register(connection)
    dbt.run(settings, "run", "--select", "+path:models/staging/amazon_connect", report=dbt.quiet)
    return settings


@pytest.fixture
def emptied(prepared: Settings) -> Settings:
    """The warehouse with nothing landed."""
    empty(prepared)
    return prepared


def empty(settings: Settings) -> None:
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        emptied = (*TABLES, "staging.members", "pii.callers", "ops.units")
        connection.execute(f"truncate {', '.join(emptied)} cascade".encode())
        connection.execute("delete from ops.dirty_marks")
        connection.execute("update ops.sources set newest_event_at = null")


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def land(settings: Settings, source: str, *files: Path) -> list[landing.UnitResult]:
    found = landing.land(settings, source, files)
    for result in found:
        assert result.status in ("landed", "already_landed"), result.reason
        assert result.read == result.staged + result.quarantined + result.duplicates
    return found


def check_ledger(settings: Settings) -> None:
    """The ledger by day agrees with the rows, whatever was moved."""
    with warehouse.connect(settings) as connection:
        ledger = "select unit_id, business_day, staged_rows from ops.unit_days order by 1, 2"
        staged = (
            "select unit_id, business_day, count(*) from (select unit_id, business_day from "
            f"{TABLES[0]} union all select unit_id, business_day from {TABLES[1]}) as r "
            "group by unit_id, business_day order by 1, 2"
        )
        assert connection.execute(ledger).fetchall() == connection.execute(
            staged.encode()
        ).fetchall()  # fmt: skip


def asked(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    with warehouse.connect(settings) as connection:
        return connection.execute(statement.encode()).fetchall()


def version(minute: int, **agent: Any) -> dict[str, Any]:
    """The contact as it was known at 16:`minute`."""
    content = copy.deepcopy(CONTACT)
    content["Agent"] |= agent
    content["LastUpdateTimestamp"] = f"2025-06-03T16:{minute:02d}:00Z"
    return content


# ------------------------------------------------------------------------------ versions
WORK = "select acw_seconds, cardinality(data_issues) from intake.stg_amazon_connect__calls as c "
WORK += "inner join intake.stg_amazon_connect__agent_connections as a using (source, call_id)"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("files", ["one", "each"])
def test_the_newest_version_counts(
    emptied: Settings, tmp_path: Path, order: tuple[int, ...], files: str
) -> None:
    known = [
        version(2, AfterContactWorkDuration=None, AfterContactWorkEndTimestamp=None),
        version(3, AfterContactWorkDuration=20),
        version(4, AfterContactWorkDuration=25),
    ]
    arriving = [known[place] for place in order]
    if files == "one":
        results = land(emptied, CONTACTS, write(tmp_path / "all", *arriving))
    else:
        paths = [write(tmp_path / f"{number}", item) for number, item in enumerate(arriving)]
        results = land(emptied, CONTACTS, *paths)
    assert sum(result.staged for result in results) == 3
    # The transfer came without its first contact, and so far nobody knows more.
    assert asked(emptied, WORK) == [(25, 1)]
    counts = "select count(*), count(superseded_by) from staging.amazon_connect_contacts"
    assert asked(emptied, counts) == [(3, 2)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_equal_versions_with_other_content_are_told(
    emptied: Settings, tmp_path: Path, order: tuple[int, ...]
) -> None:
    rivals = [version(5, AfterContactWorkDuration=seconds) for seconds in (20, 21, 22)]
    paths = [write(tmp_path / str(place), rivals[place]) for place in order]
    land(emptied, CONTACTS, *paths)
    found = asked(emptied, "select data_issues from intake.stg_amazon_connect__calls")
    assert found == [(["conflicting_version", "missing:initial_contact"],)]
    winner = asked(emptied, WORK)
    empty(emptied)
    land(emptied, CONTACTS, write(tmp_path / "all", *rivals))
    assert asked(emptied, WORK) == winner
    land(emptied, CONTACTS, write(tmp_path / "newer", version(6, AfterContactWorkDuration=7)))
    assert asked(emptied, WORK) == [(7, 1)]  # the conflict is past


def test_the_same_record_again_is_a_duplicate(emptied: Settings, tmp_path: Path) -> None:
    turned = dict(reversed(CONTACT.items()))
    first = land(emptied, CONTACTS, write(tmp_path / "a", CONTACT, turned))[0]
    again = land(emptied, CONTACTS, write(tmp_path / "b", turned, CONTACT, version(9)))[0]
    assert (first.staged, first.duplicates) == (1, 1)
    assert (again.staged, again.duplicates) == (1, 2)


def test_an_agent_event_counts_once(emptied: Settings, tmp_path: Path) -> None:
    other = EVENT | {"EventId": "another"}
    odd = EVENT | {"EventType": "LOGIN"}
    land(emptied, EVENTS, write(tmp_path / "a", EVENT, other, EVENT))
    result = land(emptied, EVENTS, write(tmp_path / "b", odd, EVENT))[0]
    assert (result.staged, result.duplicates) == (1, 1)
    found = asked(
        emptied,
        "select event_id, data_issues from staging.amazon_connect_agent_events "
        "where superseded_by is null order by 1",
    )
    assert found == [(EVENT["EventId"], ["conflicting_version"]), ("another", None)]


# ------------------------------------------------------------------------------ calls
def chain() -> list[dict[str, Any]]:
    """A call of 23:58 that is passed on after midnight, and a call-back on the day after it."""
    first = copy.deepcopy(CONTACT)
    first |= {
        "ContactId": CONTACT["InitialContactId"], "InitialContactId": None,
        "PreviousContactId": None, "NextContactId": CONTACT["ContactId"],
        "InitiationMethod": "INBOUND", "InitiationTimestamp": "2025-06-03T15:58:00Z",
        "ConnectedToSystemTimestamp": "2025-06-03T15:58:00Z", "DisconnectReason": None,
        "DisconnectTimestamp": "2025-06-03T16:00:10Z",
    }  # fmt: skip
    first["Queue"] |= {
        "EnqueueTimestamp": "2025-06-03T15:58:20Z", "DequeueTimestamp": "2025-06-03T15:58:30Z",
        "Duration": 10,
    }  # fmt: skip
    first["Agent"] |= {
        "Username": "wei", "ConnectedToAgentTimestamp": "2025-06-03T15:58:30Z",
        "AgentInteractionDuration": 100, "CustomerHoldDuration": 0,
        "AfterContactWorkStartTimestamp": "2025-06-03T16:00:10Z",
    }  # fmt: skip
    callback = copy.deepcopy(CONTACT)
    callback |= {
        "ContactId": "call-back", "InitiationMethod": "CALLBACK",
        "PreviousContactId": CONTACT["ContactId"],
        "InitiationTimestamp": "2025-06-04T16:30:00Z",
        "ConnectedToSystemTimestamp": "2025-06-04T16:30:10Z",
    }  # fmt: skip
    return [first, CONTACT, callback]


CALLS = """
    select call_id, business_day, queue_visits, agents, channel, outcome, data_issues
    from intake.stg_amazon_connect__calls
    left join (
        select call_id, count(*) as queue_visits from intake.stg_amazon_connect__queue_visits
        group by call_id
    ) as v using (call_id)
    left join (
        select call_id, array_agg(agent_id || coalesce(' ' || transfer_type, '')
            order by connection_number) as agents
        from intake.stg_amazon_connect__agent_connections group by call_id
    ) as c using (call_id)
    order by business_day
"""


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_contacts_of_a_call_may_come_in_any_order(
    emptied: Settings, tmp_path: Path, order: tuple[int, ...]
) -> None:
    contacts = chain()
    for place in order:
        land(emptied, CONTACTS, write(tmp_path / str(place), contacts[place]))
    assert asked(emptied, CALLS) == [
        (CONTACT["InitialContactId"], date(2025, 6, 3), 2, ["wei blind", "lin"], "human",
         "answered", None),
        ("call-back", date(2025, 6, 5), None, ["lin"], "callback", "answered", None),
    ]  # fmt: skip
    check_ledger(emptied)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_what_follows_a_call_back_is_part_of_it(
    emptied: Settings, tmp_path: Path, order: tuple[int, ...]
) -> None:
    """Its contacts name the first contact of the whole chain, which is another call."""
    first, _, callback = chain()
    callback |= {"PreviousContactId": first["ContactId"]}
    passed_on = copy.deepcopy(CONTACT) | {
        "ContactId": "passed-on", "PreviousContactId": "call-back",
        "InitiationTimestamp": "2025-06-04T16:40:00Z",
    }  # fmt: skip
    again = copy.deepcopy(CONTACT) | {
        "ContactId": "again", "PreviousContactId": "passed-on",
        "InitiationTimestamp": "2025-06-05T16:40:00Z",
    }  # fmt: skip
    contacts = [first, callback, passed_on, again]
    for place in order:
        land(emptied, CONTACTS, write(tmp_path / str(place), contacts[place]))
    assert asked(emptied, CALLS) == [
        (first["ContactId"], date(2025, 6, 3), 1, ["wei"], "human", "answered", None),
        ("call-back", date(2025, 6, 5), 2, ["lin blind", "lin blind", "lin"], "callback",
         "answered", None),
    ]  # fmt: skip
    heads = "select call_id, business_day from staging.amazon_connect_calls order by 2"
    assert asked(emptied, heads) == [
        (first["ContactId"], date(2025, 6, 3)), ("call-back", date(2025, 6, 5)),
    ]  # fmt: skip
    check_ledger(emptied)


def test_contacts_that_follow_each_other_in_a_circle_are_kept(
    emptied: Settings, tmp_path: Path
) -> None:
    ring = [
        CONTACT | {"ContactId": name, "PreviousContactId": previous}
        for name, previous in (("a", "c"), ("b", "a"), ("c", "b"))
    ]
    land(emptied, CONTACTS, *(write(tmp_path / str(n), item) for n, item in enumerate(ring)))
    counts = "select count(*), count(distinct call_id) from intake.stg_amazon_connect__calls"
    assert asked(emptied, counts) == [(1, 1)]


def test_a_late_first_contact_moves_its_call_and_marks_both_days(
    emptied: Settings, tmp_path: Path
) -> None:
    first, transfer, _ = chain()
    land(emptied, CONTACTS, write(tmp_path / "a", transfer))
    assert asked(emptied, "select distinct business_day from ops.dirty_marks") == [
        (date(2025, 6, 4),)
    ]
    roster = "select agent_id, seen_on, team_id from staging.amazon_connect_agents order by 1, 2"
    assert asked(emptied, roster) == [("lin", date(2025, 6, 4), "Cards A")]
    with warehouse.connect(emptied) as connection:
        connection.execute("delete from ops.dirty_marks")
    land(emptied, CONTACTS, write(tmp_path / "b", first))
    assert asked(emptied, "select distinct business_day from ops.dirty_marks order by 1") == [
        (date(2025, 6, 3),), (date(2025, 6, 4),),
    ]  # fmt: skip
    assert asked(emptied, roster) == [
        ("lin", date(2025, 6, 3), "Cards A"), ("wei", date(2025, 6, 3), "Cards A"),
    ]  # fmt: skip


def test_the_team_of_a_day_is_what_the_latest_record_says(
    emptied: Settings, tmp_path: Path
) -> None:
    def event(number: int, hour: int, team: str) -> dict[str, Any]:
        content = copy.deepcopy(EVENT)
        content |= {"EventId": str(number), "EventTimestamp": f"2025-06-03T{hour:02d}:00:00.000Z"}
        groups = content["CurrentAgentSnapshot"]["Configuration"]["AgentHierarchyGroups"]
        groups["Level2"]["Name"] = team
        return content

    land(emptied, EVENTS, write(tmp_path / "a", event(1, 9, "late")))
    land(emptied, EVENTS, write(tmp_path / "b", event(2, 1, "early")))
    assert asked(emptied, "select team_id, seen_on from staging.amazon_connect_agents") == [
        ("late", date(2025, 6, 3))
    ]


def test_the_team_of_a_day_is_told_by_each_kind_of_record(
    emptied: Settings, tmp_path: Path
) -> None:
    """Both streams are one source; landing one of them anew must not forget what the other told."""
    land(emptied, EVENTS, write(tmp_path / "a", EVENT))
    land(emptied, CONTACTS, write(tmp_path / "b", CONTACT))
    told = asked(
        emptied, "select source, record, agent_id from staging.amazon_connect_agents order by 2"
    )
    assert [row[:2] for row in told] == [(CONTACTS, "agent_events"), (CONTACTS, "contacts")]
    again = EVENT | {"EventId": "another"}
    land(emptied, EVENTS, write(tmp_path / "c", again))
    assert told == asked(
        emptied, "select source, record, agent_id from staging.amazon_connect_agents order by 2"
    )


# ------------------------------------------------------------------------------ what is kept
def test_no_number_is_kept_in_clear(emptied: Settings, tmp_path: Path) -> None:
    noisy = CONTACT | {
        "Attributes": {"business_type": "13800138000", "note": "ring +86 138 0013 8000"},
        "Surprise": {"13800138000": 13800138000},
    }
    path = write(tmp_path / "a", noisy)
    with path.open("a") as file:
        file.write('{"CustomerEndpoint": {"Address": "+8613800138000"\n')
    assert land(emptied, CONTACTS, path)[0].quarantined == 1
    found = asked(
        emptied,
        "select caller_token is not null, caller_region_code, business_type, "
        "attributes ->> 'note', other_fields #>> '{Surprise,#######}', t::text "
        "from staging.amazon_connect_contacts as t",
    )[0]
    assert found[:5] == (True, "CN-BJ", "#######", "ring #######", "#######")
    assert "138001" not in found[5]
    preview = asked(emptied, "select preview, reason_code from ops.quarantine")[0]
    assert "138" not in preview[0]
    assert preview[1] == "broken_json"
    members = asked(emptied, "select string_agg(code, ' ') from staging.members")[0]
    assert "138001" not in members[0]


def test_a_file_whose_records_all_have_the_same_issue(emptied: Settings, tmp_path: Path) -> None:
    new = [CONTACT | {"ContactId": name, "DisconnectReason": "NOVEL"} for name in ("a", "b")]
    land(emptied, CONTACTS, write(tmp_path / "a", *new))
    issues = "select distinct data_issues from staging.amazon_connect_contacts"
    assert asked(emptied, issues) == [(["unknown:disconnect_reason=NOVEL"],)]


def test_unknown_fields_are_kept(emptied: Settings, tmp_path: Path) -> None:
    land(emptied, CONTACTS, write(tmp_path / "a", CONTACT | {"Novelty": {"Depth": [1, {"a": 2}]}}))
    found = asked(emptied, "select other_fields -> 'Novelty' from staging.amazon_connect_contacts")
    assert found == [({"Depth": [1, {"a": 2}]},)]
