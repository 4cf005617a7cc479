"""What is redacted in free text, what stays, and how much of a corpus of its own is found."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from callhouse.security import redaction
from callhouse.security.redaction import redact_rows, redacted, redacted_json
from callhouse.settings import REPOSITORY
from callhouse.sources.contract import Field

HIDDEN = {
    # Phones, however they are written.
    "我的电话是13800138000，请回电": "我的电话是<PHONE>，请回电",
    "打138 0013 8000找我": "打<PHONE>找我",
    "138-0013-8000": "<PHONE>",
    "1-3-8-0-0-1-3-8-0-0-0": "<PHONE>",
    "１３８－００１３－８０００": "<PHONE>",
    "一三八零零一三八零零零一共三次": "<PHONE>一共三次",
    "就是幺三八，零零幺三，八零零零。": "就是<PHONE>。",
    "壹叁捌零零壹叁捌零零零": "<PHONE>",
    "1三8零0一3八0零0": "<PHONE>",
    "①③⑧⓪⓪①③⑧⓪⓪⓪": "<PHONE>",
    "1\u200b38\u00ad0013\u20608000": "<PHONE>",
    "1\ufe0f\u20e33\ufe0f\u20e38\ufe0f\u20e30013 8000!": "<PHONE>!",
    "one three eight double zero one three eight triple zero please": "<PHONE> please",
    "One-three-eight oh oh one three eight oh oh oh": "<PHONE>",
    "+86 138 0013 8000 or (0086)13800138000": "<PHONE> or <PHONE>",
    "订单12，13800138000": "订单12，<PHONE>",
    "两13800138000": "两<PHONE>",
    "010-62345678 and 0755 8888 8888": "<PHONE> and <PHONE>",
    "call (212) 555-0143": "call <PHONE>",
    "+44 20 7946 0958": "<PHONE>",
    "电话：62345678": "电话：<PHONE>",
    "my phone number is 6234 5678": "my phone number is <PHONE>",
    # Cards: Luhn; IBAN: mod 97.
    "4111 1111 1111 1111": "<CARD>",
    "卡号6222021234567890128": "卡号<CARD>",
    "六二二二零二一二三四五六七八九零一二八": "<CARD>",
    "DE89 3704 0044 0532 0130 00 please": "<CARD> please",
    "银行卡 6222 0212 3456 7890": "银行卡 <CARD>",
    # Ids: GB 11643.
    "身份证11010519491231002X": "身份证<ID>",
    "110105 19491231 002x": "<ID>",
    "一一零一零五一九四九一二三一零零二X": "<ID>",
    "护照E12345678": "护照<ID>",
    "微信号 abc_12345": "微信号 <ID>",
    # Names by the words around them.
    "王先生和李女士": "<NAME>先生和<NAME>女士",
    "我叫王小明，要退款": "我叫<NAME>，要退款",
    "我是欧阳锋。": "我是<NAME>。",
    "姓名：张三 电话：一三八零零一三八零零零": "姓名：<NAME> 电话：<PHONE>",
    "阿依古丽·买买提来过": "<NAME>",  # where such a name ends cannot be told
    "I am Jane Doe, ask Mr. Li Lei": "I am <NAME>, ask Mr. <NAME>",
    "my name is john smith and I want a refund": "my name is <NAME> and I want a refund",
    # Mail.
    "写到zhang.san@qq.com吧": "写到<EMAIL>吧",
    "zhang at qq dot com": "<EMAIL>",
    "ａｂｃ＠ｑｑ．ｃｏｍ": "<EMAIL>",
}  # fmt: skip

KEPT = (
    # Near misses.
    "1380013800", "138001380001", "12800138000", "订单13800138000123",
    "4111 1111 1111 1112", "6222021234567890129", "110105194912310021", "110105194913310025",
    "GB29 NWBK 6016 1331 9268 18", "1062345678",
    # Orders, amounts, dates, versions, addresses of machines, ids of calls.
    "订单 2024030112345678", "order 1234567890123 failed", "金额 ¥1,234,567.89", "98765.43 元",
    "400-810-1234", "2024-03-01T13:45:10.123Z",
    "2024-03-01 13:45:10", "2024/03/01", "2024年3月1日", "20240301134510", "二零二四年三月一日",
    "300, 400, 500, 600, 700", "10.0.19041.1234", "192.168.100.200", "电话 2024-03-01 打来",
    "1709251200.123", "c9a646d3-9c61-4cb7-bfcd-ee2522c8f633", "一千二百三十四万五千六百七十八",
    "一二三四五六七", "三个月 12 次 5 分钟", "one two three, testing",
    # Words that names begin with, and texts without anything.
    "我是新客户", "我是白金会员", "这位女士很好", "金额不对", "方便的话请回电",
    "this is unacceptable", "I am very happy with the service", "my name is not on the list",
    "miss you", "@", "",
    "SIP/1001@from-internal", "Local/600@queue-members/n", "服务很好",
)  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), HIDDEN.items())
def test_hidden(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected


@pytest.mark.parametrize("text", KEPT)
def test_kept(text: str) -> None:
    assert redacted(text) == text


def test_the_country_decides_about_numbers_without_prefix() -> None:
    assert redacted("020 7946 0958", "GB") == "<PHONE>"
    assert redacted("13800138000", "GB") == "13800138000"


# ------------------------------------------------------------------------------ any spelling
SCRIPTS = (
    "0123456789", "０１２３４５６７８９", "零一二三四五六七八九", "〇幺二三四五六七八九",
    "零壹贰叁肆伍陆柒捌玖", "٠١٢٣٤٥٦٧٨٩", "⓪①②③④⑤⑥⑦⑧⑨",
)  # fmt: skip
SEPARATORS = [
    "", "", "", " ", "-", ".", " - ", "\u3000", "\u200b", "·", "/", "、", "，", ", ", "_", "\n",
    "\u2060\u2060\u2060\u2060", ")", "—",
]  # fmt: skip
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
mobiles = st.tuples(
    st.sampled_from("3456789"), st.text("0123456789", min_size=9, max_size=9)
).map(lambda parts: f"1{parts[0]}{parts[1]}")  # fmt: skip
before = st.sampled_from(["", "请打 ", "电话", "call ", "我的号码是：", "第3个，"])
after = st.sampled_from(["", "。", " please", "，谢谢", "找我", "!"])


@settings(max_examples=400, deadline=None)
@given(
    mobiles,
    st.lists(st.tuples(st.sampled_from(SCRIPTS), st.sampled_from(SEPARATORS)), min_size=11,
             max_size=11),
    before, after,
)  # fmt: skip
def test_no_phone_number_survives(
    number: str, style: list[tuple[str, str]], start: str, end: str
) -> None:
    spelled = "".join(
        script[int(digit)] + (separator if place < 10 else "")
        for place, (digit, (script, separator)) in enumerate(zip(number, style, strict=True))
    )
    assert redacted(f"{start}{spelled}{end}") == f"{start}<PHONE>{end}"


@settings(max_examples=100, deadline=None)
@given(mobiles, st.sampled_from([" ", "-", ", ", "  "]), before, after)
def test_no_spoken_english_number_survives(number: str, gap: str, start: str, end: str) -> None:
    spelled = gap.join(WORDS[int(digit)] for digit in number)
    # A word that ends in a letter needs a gap to what follows, as the first one before it.
    start, end = f"{start} " if start else "", f" {end}" if end else ""
    assert redacted(f"{start}{spelled}{end}") == f"{start}<PHONE>{end}"


PARTS = st.lists(
    st.sampled_from([
        *HIDDEN, *KEPT, "王", "先生", "1", "3", "八", " ", "\u200d", "\u0301", "①", "one", "·",
        "QQ", "at", ".com", "name", "My", "This is", "\n", "I am", "Bob", "@", "x", "X", "138",
        "00138",
    ]), max_size=8,
).map("".join)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(PARTS)
@example("my name is\u00a0x")
def test_what_changes_is_suspicious(text: str) -> None:
    if redacted(text) != text:
        assert pl.Series([text]).str.contains(redaction.SUSPICIOUS).item()


# ------------------------------------------------------------------------------ a corpus
def luhn(digits: str) -> str:
    """`digits` and the last one that makes it a card's number."""
    for last in "0123456789":
        doubled = [
            int(d) if i % 2 == 0 else int(d) * 2 - 9 * (int(d) > 4)
            for i, d in enumerate(reversed(digits + last))
        ]
        if sum(doubled) % 10 == 0:
            return digits + last
    raise AssertionError


def resident(chance: random.Random) -> str:
    """An id whose sum of digits, weighted with powers of two modulo 11, is 1."""
    body = (
        chance.choice(("110105", "310101", "440305", "510107"))
        + f"{chance.randint(1940, 2010)}{chance.randint(1, 12):02d}{chance.randint(1, 28):02d}"
        + f"{chance.randint(0, 999):03d}"
    )
    total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(body)) % 11
    return body + "0123456789X"[(1 - total) % 11]


def grouped(chance: random.Random, digits: str) -> str:
    """As people write it: bare, in groups of four, or spoken."""
    way = chance.random()
    if way < 0.4:
        return digits
    if way < 0.7:
        gap = chance.choice(" -")
        head = len(digits) % 4
        groups = [digits[:head], *(digits[i : i + 4] for i in range(head, len(digits), 4))]
        return gap.join(group for group in groups if group)
    if way < 0.85:
        return "".join("零一二三四五六七八九"[int(d)] if d.isdigit() else d for d in digits)
    return "".join(chr(ord(d) + 0xFEE0) for d in digits)


GIVEN_NAMES = ("小明", "伟", "芳", "秀英", "建国", "丽", "子涵", "磊", "静怡", "强")
FAMILY = ("王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "欧阳", "司马")
ENGLISH = ("Jane Doe", "John Smith", "Mary Ann Lee", "Ahmed Khan", "Peter O'Neill")
CUES = {
    "<PHONE>": ("请打{}", "回拨 {} 就行", "call {} please", "{}是我的"),
    "<CARD>": ("卡 {} 被扣款", "charged to {} twice", "用{}付的"),
    "<ID>": ("证件 {}", "my id {}", "{} 是我的身份证"),
    "<EMAIL>": ("发到{}", "mail {} please", "邮箱：{}"),
    # Three of them give no sign that a name follows: those are what the figures below lack.
    "<NAME>": ("我叫{}，", "我是{}，", "联系人：{} ", "找{}先生", "跟{}说好了的", "上次是{}接的",
               "{}可以作证"),
}  # fmt: skip
PLAIN = (
    "等了{minutes}分钟没人接，订单{order}还没发货", "金额{amount}元不对，{date}扣的",
    "服务很好，谢谢", "charged {amount} on {date}",
    "waited {minutes} minutes, order {order} is late",
    "客服态度不错，希望高峰期多安排几位", "物流单号{order}，{date}签收", "this is a good service",
    "我是老客户了，打了{minutes}次", "版本 {minutes}.0.{minutes}.1234 打不开",
)  # fmt: skip


def corpus(seed: int, size: int) -> list[tuple[str, dict[str, str]]]:
    """(text, what is in it by label) pairs: what people write after a call."""
    chance = random.Random(seed)
    makers: dict[str, Callable[[], str]] = {
        "<PHONE>": lambda: grouped(
            chance, f"1{chance.choice('3456789')}{chance.randint(0, 999_999_999):09d}"
        ),
        "<CARD>": lambda: grouped(
            chance,
            luhn(chance.choice(("4", "51", "6222", "37"))
                 + f"{chance.randint(0, 10**14):014d}"[: chance.choice((11, 13, 14))]),
        ),
        "<ID>": lambda: grouped(chance, resident(chance)),
        "<EMAIL>": lambda: f"{chance.choice(('li.wei', 'w_fang', 'jd88'))}@"
                           f"{chance.choice(('qq.com', 'mail.example.cn'))}",
        "<NAME>": lambda: chance.choice(FAMILY) + chance.choice(GIVEN_NAMES),
    }  # fmt: skip
    found = []
    for _ in range(size):
        date = f"{chance.randint(2019, 2026)}-{chance.randint(1, 12):02d}-{chance.randint(1, 28)}"
        text = chance.choice(PLAIN).format(
            minutes=chance.randint(1, 90), date=date,
            # 12 to 15 digits that begin with a day, or with letters.
            order=chance.choice(("", "SO")) + date.replace("-", "")
            + f"{chance.randint(0, 10**7):0{chance.randint(4, 7)}d}",
            amount=f"{chance.uniform(1, 10**7):,.2f}",
        )  # fmt: skip
        content: dict[str, str] = {}
        if chance.random() < 0.4:
            label = chance.choice(list(CUES))
            value = makers[label]()
            content[label] = value
            piece = chance.choice(CUES[label]).format(value)
            text = f"{text}，{piece}" if chance.random() < 0.5 else f"{piece}。{text}"
        found.append((text, content))
    return found


def figures(seed: int, size: int) -> dict[str, tuple[float, float]]:
    """(recall, precision) by label."""
    present, hit, labelled = Counter[str](), Counter[str](), Counter[str]()
    for text, content in corpus(seed, size):
        left = redacted(text)
        for label, value in content.items():
            present[label] += 1
            hit[label] += value not in left and label in left
        for label in CUES:
            labelled[label] += left.count(label)
    return {label: (hit[label] / present[label], hit[label] / labelled[label]) for label in CUES}


def test_recall_and_precision_on_a_corpus() -> None:
    found = figures(seed=5, size=6_000)
    for label, (recall, precision) in found.items():
        print(f"{label}: recall {recall:.3f}, precision {precision:.3f}")
    for label in ("<PHONE>", "<CARD>", "<ID>", "<EMAIL>"):
        recall, precision = found[label]
        assert recall == 1.0, label
        assert precision >= 0.97, label
    # Of seven ways to mention a person four can be told by their words.
    recall, precision = found["<NAME>"]
    assert 0.5 <= recall <= 0.65
    assert precision >= 0.95


# ------------------------------------------------------------------------------ JSON and rows
def test_json_keeps_its_shape() -> None:
    content = {
        "comment": "打138 0013 8000", "张女士": [1, 2.5, True, None, 13800138000],
        "at": "2024-03-01T10:00:00Z", "note": {"deep": ["one", "a@b.cn", "“"]},
    }  # fmt: skip
    left = json.loads(redacted_json(json.dumps(content, ensure_ascii=False)))
    assert left == {
        "comment": "打<PHONE>", "<NAME>女士": [1, 2.5, True, None, "<PHONE>"],
        "at": "2024-03-01T10:00:00Z", "note": {"deep": ["one", "<EMAIL>", "“"]},
    }  # fmt: skip
    assert redacted_json("{13800138000") == "{<PHONE>"


def test_rows_are_redacted_where_they_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []

    def counted(text: str, country: str = "CN") -> str:
        looked_at.append(text)
        return redacted(text, country)

    monkeypatch.setattr(redaction, "redacted", counted)
    rows = pl.DataFrame(
        {
            "data1": ["13800138000", "13800138000", "13900139000", None, "12", "13800138000"],
            "data2": pl.Series([None] * 6, dtype=pl.String),
            "is_free": [True, False, True, True, True, True],
        }
    )
    left = redact_rows(rows, (Field("data1", free="kept"), Field("data2", free="kept")), "CN")
    assert left.get_column("data1").to_list() == [
        "<PHONE>", "13800138000", "<PHONE>", None, "12", "<PHONE>",
    ]  # fmt: skip
    assert sorted(looked_at) == ["13800138000", "13900139000"]  # each once, and no other
    whole = redact_rows(rows.drop("is_free"), (Field("data1", free="kept"),), None)
    assert whole.get_column("data1").to_list()[1] == "<PHONE>"


# ------------------------------------------------------------------------------ what it costs
def test_nothing_is_fetched_and_no_model_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import spacy

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError(f"reached out: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(spacy, "load", refuse)
    redaction._recognisers.cache_clear()
    for text, expected in HIDDEN.items():
        assert redacted(text) == expected


def test_texts_without_numbers_load_nothing() -> None:
    # A second of import, which landing of most feeds never needs.
    script = (
        "import sys; from callhouse.security.redaction import redacted;"
        "assert redacted('王先生说服务很好，等了12分钟') == '<NAME>先生说服务很好，等了12分钟';"
        "assert 'presidio_analyzer' not in sys.modules and 'polars' not in sys.modules;"
        "assert redacted('4000000001 on 2024-03-01') == '4000000001 on 2024-03-01';"
        "assert 'presidio_analyzer' not in sys.modules;"
        "redacted('13800138000'); assert 'presidio_analyzer' in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", script], check=True, cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY / "plugins"), "PATH": ""},
    )  # fmt: skip
