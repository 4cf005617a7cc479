"""Colours and type of Callhouse: one colour per meaning on every board."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

ANSWERED = "#1F6FB5"
ABANDONED = "#E67E22"
WAITING = "#F2B134"
CLOSED = "#98A2AD"
TARGET = "#64748B"  # seen on white as on black
BREACH = "#C0392B"
GOOD = "#2E8B57"
HOLD = "#7A5CA8"
AFTER_CALL = "#2A9D8F"
READY = "#A9CBB3"
INK = "#1D2733"

_MARK = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="148" height="32" viewBox="0 0 148 32">'
    f'<path d="M3 15 16 4l13 11v11a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z" fill="{ANSWERED}"/>'
    '<path d="M10 16a6 6 0 0 1 12 0v5h-3v-5h0a3 3 0 0 0-6 0v5h-3z" fill="#fff"/>'
    '<circle cx="16" cy="22.500" r="1.800" fill="{accent}"/>'
    '<text x="37" y="22" font-family="Inter,Helvetica,Arial,sans-serif" font-size="18" '
    'font-weight="600" fill="{ink}">Callhouse</text></svg>'
)


def _logo(ink: str) -> str:
    return "data:image/svg+xml," + quote(_MARK.replace("{accent}", ABANDONED).replace("{ink}", ink))


LOGO = _logo(INK)

_TOKENS: dict[str, Any] = {
    "brandAppName": "Callhouse",
    "brandLogoAlt": "Callhouse",
    "brandLogoUrl": LOGO,
    "brandLogoMargin": "16px 0",
    "brandLogoHref": "/dashboard/list/",
    "brandLogoHeight": "28px",
    "brandIconMaxWidth": 148,
    "colorPrimary": ANSWERED,
    "colorLink": ANSWERED,
    "colorError": BREACH,
    "colorWarning": WAITING,
    "colorSuccess": GOOD,
    "colorInfo": ANSWERED,
    "fontUrls": [],
    "fontFamily": (
        "Inter, 'Noto Sans SC', 'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', "
        "Helvetica, Arial, sans-serif"
    ),
    "fontFamilyCode": "'IBM Plex Mono', 'Courier New', monospace",
    "transitionTiming": 0.2,
    "fontSizeXS": "8",
    "fontSizeXXL": "28",
    "fontWeightNormal": "400",
    "fontWeightLight": "300",
    "fontWeightStrong": "500",
    "fontWeightBold": "700",
    "colorEditorSelection": "#fff5cf",
}
DEFAULT: dict[str, Any] = {"token": _TOKENS, "algorithm": "default"}
DARK: dict[str, Any] = {
    "token": {**_TOKENS, "brandLogoUrl": _logo("#F2F5F8"), "colorEditorSelection": "#5c4d1a"},
    "algorithm": "dark",
}

CATEGORICAL_SCHEMES: list[dict[str, Any]] = [
    {
        "id": "callhouse",
        "label": "Callhouse",
        "description": "One colour per meaning: answered, abandoned, waiting, closed, then others",
        "isDefault": True,
        "colors": [
            ANSWERED,
            ABANDONED,
            WAITING,
            CLOSED,
            "#2A9D8F",
            "#7A5CA8",
            "#B5525C",
            "#5B8C3A",
            "#4FA3D1",
            "#A67C52",
        ],
    }
]


def _sequential(name: str, label: str, colors: list[str]) -> dict[str, Any]:
    return {
        "id": name,
        "label": label,
        "description": "",
        "isDiverging": False,
        "isDefault": False,
        "colors": colors,
    }


SEQUENTIAL_SCHEMES: list[dict[str, Any]] = [
    _sequential(
        "callhouse_volume",
        "Callhouse volume",
        ["#F3F7FB", "#D3E3F2", "#A5C8E4", "#6FA8D3", "#3D86C0", "#1F6FB5", "#124A7D"],
    ),
    # Low service is what must be found: dark orange, fading to almost white where all is well.
    _sequential(
        "callhouse_service",
        "Callhouse service level (low is dark)",
        ["#A3480F", "#D3691A", "#EC9450", "#F5BD8E", "#FADFC6", "#F1F4F2", "#D5E8DC"],
    ),
]
