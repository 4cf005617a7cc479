"""Contact records and agent events as typed rows, and every way in which a file can be odd."""

from __future__ import annotations

import copy
import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import hypothesis
import polars as pl
import pytest
from hypothesis import given, strategies

from callhouse.errors import CallhouseError
from callhouse.sources.amazon_connect import contacts, fields, mapping, objects
from callhouse.sources.contract import RefusedError, Rejected

SHIPPED = Path(mapping.__file__).parent / "feeds"
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "amazon_connect"
CONTACT: dict[str, Any] = json.loads((FIXTURES / "contact.json").read_text("utf-8"))
EVENT: dict[str, Any] = json.loads((FIXTURES / "agent_event.json").read_text("utf-8"))


def feed(kind: str, folder: Path, extra: str = "") -> mapping.Feed:
    file = folder / f"amazon_connect_{kind}.yaml"
    file.write_text((SHIPPED / file.name).read_text("utf-8") + extra)
    return mapping.load(file, "Asia/Shanghai")


def landed(
    folder: Path, *contents: Any, kind: str = "contacts", extra: str = "", separator: str = "\n"
) -> tuple[pl.DataFrame, list[Rejected]]:
    """Rows and rejected ones of a file of these objects; texts stand there as they are."""
    lines = [item if isinstance(item, str) else json.dumps(item) for item in contents]
    return of_bytes(folder, (separator.join(lines) + "\n").encode(), kind=kind, extra=extra)


def of_bytes(
    folder: Path, content: bytes, *, kind: str = "contacts", extra: str = "", name: str = "part-0"
) -> tuple[pl.DataFrame, list[Rejected]]:
    path = folder / name
    path.write_bytes(content)
    with feed(kind, folder, extra).open(path) as file:
        seen = file.inspect()
        batches = list(file.batches(seen))
        assert file.is_unchanged(seen)
    rows = pl.concat(batch.rows for batch in batches)
    rejected = [row for batch in batches for row in batch.rejected]
    assert sum(batch.read for batch in batches) == rows.height + len(rejected)
    return rows, rejected


def one(folder: Path, *, kind: str = "contacts", extra: str = "", **changes: Any) -> dict[str, Any]:
    """The row of a record with changes."""
    content = copy.deepcopy(CONTACT if kind == "contacts" else EVENT)
    content |= changes
    rows, rejected = landed(folder, content, kind=kind, extra=extra)
    assert rejected == []
    row: dict[str, Any] = rows.row(0, named=True)
    return row


def at(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).timestamp() * 1_000_000)


# ------------------------------------------------------------------------------ contact records
def test_a_contact_record(tmp_path: Path) -> None:
    row = one(tmp_path)
    row_hash = row.pop("row_hash")
    assert len(row_hash) == 16
    assert {key: value for key, value in row.items() if value is not None} == {
        "line_number": 1,
        "contact_id": "11111111-aaaa-4aaa-8aaa-000000000002",
        "call_id": "11111111-aaaa-4aaa-8aaa-000000000001",
        "initial_contact_id": "11111111-aaaa-4aaa-8aaa-000000000001",
        "previous_contact_id": "11111111-aaaa-4aaa-8aaa-000000000001",
        "contact_channel": "VOICE",
        "initiation_method": "TRANSFER",
        "disconnect_reason": "CUSTOMER_DISCONNECT",
        "queue_id": "cards",
        "agent_id": "lin",
        "team_id": "Cards A",
        "team_name": "Cards A",
        "routing_profile": "Cards",
        "caller": "+8613800138000",
        "hotline_id": "+864000000001",
        "business_type": "cards",
        "priority": "gold",
        "survey_type": "csat",
        "survey_score": 4.0,
        "attributes": '{"business_type": "cards", "callback": "#######", "priority": "gold", '
        '"survey_score": "4", "survey_type": "CSAT"}',
        "other_fields": '{"Agent": {"AgentPauseDuration": 0, "NumberOfHolds": 1}, '
        '"QualityPreview": {"Dialled": "#######", "Score": 0.5}}',
        "connection_attempts": 2,
        "queue_seconds": 12.0,
        "talk_seconds": 60.0,
        "hold_seconds": 5.0,
        "acw_seconds": 20.0,
        "business_day": datetime.date(2025, 6, 4),
        "event_at": at("2025-06-03T16:00:10Z"),
        "connected_to_system_at": at("2025-06-03T16:00:10Z"),
        "enqueued_at": at("2025-06-03T16:00:11Z"),
        "dequeued_at": at("2025-06-03T16:00:23Z"),
        "connected_to_agent_at": at("2025-06-03T16:00:23Z"),
        "acw_started_at": at("2025-06-03T16:01:28Z"),
        "acw_ended_at": at("2025-06-03T16:01:48Z"),
        "disconnected_at": at("2025-06-03T16:01:28Z"),
        "last_update_at": at("2025-06-03T16:02:30Z"),
    }


def test_the_first_contact_names_its_call(tmp_path: Path) -> None:
    row = one(tmp_path, ContactId="c1", InitialContactId=None, InitiationMethod="INBOUND")
    assert row["call_id"] == "c1"


@pytest.mark.parametrize(
    ("method", "call_id"),
    [
        ("CALLBACK", "c3"),  # begins a call of its own, though it belongs to a chain
        ("CALLBACK_CUSTOMER_FIRST_QUEUED", "c3"),
        ("CALLBACK_CUSTOMER_FIRST_DIALED", "c2"),  # goes on with the one before it
        ("QUEUE_TRANSFER", "c1"),
        ("DISCONNECT", "c1"),
        ("SOMETHING_NEW", "c1"),
    ],
)
def test_call_of_a_contact(tmp_path: Path, method: str, call_id: str) -> None:
    row = one(
        tmp_path,
        ContactId="c3", InitialContactId="c1", PreviousContactId="c2", InitiationMethod=method,
    )  # fmt: skip
    assert row["call_id"] == call_id


def test_one_line_may_hold_many_objects(tmp_path: Path) -> None:
    second = CONTACT | {"ContactId": "c2", "Attributes": {"business_type": "}{"}}
    for separator in ("", " ", "\n", "\r\n", ",\n", "\n\n"):
        rows, rejected = landed(tmp_path, CONTACT, second, CONTACT, separator=separator)
        assert rejected == []
        assert rows["line_number"].to_list() == [1, 2, 3]
        assert rows["business_type"].to_list() == ["cards", "}{", "cards"]


def test_compressed(tmp_path: Path) -> None:
    content = gzip.compress(json.dumps(CONTACT).encode() * 3)
    rows, rejected = of_bytes(tmp_path, content, name="part-1.gz")
    assert (rows.height, rejected) == (3, [])


def test_long_pieces_are_cut_between_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callhouse.sources.files.BLOCK_BYTES", 1000)
    monkeypatch.setattr("callhouse.sources.files.LineFile._uncompressed.__defaults__", (1000,))
    monkeypatch.setattr(objects, "LONGEST_OBJECT", 5000)
    monkeypatch.setattr(objects, "OBJECTS_AT_ONCE", 7)
    odd = CONTACT | {"Attributes": {"business_type": "}{中文", "note": "x" * 900}}
    rows, rejected = landed(tmp_path, *[odd] * 50, separator="")
    assert rejected == []
    assert rows["line_number"].to_list() == list(range(1, 51))
    assert rows["business_type"].unique().to_list() == ["}{中文"]
    with pytest.raises(RefusedError, match="are no JSON object"):
        landed(tmp_path, '{"a": "' + "x" * 9000 + '"}')


SHORT = strategies.text(strategies.sampled_from('ab1234567+-: é\x7f\\"\n\0'), max_size=12)
VALUES = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | SHORT
    | strategies.floats(allow_nan=False, allow_infinity=False),
    lambda inner: strategies.lists(inner, max_size=3)
    | strategies.dictionaries(SHORT, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@hypothesis.settings(max_examples=100, derandomize=True, deadline=None)
@given(strategies.dictionaries(SHORT, VALUES, max_size=5), strategies.booleans())
def test_plain_objects_are_written_as_any_other(content: dict[str, Any], is_ascii: bool) -> None:
    """Their hash and what is kept of them come a faster way, and must be the very same."""
    line = json.dumps(content, ensure_ascii=is_ascii).encode()
    found, is_plain = objects.whole(line)
    assert found == content
    if is_plain:
        assert contacts.SORTED.encode(found) == contacts.CANONICAL.encode(found).encode()
    for secrets in ((), ("1234", "+123"), ("a1b",)):
        assert fields.kept(content, secrets, is_plain=is_plain) == fields.kept(content, secrets)


@pytest.mark.parametrize(
    "line", [b'{"a": 1.5}', b'{"a": "\\u00e9"}', b'{"a": "\x7f"}', b'{"a": 1e3}']
)
def test_what_writers_of_json_write_differently_is_not_plain(line: bytes) -> None:
    assert objects.whole(line)[1] is False
    assert objects.whole(b'{"a": [1, "b", null, true]}')[1] is True


def test_broken_json_goes_to_quarantine(tmp_path: Path) -> None:
    whole = json.dumps(CONTACT)
    rows, rejected = landed(
        tmp_path,
        CONTACT, whole[:80], "[1, 2]", whole[:-1] + ', "a": NaN}', "[" * 100_000, CONTACT,
        whole[:90] + "}" + whole,
    )  # fmt: skip
    assert rows["line_number"].to_list() == [1, 6, 8]
    assert [(row.line_number, row.code) for row in rejected] == [
        (2, "broken_json"), (3, "broken_json"), (4, "broken_json"), (5, "broken_json"),
        (7, "broken_json"),
    ]  # fmt: skip
    assert "part-0 line 2: is broken JSON" in rejected[0].reason
    assert rejected[0].content == whole[:80].encode()
    assert "line 7" in rejected[4].reason


def test_an_end_within_an_object(tmp_path: Path) -> None:
    content = json.dumps(CONTACT).encode()
    rows, rejected = of_bytes(tmp_path, content + b"\n" + content[:100])
    assert rows.height == 1
    assert [row.code for row in rejected] == ["cut_off"]
    assert of_bytes(tmp_path, content)[0].height == 1  # no line end, but a whole object


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ContactId": None}, "no_contact_id"),
        ({"InitiationTimestamp": None}, "unreadable_time"),
        ({"InitiationTimestamp": "yesterday"}, "unreadable_time"),
        ({"InitiationTimestamp": "1970-01-01T00:00:00Z"}, "implausible_day"),
        ({"InitiationTimestamp": "9999-12-31T23:59:59Z"}, "implausible_day"),
        ({"InitiationTimestamp": "0001-01-01T00:00:00Z"}, "implausible_day"),
    ],
)
def test_records_of_no_contact_go_to_quarantine(
    tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    rows, rejected = landed(tmp_path, CONTACT | changes)
    assert rows.height == 0
    assert [row.code for row in rejected] == [code]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="is empty"):
        of_bytes(tmp_path, b"")


def test_unknown_codes_are_kept_and_told(tmp_path: Path) -> None:
    row = one(
        tmp_path,
        Channel="HOLOGRAM", InitiationMethod="TELEPATHY", DisconnectReason="FELL, ASLEEP",
        Attributes={"queue_exit": "boredom", "survey_type": "stars", "voicemail": "LEFT"},
    )  # fmt: skip
    assert row["contact_channel"] == "HOLOGRAM"
    assert row["initiation_method"] == "TELEPATHY"
    assert row["disconnect_reason"] == "FELL, ASLEEP"
    assert (row["queue_exit"], row["survey_type"], row["voicemail"]) == (None, None, "left")
    assert row["data_issues"].split(",") == [
        "unknown:initiation_method=TELEPATHY",
        "unknown:contact_channel=HOLOGRAM",
        "unknown:disconnect_reason",
        "unknown:queue_exit=boredom",
        "unknown:survey_type=stars",
    ]


def test_odd_values_are_empty_and_told(tmp_path: Path) -> None:
    row = one(
        tmp_path,
        DisconnectTimestamp="soon", LastUpdateTimestamp=None, AgentConnectionAttempts="many",
        Agent=CONTACT["Agent"] | {"CustomerHoldDuration": -5, "AgentInteractionDuration": True},
        Queue="cards", Attributes={"survey_type": "nps", "survey_score": "11"},
    )  # fmt: skip
    assert row["last_update_at"] == row["event_at"]
    for name in ("hold_seconds", "talk_seconds", "queue_id", "survey_score", "disconnected_at"):
        assert row[name] is None
    assert sorted(row["data_issues"].split(",")) == [
        "missing:last_update_at", "out_of_scale:survey_score", "unreadable:connection_attempts",
        "unreadable:disconnected_at", "unreadable:hold_seconds", "unreadable:talk_seconds",
    ]  # fmt: skip


ODD: tuple[Any, ...] = (5, 1.5, True, "", [], ["x"], {}, {"a": 1}, 10**400, "\0")


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", ["contacts", "agent_events"])
def test_no_value_of_an_odd_type_is_fatal(tmp_path: Path, kind: str, odd: Any) -> None:
    """Each field of each record in turn."""

    def spoilt(content: Any) -> list[Any]:
        found = []
        for key, value in content.items():
            found.append(content | {key: odd})
            if isinstance(value, dict):
                found += [content | {key: below} for below in spoilt(value)]
            elif isinstance(value, list) and value:
                found += [content | {key: [below]} for below in spoilt(value[0])]
        return found

    records = spoilt(CONTACT if kind == "contacts" else EVENT)
    rows, rejected = landed(tmp_path, *records, kind=kind)
    assert rows.height + len(rejected) == len(records) > 20
    assert {row.code for row in rejected} <= {
        "no_contact_id", "no_event", "unreadable_time", "no_agent",
    }  # fmt: skip


def test_numbers_and_depths_that_json_allows(tmp_path: Path) -> None:
    text = json.dumps(CONTACT)[:-1]
    deep = "[" * 400 + "]" * 400
    rows, rejected = landed(tmp_path, text + ', "Huge": 1e999}', text + f', "Deep": {deep}}}')
    assert json.loads(rows["other_fields"][0])["Huge"] == "inf"
    assert [row.code for row in rejected] == ["broken_json"] * len(rejected)
    assert rows.height + len(rejected) == 2


def test_an_agent_s_own_queue_is_none(tmp_path: Path) -> None:
    queue = {"ARN": "arn:aws:connect:eu-west-1:1:instance/i/queue/agent/a1", "Name": None}
    assert one(tmp_path, Queue=CONTACT["Queue"] | queue)["queue_id"] is None
    nameless = {"ARN": "arn:aws:connect:eu-west-1:1:instance/i/queue/q1", "Name": None}
    assert one(tmp_path, Queue=CONTACT["Queue"] | nameless)["queue_id"] == "q1"


@pytest.mark.parametrize(
    ("endpoint", "caller"),
    [
        ({"Address": "+8613800138000", "Type": "TELEPHONE_NUMBER"}, "+8613800138000"),
        ({"Address": "Anonymous", "Type": "TELEPHONE_NUMBER"}, None),
        ({"Address": "lin@example.com", "Type": "EMAIL"}, None),
        ({"Address": None, "Type": "TELEPHONE_NUMBER"}, None),
        (None, None),
        ("+8613800138000", None),
    ],
)
def test_callers(tmp_path: Path, endpoint: Any, caller: str | None) -> None:
    row = one(tmp_path, CustomerEndpoint=endpoint)
    assert row["caller"] == caller
    others = {key: value for key, value in row.items() if key != "caller"}
    assert "13800138000" not in str(others)
    assert "example.com" not in str(others)


def test_no_number_is_kept_in_clear(tmp_path: Path) -> None:
    spellings = {
        "plain": "13800138000",
        "set_apart": "call +86 (138) 0013-8000 please",
        "wide": "１３８００１３８０００",
        "number": 13800138000,
        "nested": [{"deep": ["86.138.0013.8000"]}],
        "13800138000": "as a key",
        "business_type": "loans 13800138000",
        "short": 4711,
        "day": "2025-06-03T16:00:10Z",
        "contact": "2e825303-0000-4c5e-b9a0-112233445566",
    }
    row = one(tmp_path, Attributes=spellings, Surprise=spellings)
    assert row["business_type"] == "loans #######"
    for name in ("attributes", "other_fields"):
        assert "8000" not in row[name]
        assert "８０００" not in row[name]
        kept = json.loads(row[name])
        kept = kept.get("Surprise", kept)
        assert kept["short"] == 4711
        assert kept["day"] == spellings["day"]
        assert kept["contact"] == spellings["contact"]


def test_a_short_caller_is_masked_where_else_it_stands(tmp_path: Path) -> None:
    row = one(
        tmp_path,
        CustomerEndpoint={"Address": "95588", "Type": "TELEPHONE_NUMBER"},
        Attributes={"from": "95588 again"},
    )
    assert row["attributes"] == '{"from": "####### again"}'


def test_texts_that_a_database_cannot_hold(tmp_path: Path) -> None:
    row = one(tmp_path, Attributes={"business_type": "ca\0rds", "b\0d": "\ud800"})
    assert row["business_type"] == "ca\ufffdrds"
    assert json.loads(row["attributes"]) == {"business_type": "ca\ufffdrds", "b\ufffdd": "?"}
    content = json.dumps(CONTACT).encode().replace(b'"gold"', b'"g\xffld"')
    rows, _ = of_bytes(tmp_path, content)
    assert rows["priority"].to_list() == ["g?ld"]


def test_the_order_of_keys_makes_no_other_record(tmp_path: Path) -> None:
    turned = dict(reversed(CONTACT.items()))
    newer = CONTACT | {"LastUpdateTimestamp": "2025-06-03T17:00:00Z"}
    rows, _ = landed(tmp_path, CONTACT, turned, newer)
    assert rows["row_hash"][0] == rows["row_hash"][1] != rows["row_hash"][2]


def test_names_by_the_feed(tmp_path: Path) -> None:
    extra = 'hotlines: {"+864000000001": service}\nhierarchy: {team: 1, region: 2}\n'
    row = one(tmp_path, extra=extra)
    assert (row["hotline_id"], row["team_id"]) == ("service", "CN-GD")
    assert row["agent_region_code"] == "Cards A"


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("hierarchy: {team: 6}\n", "hierarchy.team: '6' is not one of 1, 2, 3, 4, 5"),
        ("hierarchy: {teams: 1}\n", "unknown key.*did you mean 'team'"),
        ("mood: good\n", "unknown key"),
    ],
)
def test_mistakes_in_a_mapping(tmp_path: Path, extra: str, problem: str) -> None:
    with pytest.raises(CallhouseError, match=problem):
        feed("contacts", tmp_path, extra)


def test_other_file_names_are_refused(tmp_path: Path) -> None:
    found = feed("contacts", tmp_path, 'files: ["contacts*"]\n')
    assert found.record_for("contacts-1.gz") is mapping.CONTACTS
    with pytest.raises(RefusedError, match="takes no file of this name"):
        found.record_for("agents-1.gz")


# ------------------------------------------------------------------------------ agent events
def test_an_agent_event(tmp_path: Path) -> None:
    row = one(tmp_path, kind="agent_events")
    row.pop("row_hash")
    assert {key: value for key, value in row.items() if value is not None} == {
        "line_number": 1,
        "event_id": "22222222-bbbb-4bbb-8bbb-000000000001",
        "event_type": "STATE_CHANGE",
        "agent_id": "lin",
        "agent_name": "Lin Yue",
        "team_id": "Cards A",
        "team_name": "Cards A",
        "routing_profile": "Cards",
        "status_name": "Available",
        "status_type": "ROUTABLE",
        "call_id": "11111111-aaaa-4aaa-8aaa-000000000001",
        "contact_id": "11111111-aaaa-4aaa-8aaa-000000000002",
        "contact_state": "CONNECTED",
        "initiation_method": "TRANSFER",
        "queue_id": "cards",
        "previous_status_name": "Lunch",
        "previous_status_type": "CUSTOM",
        "business_day": datetime.date(2025, 6, 4),
        "event_at": at("2025-06-03T16:00:23.500Z"),
        "previous_started_at": at("2025-06-03T15:30:00Z"),
    }


def test_the_conversation_goes_before_other_contacts(tmp_path: Path) -> None:
    def contact(state: str, channel: str = "VOICE") -> dict[str, Any]:
        return {"ContactId": f"{channel}-{state}", "Channel": channel, "State": state}

    def main(*contacts: dict[str, Any]) -> Any:
        row = one(
            tmp_path,
            kind="agent_events",
            CurrentAgentSnapshot=EVENT["CurrentAgentSnapshot"] | {"Contacts": list(contacts)},
        )
        return row["contact_id"]

    assert main() is None
    assert main(contact("ENDED"), contact("CONNECTED")) == "VOICE-CONNECTED"
    assert main(contact("CONNECTED", "CHAT"), contact("ENDED")) == "VOICE-ENDED"
    assert main(contact("CONNECTED_ONHOLD"), contact("CONNECTED")) == "VOICE-CONNECTED"


def test_a_call_back_is_a_call_of_its_own_for_the_agent_too(tmp_path: Path) -> None:
    contact = EVENT["CurrentAgentSnapshot"]["Contacts"][0] | {"InitiationMethod": "CALLBACK"}
    row = one(
        tmp_path,
        kind="agent_events",
        CurrentAgentSnapshot=EVENT["CurrentAgentSnapshot"] | {"Contacts": [contact]},
    )
    assert row["call_id"] == row["contact_id"] == "11111111-aaaa-4aaa-8aaa-000000000002"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"EventId": None}, "no_event"),
        ({"EventType": ""}, "no_event"),
        ({"EventTimestamp": "later"}, "unreadable_time"),
        ({"EventTimestamp": "2999-01-01T00:00:00Z"}, "implausible_day"),
        ({"CurrentAgentSnapshot": None, "PreviousAgentSnapshot": None, "AgentARN": None},
         "no_agent"),
    ],
)  # fmt: skip
def test_events_of_nobody_go_to_quarantine(
    tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    rows, rejected = landed(tmp_path, EVENT | changes, kind="agent_events")
    assert rows.height == 0
    assert [row.code for row in rejected] == [code]


def test_unknown_things_of_an_event_are_kept_and_told(tmp_path: Path) -> None:
    row = one(
        tmp_path,
        kind="agent_events",
        EventType="DAY_DREAM",
        Mood="good",
        CurrentAgentSnapshot=EVENT["CurrentAgentSnapshot"] | {"Seat": 7},
    )
    assert row["event_type"] == "DAY_DREAM"
    assert row["data_issues"] == "unknown:event_type=DAY_DREAM"
    assert row["other_fields"] == '{"Mood": "good", "Seat": 7}'


def test_an_agent_without_a_snapshot_is_named_by_the_arn(tmp_path: Path) -> None:
    row = one(tmp_path, kind="agent_events", CurrentAgentSnapshot=None, PreviousAgentSnapshot=None)
    assert (row["agent_id"], row["status_type"]) == ("a1", None)


def test_masks() -> None:
    assert fields.masked("order 123456 of 2025-06-03") == "order 123456 of #######"
    assert fields.masked("2025-06-03T16:00:10.123Z") == "2025-06-03T16:00:10.123Z"
    assert fields.masked(None) is None


@hypothesis.settings(max_examples=30, derandomize=True, deadline=None)
@given(
    strategies.lists(
        strategies.tuples(
            strategies.text(strategies.characters(exclude_categories=["Cs"]), max_size=12),
            strategies.sampled_from(["", "\n", " ", ",\n", "\r\n", "\n\n"]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_objects_are_found_whatever_stands_in_and_between_them(
    tmp_path_factory: pytest.TempPathFactory, contents: list[tuple[str, str]]
) -> None:
    """Braces, quotes and line ends of a text are no border, and no separator is needed."""
    parts = [
        json.dumps(CONTACT | {"ContactId": f"id{number}", "Note": "}{" + text}, ensure_ascii=False)
        + separator
        for number, (text, separator) in enumerate(contents)
    ]
    rows, rejected = of_bytes(tmp_path_factory.mktemp("objects"), "".join(parts).encode())
    assert rejected == []
    assert rows["contact_id"].to_list() == [f"id{number}" for number in range(len(parts))]


NUMBERS = ("1e400", "-0", "-0.0", "1E5", "9" * 30, "9" * 5000, "01", "1.", "NaN", "0.1", "4.9e-324")
TEXTS = (r'"\ud800"', r'"\ud83d\ude00"', '"\x01"', '"\x7f"', '"\udcff"', r'"\u0000"', '"é"')


@pytest.mark.parametrize("value", [*NUMBERS, *TEXTS, "[{}]", "{", "null", ' {"b": 1} '])
def test_an_object_is_read_alike_alone_and_among_others(tmp_path: Path, value: str) -> None:
    """Two ways to read one: each gives the same row, or says the same of it."""
    body = json.dumps(CONTACT | {"Note": "?"}).replace('"?"', value)
    line = body.encode("utf-8", "surrogateescape")
    alone, set_aside = of_bytes(tmp_path, line + b"\n")
    among, set_aside_too = of_bytes(tmp_path, line + b",\n")
    assert alone.equals(among)
    assert [row.code for row in set_aside] == [row.code for row in set_aside_too]
