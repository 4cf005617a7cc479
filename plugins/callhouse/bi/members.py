"""What members of dimensions are called on boards of a language: superset/members.yaml.

A column whose members have words is shown by an expression under its own name. So tiles, filters,
cross-filters, links and exports all name the word, while metrics, entitlements and SQL keep the
code.
"""

from __future__ import annotations

import csv
import json
from functools import cache
from typing import Any

import yaml

from callhouse.errors import CallhouseError
from callhouse.settings import REPOSITORY

FILE = REPOSITORY / "superset" / "members.yaml"
CODES = REPOSITORY / "dbt_project" / "seeds" / "codes"


def words(dataset: str, column: str, language: str) -> dict[str, str]:
    """Words for the members of a column, by the member; empty where members are shown as they are.

    Raises CallhouseError where the file names a seed or a column that there is not.
    """
    known = _known(language)
    return known.get(f"{dataset}.{column}") or known.get(column) or {}


def shown(dataset: str, column: str, member: Any, language: str) -> Any:
    """What tiles call `member`: conditions and highlights are written with codes."""
    return words(dataset, column, language).get(member, member)


def expression(dataset: str, column: str, language: str) -> str | None:
    """SQL of the word, or of the member itself where it has none; None for columns without words.

    A look-up in one constant costs the same for three members and for a hundred regions. It is
    written as the function behind `->>`, which Superset's parser would write as one for json.
    """
    if not (found := words(dataset, column, language)):
        return None
    if _is_joined(dataset, column, language):
        # Longest first: a member may begin with another one.
        for member in sorted(found, key=len, reverse=True):
            column = f"replace({column}, {_quoted(member)}, {_quoted(found[member])})"
        return column
    constant = json.dumps(found, ensure_ascii=False, sort_keys=True).replace("'", "''")
    return f"coalesce(jsonb_object_field_text('{constant}'::jsonb, {column}), {column})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _is_joined(dataset: str, column: str, language: str) -> bool:
    """Whether a value is a list of members, as text."""
    content = _content(language)
    return bool(content.get(f"{dataset}.{column}", content.get(column, {})).get("is_joined"))


def _content(language: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8")).get(language, {})
    return found


@cache
def _known(language: str) -> dict[str, dict[str, str]]:
    content = _content(language)
    return {
        key: {
            **{code: word for seed in one.get("codes", ()) for code, word in _seed(seed, language)},
            **{str(code): word for code, word in one.get("words", {}).items()},
        }
        for key, one in content.items()
    }


def _seed(name: str, language: str) -> list[tuple[str, str]]:
    """Members and words of `seed.column`: `name_zh`, or what stands beside a column `…_en`."""
    seed, _, column = name.partition(".")
    word = (
        f"{column.removesuffix('_en')}_{language}" if column.endswith("_en") else f"name_{language}"
    )
    try:
        with (CODES / f"{seed}.csv").open(encoding="utf-8", newline="") as file:
            return [(row[column], row[word]) for row in csv.DictReader(file)]
    except (OSError, KeyError) as problem:
        raise CallhouseError(f"{FILE.name}: {name} is no column of a seed: {problem}") from None
