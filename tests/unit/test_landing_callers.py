"""Callers: one token per number however it is written, its region and carrier, nothing in clear."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import polars as pl
import pytest

from callhouse import settings as settings_module
from callhouse.landing.callers import Callers, Cipher, PhoneBook, masks
from callhouse.landing.store import preview
from callhouse.settings import Settings
from callhouse.sources.delimited.mapping import Column
from callhouse.sources.delimited.records import LEGS


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_module.load({"CALLHOUSE_HOME": str(tmp_path)})


def callers(settings: Settings, kind: str = "phone") -> Callers:
    column = Column(
        LEGS.by_name["caller"], ("caller",), caller_kind=kind,
        country="CN" if kind == "phone" else None,
    )  # fmt: skip
    return Callers(settings, "hotline", column)


def replaced(callers: Callers, *numbers: str | None) -> list[dict[str, object]]:
    texts = dict.fromkeys(("caller_region_code", "caller_carrier", "data_issues"))
    frame = pl.DataFrame(
        [{"caller": number, **texts} for number in numbers],
        schema=dict.fromkeys(("caller", *texts), pl.String),
    )
    rows: list[dict[str, object]] = callers.replace(frame).to_dicts()
    return rows


@pytest.mark.parametrize(
    ("text", "number", "region"),
    [
        ("13800138000", "+8613800138000", "CN-BJ"),
        ("+86 138-0013-8000", "+8613800138000", "CN-BJ"),
        ("008613800138000", "+8613800138000", "CN-BJ"),
        ("013580000000", "+8613580000000", "CN-GD"),
        ("020 8765 4321", "+862087654321", "CN-GD"),
        ("０２１６２８８８８８８", "+862162888888", "CN-SH"),
        ("+85221234567", "+85221234567", "HK"),
        ("+97231234567", "+97231234567", "IL"),
        ("+1 415 555 2671", "+14155552671", "US"),
    ],
)
def test_numbers_are_normalised(text: str, number: str, region: str) -> None:
    found = PhoneBook("CN").look_up(pl.Series([text])).row(0, named=True)
    assert (found["number"], found["region"], found["is_phone"]) == (number, region, True)


def test_a_remembered_prefix_gives_what_the_library_gives() -> None:
    book, texts = PhoneBook("CN"), ["13580001111", "13580002222", "13580009999", None, "office"]
    together = book.look_up(pl.Series(texts))
    assert len(book._known) == 1
    assert together.rows() == [
        PhoneBook("CN").look_up(pl.Series([text], dtype=pl.String)).row(0) for text in texts
    ]
    assert together.get_column("number").to_list()[2:] == ["+8613580009999", None, None]
    assert book.look_up(pl.Series(["13580003333"])).row(0)[0] == "+8613580003333"
    assert len(book._known) == 1


def test_token_is_the_keyed_hash_and_the_same_for_every_spelling(settings: Settings) -> None:
    rows = replaced(callers(settings), "13800138000", "+86 138 0013 8000", None, "13800138001")
    key = settings.secret("caller_key").encode()
    expected = hmac.digest(key, b"phone:+8613800138000", "sha256")[:16]
    assert [row["caller_token"] for row in rows[:3]] == [expected, expected, None]
    assert rows[3]["caller_token"] not in (expected, None)
    assert [row["caller_key_version"] for row in rows] == [1, 1, None, 1]
    assert rows[0]["caller_carrier"] == "China Mobile"
    assert "caller" not in rows[0]


def test_ids_belong_to_their_source(settings: Settings) -> None:
    row = replaced(callers(settings, "id"), "7000001")[0]
    key = settings.secret("caller_key").encode()
    assert row["caller_token"] == hmac.digest(key, b"id:hotline:7000001", "sha256")[:16]
    assert row["caller_region_code"] is None


def test_short_codes_keep_a_token_and_words_do_not(settings: Settings) -> None:
    rows = replaced(callers(settings), "101", "anonymous")
    assert rows[0]["caller_token"] is not None
    assert rows[1]["caller_token"] is None
    assert [row["data_issues"] for row in rows] == ["irregular:caller"] * 2


def test_found_callers_are_encrypted_once(settings: Settings) -> None:
    found = callers(settings)
    replaced(found, "13800138000", "+8613800138000")
    replaced(found, "13800138000")
    [(token, kind, content, mask)] = found.take_found()
    assert mask == "138****8000"
    assert found.take_found() == []
    assert kind == "phone" and b"13800138000" not in content
    assert Cipher(settings).decrypt(content) == b"+8613800138000"
    assert token != hashlib.sha256(b"phone:+8613800138000").digest()[:16]


@pytest.mark.parametrize(
    ("kind", "text", "mask"),
    [
        ("phone", "13800138000", "138****8000"),
        ("phone", "+86 138-0013-8000", "138****8000"),
        ("phone", "020 8765 4321", "+86 ******4321"),
        ("phone", "+85221234567", "+852 ****4567"),
        ("phone", "+1 415 555 2671", "+1 ******2671"),
        ("phone", "10086", "+86 ****6"),
        ("phone", "101", "****"),
        ("id", "7000001", "****01"),
        ("id", "K12", "****"),
    ],
)
def test_what_a_mask_shows(settings: Settings, kind: str, text: str, mask: str) -> None:
    found = callers(settings, kind)
    replaced(found, text)
    [(_, kept_kind, content, shown)] = found.take_found()
    assert shown == mask
    # The same where it is worked out later, of what was kept.
    assert masks([(kept_kind, Cipher(settings).decrypt(content).decode())]) == [mask]


def test_preview_shows_no_digit() -> None:
    shown = preview("13812345678\t１３８\t2024-05-01\0".encode() + b"\xff" * 500)
    assert not any(character.isdigit() for character in shown)
    assert "\0" not in shown and len(shown) <= 200


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"1,ann.li@mail.example,2", "#,###################,#"),
        (b'{"Address": "sip:ann@host", "Channel": "VOICE"}',
         '{"Address": "sip:########", "Channel": "VOICE"}'),
        (b'"","""Li, Ann"" <1380>","from-trunk"', '"",###################","from-trunk"'),
    ],
    ids=["mail", "sip", "caller id with a name"],
)  # fmt: skip
def test_preview_shows_no_address_and_no_name_of_a_number(content: bytes, shown: str) -> None:
    assert preview(content) == shown


def test_preview_of_ids_shows_only_the_shape() -> None:
    assert preview("K_ANN-李\t7;x@y".encode(), has_ids=True) == "#_###-#\t#;#@#"


def test_an_address_across_the_end_of_the_preview_is_masked() -> None:
    assert "ann" not in preview(b"-" * 195 + b",annann@mail.example")
