"""Mends Superset's own translations where they say something false on a board."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

# The row of totals below a table is called "Sunday" in Superset 6.1's Chinese; the last month is
# thirty days and not the calendar's month before; and an empty tile says why it may be empty, not
# "kind of visualisation to show".
MENDED: dict[str, dict[str, str]] = {
    "zh": {
        "Summary": "合计",
        "There is currently no information to display.": "该时段没有数据，或您无权查看",
        "Last day": "最近一天",
        "Last week": "最近一周",
        "Last month": "最近一个月",
        "Last quarter": "最近三个月",
        "Last year": "最近一年",
    }
}


def mend(app: Any) -> None:
    """FLASK_APP_MUTATOR: answers requests for a mended language pack."""
    packs = {f"/superset/language_pack/{lang}/": words for lang, words in MENDED.items()}

    @app.before_request  # type: ignore[untyped-decorator]
    def language_pack() -> Any:
        from flask import request

        words = packs.get(request.path)
        return None if words is None else app.json.response(pack(request.path.split("/")[3], words))


def pack(language: str, words: dict[str, str]) -> dict[str, Any]:
    """Superset's language pack with `words` in place of its own."""
    file = resources.files("superset.translations") / language / "LC_MESSAGES" / "messages.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    content["locale_data"]["superset"].update({word: [mended] for word, mended in words.items()})
    return content
