"""What cannot be read, from landing to a person's decision: masked, counted once, never lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from callhouse import cli, landing, warehouse
from callhouse.errors import CallhouseError
from callhouse.landing import quarantine
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.transform import state

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
BANK_LINES = (FIXTURES / "delimited" / "anonymous_bank.txt").read_text().splitlines(keepends=True)
BANK = "anonymous_bank"
NUMBER, ADDRESS, NAME = "13812345678", "ann.li@mail.example", "Ann Li"
# Per feed a line that nobody can read, with a caller in it.
UNREADABLE = {
    "sample_hotline": f"c1,1,{NUMBER},{ADDRESS}\n",
    "asterisk_queue_log": f"yesterday|c1|support|NONE|ENTERQUEUE||{NUMBER}|{ADDRESS}\n",
    "asterisk_cdr": f'"","{NUMBER}","""{NAME}"" <{NUMBER}>","{ADDRESS}"\n',
    "asterisk_cel": f'"CHAN_START","{NUMBER}","""{NAME}"" <{NUMBER}>"\n',
    "amazon_connect_contacts": f'{{"CustomerEndpoint": "+86{NUMBER}", "Mail": "{ADDRESS}"\n',
    "amazon_connect_agent_events": f'{{"Contact": "sip:{ADDRESS}", "From": "{NUMBER}"\n',
}
HOTLINE_HEAD = (
    "call_id,leg,hotline,caller,channel,business_type,arrived,ivr_start,ivr_end,ivr_s,queue,"
    "queue_start,queue_end,wait_s,ring_s,outcome,stage,agent,answered,released,talk_s,hold_s,"
    "acw_s,transfer,hangup_by,ended\n"
)
NAMES = {
    "sample_hotline": "calls_1.csv",
    "asterisk_cdr": "Master.csv",
    "asterisk_queue_log": "queue_log",
}


@pytest.fixture(autouse=True)
def empty(cluster: postgres.Cluster, settings: Settings) -> None:
    clear(settings)


def clear(settings: Settings) -> None:
    """Nothing has landed yet."""
    with warehouse.connect(settings) as connection:
        registry.register(connection, *registry.feeds(settings))
        connection.execute("set role callhouse_owner")
        tables = connection.execute(
            "select oid::regclass::text from pg_class where relnamespace = 'staging'::regnamespace "
            "and relkind in ('r', 'p') and not relispartition"
        ).fetchall()
        names = ", ".join(name for (name,) in tables)
        connection.execute(f"truncate {names}, pii.callers, ops.units cascade".encode())
        connection.execute("delete from ops.dirty_marks")


def land(settings: Settings, feed: str, path: Path) -> landing.UnitResult:
    result = landing.land(settings, feed, [path])[0]
    assert result.status == "landed", result.reason
    assert all(item.is_balanced for item in quarantine.ledger(settings))
    return result


def bank_with_bad_rows(tmp_path: Path) -> Path:
    """Of 11 calls two have a date that is none, and one a column too many."""
    lines = list(BANK_LINES)
    lines[1] = lines[1].replace("990301", "990231")
    lines[2] = lines[2].replace("990301", "990231")
    lines[3] = lines[3].rstrip("\n") + "\textra\n"
    path = tmp_path / "march.txt"
    path.write_text("".join(lines))
    return path


def run(settings: Settings, *arguments: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_settings", lambda: settings)
        return CliRunner().invoke(cli.app, ["quarantine", *arguments])


@pytest.mark.parametrize("feed", UNREADABLE)
def test_no_view_shows_a_caller(settings: Settings, tmp_path: Path, feed: str) -> None:
    path = tmp_path / NAMES.get(feed, "records.txt")
    path.write_text((HOTLINE_HEAD if feed == "sample_hotline" else "") + UNREADABLE[feed])
    unit = land(settings, feed, path)
    assert unit.quarantined == 1
    views = [
        run(settings, "list").stdout,
        run(settings, "list", "--json").stdout,
        run(settings, "show", str(unit.unit_id)).stdout,
        run(settings, "show", str(unit.unit_id), "--json").stdout,
    ]
    for view in views:
        assert "#" in view  # the row is there
        for secret in (NUMBER, NUMBER[:7], ADDRESS, "ann.li", NAME):
            assert secret not in view


def test_ids_of_callers_are_masked_whatever_they_are_made_of(
    settings: Settings, tmp_path: Path
) -> None:
    lines = [BANK_LINES[0], BANK_LINES[1].rstrip("\n") + "\tKAREN\n", BANK_LINES[2]]
    path = tmp_path / "march.txt"
    path.write_text("".join(lines))
    unit = land(settings, BANK, path)
    assert unit.unit_id is not None
    [row] = quarantine.show(settings, unit.unit_id)
    assert "#####" in row.preview
    assert not any(character.isalnum() for character in row.preview)


def test_groups_come_with_the_most_frequent_first_and_can_be_narrowed(
    settings: Settings, tmp_path: Path
) -> None:
    unit = land(settings, BANK, bank_with_bad_rows(tmp_path))
    found = quarantine.groups(settings)
    assert [(g.source, g.reason_code, g.rows, g.newest_unit) for g in found] == [
        (BANK, "bad_date", 2, unit.unit_id), (BANK, "column_count", 1, unit.unit_id),
    ]  # fmt: skip
    assert found[0].column == "date"
    printed = run(settings, "list", "--source", BANK, "--reason", "column_count")
    assert "column_count" in printed.stdout and "bad_date" not in printed.stdout
    assert f"{BANK}: read 11 = staged 8 + open 3 + discarded 0 + duplicates 0" in printed.stdout
    assert json.loads(run(settings, "list", "--since", "2999-01-01", "--json").stdout)[
        "groups"
    ] == []  # fmt: skip
    assert len(json.loads(run(settings, "list", "--since", "2020-01-01", "--json").stdout)[
        "groups"
    ]) == 2  # fmt: skip
    with pytest.raises(CallhouseError, match="nothing of 'bnak' was ever landed"):
        quarantine.ledger(settings, "bnak")


def test_a_discarded_row_stays_stored_and_is_open_no_more(
    settings: Settings, tmp_path: Path
) -> None:
    unit = land(settings, BANK, bank_with_bad_rows(tmp_path)).unit_id
    assert unit is not None
    answer = run(settings, "discard", "--unit", str(unit), "--line", "4", "--reason", "test call")
    assert (answer.exit_code, answer.stdout) == (0, f"1 rows of unit {unit} discarded\n")
    [ledger] = quarantine.ledger(settings, BANK)
    assert (ledger.read, ledger.staged, ledger.open, ledger.discarded) == (11, 8, 2, 1)
    assert ledger.is_balanced
    assert [group.reason_code for group in quarantine.groups(settings)] == ["bad_date"]
    [row] = quarantine.show(settings, unit, 4)
    assert row.discard_reason == "test call" and row.discarded_by == cli._account()
    assert row.discarded_at is not None
    with pytest.raises(CallhouseError, match=f"unit {unit} line 4 has no open row"):
        quarantine.discard(settings, unit, 4, "again", "someone else")
    assert quarantine.show(settings, unit, 4) == [row]

    assert quarantine.discard(settings, unit, None, "the export is mended", "owner") == 2
    [ledger] = quarantine.ledger(settings, BANK)
    assert (ledger.open, ledger.discarded, ledger.is_balanced) == (0, 3, True)
    assert quarantine.show(settings, unit, 4) == [row]  # as the first person has left it
    with warehouse.connect(settings) as connection:
        kept = warehouse.one(
            connection, "select count(*), min(length(content)) from ops.quarantine"
        )
    assert kept[0] == 3 and kept[1] > 0
    [status] = [s for s in state.data_state(settings)["freshness"] if s["source"] == BANK]
    assert (status["quarantined"], status["open_in_quarantine"], status["discarded"]) == (3, 0, 3)


def test_status_tells_what_is_open(settings: Settings, tmp_path: Path) -> None:
    land(settings, BANK, bank_with_bad_rows(tmp_path))
    [line] = [s for s in state.sentences(state.data_state(settings)) if s.startswith(BANK)]
    assert "read 11, staged 8, quarantined 3 (3 open), duplicates 0" in line


@pytest.mark.parametrize("whole", [True, False], ids=["whole file", "mended rows alone"])
def test_rows_come_back_with_the_mended_file_and_none_counts_twice(
    settings: Settings, tmp_path: Path, whole: bool
) -> None:
    """The way of docs/operators/data-quality.md."""
    bad = land(settings, BANK, bank_with_bad_rows(tmp_path)).unit_id
    assert bad is not None
    path = tmp_path / "march_mended.txt"
    path.write_text("".join(BANK_LINES if whole else BANK_LINES[:4]))
    mended = land(settings, BANK, path)
    assert (mended.staged, mended.duplicates) == (3, 8 if whole else 0)
    quarantine.discard(settings, bad, None, f"landed as unit {mended.unit_id}", "owner")
    [ledger] = quarantine.ledger(settings, BANK)
    assert (ledger.staged, ledger.open, ledger.discarded, ledger.is_balanced) == (11, 0, 3, True)
    with warehouse.connect(settings) as connection:
        counts = warehouse.one(
            connection,
            "select count(*), count(distinct row_hash), count(superseded_by) "
            "from staging.delimited_legs",
        )
    assert counts == (11, 11, 0)


def _readable() -> dict[str, list[str]]:
    """Per feed two lines that can be read."""
    contact = json.loads((FIXTURES / "amazon_connect" / "contact.json").read_text())
    event = json.loads((FIXTURES / "amazon_connect" / "agent_event.json").read_text())
    asterisk = {
        feed: (FIXTURES / "asterisk" / name).read_text().splitlines(keepends=True)[:2]
        for feed, name in (("asterisk_cdr", "cdr_master.csv"), ("asterisk_cel", "cel_master.csv"))
    }
    return {
        BANK: BANK_LINES[1:3],
        **asterisk,
        "asterisk_queue_log": [
            f"177241320{n}|1772413200.{n}|support|NONE|ENTERQUEUE||{NUMBER}|1\n" for n in (1, 2)
        ],
        "amazon_connect_contacts": [
            json.dumps(contact | {"ContactId": f"contact-{n}"}) + "\n" for n in (1, 2)
        ],
        "amazon_connect_agent_events": [
            json.dumps(event | {"EventId": f"event-{n}"}) + "\n" for n in (1, 2)
        ],
    }


@pytest.mark.parametrize("feed", _readable())
@pytest.mark.parametrize("whole", [True, False], ids=["whole file", "mended row alone"])
def test_of_every_vendor_the_mended_row_gives_what_a_clean_file_gives(
    settings: Settings, tmp_path: Path, feed: str, whole: bool
) -> None:
    good, mended = _readable()[feed]
    head = BANK_LINES[0] if feed == BANK else ""
    path = tmp_path / NAMES.get(feed, "records.txt")
    table = registry.feed(settings, feed).record_for(path.name).table

    def staged() -> list[Any]:
        with warehouse.connect(settings) as connection:
            return connection.execute(
                f"select to_jsonb(t) - 'unit_id' - 'line_number' from {table} as t "
                "order by row_hash".encode()
            ).fetchall()

    path.write_text(head + good + mended[:12] + "\n")
    bad = land(settings, feed, path)
    assert (bad.staged, bad.quarantined) == (1, 1)
    assert bad.unit_id is not None
    path.write_text(head + (good if whole else "") + mended)
    later = land(settings, feed, path)
    assert (later.staged, later.duplicates) == (1, int(whole))
    quarantine.discard(settings, bad.unit_id, None, f"landed as unit {later.unit_id}", "owner")
    [ledger] = quarantine.ledger(settings, later.source)
    assert (ledger.staged, ledger.open, ledger.discarded, ledger.is_balanced) == (2, 0, 1, True)
    found = staged()

    clear(settings)
    path.write_text(head + good + mended)
    assert land(settings, feed, path).staged == 2
    assert found == staged()


def test_rows_that_a_mapping_kept_out_come_back_when_it_is_mended(
    settings: Settings, tmp_path: Path
) -> None:
    shipped = Path(registry.__file__).parent / "delimited" / "feeds" / f"{BANK}.yaml"
    feed = settings.feeds_directory / "branch.yaml"
    feed.parent.mkdir(exist_ok=True)
    mapping = shipped.read_text().replace(f"feed: {BANK}", "feed: branch")
    feed.write_text(mapping)
    lines = list(BANK_LINES)
    for number in (2, 4):
        lines[number] = lines[number].replace("AGENT", "ROBOT")
    path = tmp_path / "march.txt"
    path.write_text("".join(lines))
    try:
        bad = land(settings, "branch", path)
        assert bad.unit_id is not None
        kept = [row.line_number for row in quarantine.show(settings, bad.unit_id)]
        assert kept == [number + 1 for number in (2, 4) if "ROBOT" in lines[number]] != []

        feed.write_text(mapping.replace("{AGENT: answered,", "{AGENT: answered, ROBOT: answered,"))
        again = landing.land(settings, "branch", [path])[0]
        assert again.status == "already_landed"  # its content is known: nothing is read twice
        cut = tmp_path / "march_mended.txt"
        cut.write_text("".join([lines[0], *(lines[number - 1] for number in kept)]))
        mended = land(settings, "branch", cut)
        assert (mended.staged, mended.quarantined) == (len(kept), 0)
        quarantine.discard(settings, bad.unit_id, None, f"unit {mended.unit_id}", "owner")
        [ledger] = quarantine.ledger(settings, "branch")
        assert (ledger.staged, ledger.open, ledger.is_balanced) == (11, 0, True)
    finally:
        feed.unlink()


def test_a_lost_row_is_told(settings: Settings, tmp_path: Path) -> None:
    unit = land(settings, BANK, bank_with_bad_rows(tmp_path)).unit_id
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute(
            "delete from ops.quarantine where unit_id = %s and line_number = 4", [unit]
        )
    answer = run(settings, "list")
    assert answer.exit_code == cli.NEEDS_A_PERSON
    assert f"{BANK}: read 11 IS NOT staged 8 + open 2" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("show", "12:"), "'12:' is no row: write UNIT or UNIT:LINE"),
        (("show", "--json", "x"), "'x' is no row"),
        (("show", "999999"), "unit 999999 has no row in quarantine"),
        (("discard", "--unit", "999999", "--reason", "x"), "unit 999999 has no open row"),
        (("discard", "--unit", "1", "--reason", "  "), "a row is discarded with a reason"),
        (("list", "--since", "yesterday"), "'yesterday' is no date"),
    ],
)
def test_a_wrong_question_gets_one_sentence(
    settings: Settings, arguments: tuple[str, ...], problem: str
) -> None:
    answer = run(settings, *arguments)
    assert isinstance(answer.exception, CallhouseError)
    assert str(answer.exception).startswith(problem)


def test_nobody_unmasks_and_a_reason_is_asked_for(settings: Settings) -> None:
    assert run(settings, "show", "--plain", "1:2").exit_code == 2
    assert run(settings, "discard", "--unit", "1").exit_code == 2


def test_an_older_instance_is_brought_up_to_date_and_again(
    settings: Settings, cluster: postgres.Cluster, tmp_path: Path
) -> None:
    unit = land(settings, BANK, bank_with_bad_rows(tmp_path)).unit_id
    assert unit is not None
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute(
            "drop view ops.source_ledger cascade; alter table ops.quarantine "
            "drop column discarded_at cascade, drop column discarded_by, drop column discard_reason"
        )
    superuser = (
        f"host=127.0.0.1 port={settings.postgres_port} user=postgres password={cluster.password}"
    )
    warehouse.bootstrap(settings, superuser)
    assert len(quarantine.show(settings, unit)) == 3
    quarantine.discard(settings, unit, 4, "test call", "owner")
    before = quarantine.show(settings, unit)
    warehouse.bootstrap(settings, superuser)
    assert quarantine.show(settings, unit) == before
    with (
        pytest.raises(psycopg.errors.CheckViolation, match="quarantine_discard"),
        warehouse.connect(settings) as connection,
    ):
        connection.execute("update ops.quarantine set discard_reason = null")
