"""A mapping is checked key by key; what is wrong is said with file, key and fix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.sources import registry
from callhouse.sources.delimited import mapping

GOOD = """
feed: bank
vendor: delimited
label: A bank
time_zone: Asia/Shanghai
records:
  - record: legs
    files: "*.csv"
    delimiter: comma
    columns:
      call_id: id
      arrived_at: start
      outcome: {column: result, codes: {NO: abandoned, OK: answered}}
      wait_seconds: {column: wait, unit: ms}
      caller: {column: number, kind: phone, country: CN}
    refine:
      - when: {outcome: abandoned}
        set: {abandon_stage: queue}
"""


def load(tmp_path: Path, text: str, name: str = "bank.yaml") -> mapping.Feed:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return mapping.load(file)


def test_a_good_mapping_is_read(tmp_path: Path) -> None:
    feed = load(tmp_path, GOOD)
    record = feed.records[0]
    assert record.delimiter == ","
    assert record.needed == ["id", "start", "result", "wait", "number"]
    outcome = next(c for c in record.columns if c.field.name == "outcome")
    # YAML 1.1 would read the code NO as false.
    assert outcome.codes == (("NO", "abandoned"), ("OK", "answered"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("delimiter: comma", "delimeter: comma", ["records[1]", "'delimiter' is missing"]),
        ("delimiter: comma", "delimiter: ''", ["delimiter", "tab, comma"]),
        ("    files:", "    fils:", ["records[1].fils", "unknown key", "did you mean 'files'"]),
        ("label: A bank", "labels: A bank", ["'label' is missing"]),
        ("Asia/Shanghai", "Asia/Shangai", ["time_zone", "Asia/Shangai"]),
        ("feed: bank", "feed: Bank", ["feed", "lower-case"]),
        ("feed: bank", "feed: other", ["other.yaml"]),
        ("record: legs", "record: leg", ["records[1].record", "did you mean 'legs'"]),
        ("call_id: id", "callid: id", ["columns.callid", "did you mean 'call_id'"]),
        ("      call_id: id\n", "", ["'call_id' is required"]),
        ("OK: answered", "OK: answred", ["codes.OK", "did you mean 'answered'"]),
        ("unit: ms", "unit: minutes", ["wait_seconds.unit", "s, ms, hms"]),
        ("unit: ms", "format: ms", ["wait_seconds.format", "unknown key"]),
        ("country: CN", "country: China", ["country", "CN"]),
        ("kind: phone, country: CN", "kind: phone", ["'country' is missing"]),
        ("abandon_stage: queue", "abandon_stage: quue", ["abandon_stage", "'quue'"]),
        ("when: {outcome: abandoned}", "when: {outcome: lost}", ["'lost'"]),
        ("when: {outcome: abandoned}", "when: {call_id: {above: 1}}", ["number"]),
        ("record: legs", "record: legs\n    header: false", ["names", "column names"]),
        ("record: legs", "record: legs\n    encoding: utf-99", ["encoding", "gb18030"]),
        ("      call_id: id", "      call_id: id\n      call_id: x", ["twice"]),
        ("call_id: id", "call_id: {column: id, constant: x}", ["exactly one of"]),
        ("call_id: id", "call_id: {copy: agent_id}", ["agent_id", "not mapped"]),
        ("records:", "records: 5\nother:", ["records", "list"]),
        ("label: A bank", "label: [", ["no valid YAML"]),
    ],
)
def test_a_mistake_is_a_sentence_with_file_key_and_fix(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    assert old in GOOD
    with pytest.raises(CallhouseError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    message = str(caught.value)
    assert message.startswith("bank.yaml")
    for word in words:
        assert word in message


def test_packaged_feeds_are_listed_and_instance_feeds_added(tmp_path: Path) -> None:
    base = settings_module.load({"CALLHOUSE_HOME": str(tmp_path)})
    settings = replace(base, feeds_directory=tmp_path)
    names = [feed.name for feed in registry.feeds(settings)]
    assert {"anonymous_bank", "sample_hotline"} <= set(names)
    load(tmp_path, GOOD)
    assert registry.feed(settings, "bank").label == "A bank"
    with pytest.raises(CallhouseError, match="no feed 'bnk'"):
        registry.feed(settings, "bnk")


def test_a_broken_mapping_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    base = settings_module.load({"CALLHOUSE_HOME": str(tmp_path)})
    settings = replace(base, feeds_directory=tmp_path)
    (tmp_path / "broken.yaml").write_text("feed: broken\n", encoding="utf-8")
    (tmp_path / "anonymous_bank.yaml").write_text("feed: anonymous_bank\n", encoding="utf-8")
    names = [feed.name for feed in registry.feeds(settings)]
    assert "anonymous_bank" in names and "broken" not in names
    problems = registry.problems(settings)
    assert len(problems) == 2
    assert any("broken.yaml" in text for text in problems)
    assert any("mapped twice" in text for text in problems)
    with pytest.raises(CallhouseError, match=r"broken\.yaml"):
        registry.feed(settings, "broken")
