"""What a run of benchmarks says of its figures, and which of them it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.bench import conftest
from tests.bench.conftest import Figure

pytest_plugins = ["pytester"]

CHANGES = [
    # More of what should be little, and less of what should be much.
    (Figure("b", "cost", 1.2, "ratio", at_most=2), 1.0, "+20% worse"),
    (Figure("b", "cost", 1.05, "ratio", at_most=2), 1.0, "+5%"),
    (Figure("b", "cost", 0.5, "ratio", at_most=2), 1.0, "-50%"),
    (Figure("b", "rate", 0.8, "ratio", at_least=0.5), 1.0, "-20% worse"),
    (Figure("b", "rate", 1.5, "ratio", at_least=0.5), 1.0, "+50%"),
    (Figure("b", "without a goal", 1.2, "ratio"), 1.0, "+20% worse"),
    # Seconds are those of a machine.
    (Figure("b", "time", 9.0, "s", at_most=2), 1.0, "+800%"),
]


@pytest.mark.parametrize(("figure", "saved", "said"), CHANGES)
def test_only_ratios_are_judged_by_the_saved_ones(figure: Figure, saved: float, said: str) -> None:
    assert figure.change(saved) == said


def test_a_goal_is_reached_or_missed() -> None:
    assert Figure("b", "cost", 1.7, "ratio", at_most=1.7).goal == "≤ 1.7: reached"
    assert Figure("b", "cost", 1.71, "ratio", at_most=1.7).goal == "≤ 1.7: missed"
    assert Figure("b", "rate", 0.6, "ratio", at_least=0.6).goal == "≥ 0.6: reached"
    assert Figure("b", "rate", 0.59, "ratio", at_least=0.6).goal == "≥ 0.6: missed"
    assert Figure("b", "cost", 1.7, "ratio").goal == ""


def test_figures_of_other_benchmarks_and_sizes_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest, "BASELINE", tmp_path / "baseline.json")
    conftest.save([Figure("b", "10 calls", 1.0, "s"), Figure("b", "20 calls", 2.0, "s")])
    conftest.save([Figure("a", "10 calls", 3.0, "ratio"), Figure("b", "20 calls", 2.23456, "s")])
    assert json.loads((tmp_path / "baseline.json").read_text(encoding="utf-8")) == {
        "a": {"10 calls": {"value": 3.0, "unit": "ratio"}},
        "b": {"10 calls": {"value": 1.0, "unit": "s"}, "20 calls": {"value": 2.23, "unit": "s"}},
    }


SAMPLE = """
def test_reached(figure):
    figure("cost", 1.5, at_most=2)

def test_missed(figure):
    figure("rate", 0.4, at_least=0.5)
    assert False
"""


def test_a_run_tells_all_of_them_and_saves_when_asked(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(Path(conftest.__file__).read_text(encoding="utf-8"))
    pytester.makepyfile(bench_sample=SAMPLE)
    options = ("-p", "no:cacheprovider", "-o", "python_files=bench_*.py")
    first = pytester.runpytest_subprocess(*options)
    first.stdout.re_match_lines([r".*cost +1\.5 +none saved +≤ 2: reached",
                                 r".*rate +0\.4 +none saved +≥ 0\.5: missed"])  # fmt: skip
    baseline = pytester.path / "baseline.json"
    assert not baseline.exists()
    pytester.runpytest_subprocess(*options, "--save-baseline")
    assert json.loads(baseline.read_text(encoding="utf-8")) == {
        "sample": {
            "cost": {"value": 1.5, "unit": "ratio"},
            "rate": {"value": 0.4, "unit": "ratio"},
        }
    }
    again = pytester.runpytest_subprocess(*options)
    again.stdout.re_match_lines([r".*cost +1\.5 +saved 1\.5, \+0% +≤ 2: reached"])
