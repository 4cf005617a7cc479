"""The guide of boards is one guide in two languages."""

from __future__ import annotations

import re
from dataclasses import dataclass

from callhouse.bi import layout, render
from callhouse.settings import LANGUAGES, REPOSITORY

ANALYSTS = REPOSITORY / "docs" / "analysts"
GUIDES = {"en": ANALYSTS / "dashboards.md", "zh": ANALYSTS / "dashboards.zh.md"}
LARGEST_PICTURE = 200_000


@dataclass(frozen=True)
class Section:
    """What a section has in any language: its level, pictures, commands, names and rows."""

    level: int
    pictures: list[str]
    names: set[str]
    steps: int
    rows: int


def sections(language: str) -> list[Section]:
    found = []
    for part in re.split(r"^(?=#+ )", GUIDES[language].read_text("utf-8"), flags=re.MULTILINE)[1:]:
        names = set(re.findall(r"`([^`\n]+)`", part)) | set(re.findall(r"^\./.+$", part, re.M))
        found.append(
            Section(
                level=len(part) - len(part.lstrip("#")),
                pictures=re.findall(rf"\((\.\./images/\S+)\.{language}\.png\)", part),
                # A person is called differently.
                names={name for name in names if "--as" not in name},
                steps=len(re.findall(r"^\d\. ", part, re.MULTILINE)),
                rows=len(re.findall(r"^\|", part, re.MULTILINE)),
            )
        )
    return found


def test_both_guides_have_the_same_sections_pictures_and_names() -> None:
    english, chinese = sections("en"), sections("zh")
    assert len(english) >= 15
    assert [one.level for one in english] == [one.level for one in chinese]
    for ours, theirs in zip(english, chinese, strict=True):
        assert ours == theirs


def test_every_picture_of_a_guide_is_there_and_small() -> None:
    used = set()
    for language in LANGUAGES:
        named = re.findall(r"\]\((\S+\.png)\)", GUIDES[language].read_text("utf-8"))
        assert len(named) >= 4
        for name in named:
            assert name.endswith(f".{language}.png")
            file = (ANALYSTS / name).resolve()
            assert 10_000 < file.stat().st_size <= LARGEST_PICTURE, name
            used.add(file)
    assert used == set((REPOSITORY / "docs" / "images").glob("*.*.png"))
    assert len(used) <= 8


def test_every_title_of_a_board_is_in_its_guide() -> None:
    for language in LANGUAGES:
        text = GUIDES[language].read_text("utf-8")
        for section in sections(language):
            for name in section.names:
                if match := re.fullmatch(r"/superset/dashboard/(\w+)/", name):
                    board = layout.load(render.BOARDS / f"{match[1]}.yaml", language)
                    assert board.title in text, (language, match[1])
