"""From the metric catalogue and the board descriptions to a Superset asset bundle."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from callhouse.bi import charts, dashboards, datasets, floor, layout, ledger
from callhouse.errors import CallhouseError
from callhouse.settings import LANGUAGES, REPOSITORY

if TYPE_CHECKING:
    from callhouse.semantic import Catalogue

BOARDS = REPOSITORY / "superset" / "boards"
COMMITTED = REPOSITORY / "superset" / "assets"
# Superset refuses a bundle without it. The time is no fact of the assets: always the same.
METADATA = {"version": datasets.VERSION, "type": "assets", "timestamp": "2000-01-01T00:00:00+00:00"}

Bundle = dict[str, str]


def bundle(catalogue: Catalogue, language: str, boards: Path = BOARDS) -> Bundle:
    """Every file of the bundle, by its path: connection, datasets, charts and dashboards."""
    if language not in LANGUAGES:
        raise CallhouseError(f"language {language!r} is not one of {', '.join(LANGUAGES)}")
    catalogue = with_ledger(catalogue)
    database = f"databases/{datasets.DATABASE}.yaml"
    files: dict[str, dict[str, Any]] = {"metadata.yaml": METADATA, database: datasets.database()}
    files.update(_datasets(catalogue, language))
    found = [layout.load(file, language) for file in sorted(boards.glob("*.yaml"))]
    titles = {board.slug: board.title for board in found}
    for board in found:
        for tile in board.tiles:
            if tile.chart in layout.WORDS_ONLY:
                continue
            source = datasets.find(catalogue, tile.dataset, f"{board.slug}, tile {tile.name}")
            name = f"charts/{board.slug}__{tile.name}.yaml"
            files[name] = charts.chart(board, tile, source, language)
        files[f"dashboards/{board.slug}.yaml"] = dashboards.dashboard(
            board, catalogue, language, titles
        )
    return {path: _text(content) for path, content in files.items()}


def committed(catalogue: Catalogue) -> Bundle:
    """The part of the bundle that is committed, so that review sees a changed definition."""
    return {p: _text(c) for p, c in _datasets(with_ledger(catalogue), "en").items()}


def write(files: Bundle, directory: Path) -> None:
    """Write `files` below `directory`; folders they use are emptied of other assets first."""
    for folder in sorted({path.split("/")[0] for path in files if "/" in path}):
        shutil.rmtree(directory / folder, ignore_errors=True)
    for path, text in files.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def differences(catalogue: Catalogue, directory: Path = COMMITTED) -> list[str]:
    """Committed dataset files that are missing, superfluous or other than rendered."""
    wanted = committed(catalogue)
    found = {
        str(file.relative_to(directory)): file.read_text(encoding="utf-8")
        for file in sorted((directory / "datasets").rglob("*.yaml"))
    }
    paths = sorted(wanted.keys() | found.keys())
    return [path for path in paths if wanted.get(path) != found.get(path)]


def _datasets(catalogue: Catalogue, language: str) -> dict[str, dict[str, Any]]:
    return {
        f"datasets/{datasets.DATABASE}/{source.name}.yaml": datasets.dataset(source, language)
        for source in sorted(catalogue.datasets, key=lambda d: d.name)
    }


def with_ledger(catalogue: Catalogue) -> Catalogue:
    """The catalogue and the datasets that no dbt model stands for: the ledger's and the floor's."""
    known = {source.name for source in catalogue.datasets}
    made = [*ledger.datasets(), *ledger.of_marts(catalogue.datasets), *floor.datasets()]
    more = [source for source in made if source.name not in known]
    return replace(catalogue, datasets=[*catalogue.datasets, *more])


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, as yamllint wants them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)


def _text(content: dict[str, Any]) -> str:
    dumped = yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=76, indent=2
    )
    return "---\n" + str(dumped)
