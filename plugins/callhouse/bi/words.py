"""Mends Superset's own words where they say something false, or nothing, on a board."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from callhouse.settings import LANGUAGES

# An empty tile says so and why: a line and a smaller one. A big number without one has one line.
TITLE = "No results were returned for this query"
REASON = "There is currently no information to display."
NO_NUMBER = "No data after filtering or data is NULL for the latest time record"
EMPTY = {
    "en": ("No data", "Nothing in this period, or nothing that you may see"),
    "zh": ("暂无数据", "该时段没有数据，或您无权查看"),
}
# The row of totals below a table is called "Sunday" in Superset 6.1's Chinese, and the last month
# is thirty days and not the calendar's month before.
MENDED: dict[str, dict[str, str]] = {
    language: {TITLE: EMPTY[language][0], REASON: EMPTY[language][1], NO_NUMBER: EMPTY[language][1]}
    for language in LANGUAGES
}
MENDED["zh"].update(
    {
        "Summary": "合计",
        "Last day": "最近一天",
        "Last week": "最近一周",
        "Last month": "最近一个月",
        "Last quarter": "最近三个月",
        "Last year": "最近一年",
    }
)
# Superset's pages ask for no pack where the language is called `en`, its own.
ENGLISH = "en_GB"
CALLED = {"en": ENGLISH}


def bootstrap(data: dict[str, Any]) -> dict[str, Any]:
    """COMMON_BOOTSTRAP_OVERRIDES_FUNC: the language whose pack pages ask for."""
    language = data["locale"]
    return {"locale": CALLED.get(language, language)}


def mend(app: Any) -> None:
    """FLASK_APP_MUTATOR: answers requests for a mended language pack."""
    packs = {
        f"/superset/language_pack/{CALLED.get(language, language)}/": (language, words)
        for language, words in MENDED.items()
    }

    @app.before_request  # type: ignore[untyped-decorator]
    def language_pack() -> Any:
        from flask import request

        asked = packs.get(request.path)
        return None if asked is None else app.json.response(pack(*asked))


def pack(language: str, words: dict[str, str]) -> dict[str, Any]:
    """Superset's language pack with `words` in place of its own."""
    # The pack of its own language has every word, and none of them said.
    own = ("empty_language_pack.json",)
    path = own if language == "en" else (language, "LC_MESSAGES", "messages.json")
    file = resources.files("superset.translations").joinpath(*path)
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    content["locale_data"]["superset"].update({word: [mended] for word, mended in words.items()})
    return content
