"""Boards: renders superset/ from the dbt manifest, checks it, and imports it into Superset.

Light to import: `superset_config.py` uses two modules of this package in Superset's environment,
where neither dbt nor psycopg is installed.
"""

from __future__ import annotations

from collections.abc import Callable

from callhouse.settings import Settings


def render_committed(settings: Settings, *, check: bool = False) -> list[str]:
    """Bring superset/assets up to date with the dbt project; returns the files that differed.

    With `check` nothing is written. Boards are rendered too, so that a broken one is found here.
    """
    from callhouse import semantic
    from callhouse.bi import render
    from callhouse.settings import LANGUAGES

    catalogue = semantic.load(settings)
    for language in LANGUAGES:
        render.bundle(catalogue, language)
    changed = render.differences(catalogue)
    if changed and not check:
        render.write(render.committed(catalogue), render.COMMITTED)
    return changed


def install(settings: Settings, report: Callable[[str], None]) -> None:
    """Render the boards in the instance's language and import them and the people's users."""
    from callhouse import semantic
    from callhouse.bi import importing, render

    directory = settings.home / "superset" / "bundle"
    render.write(render.bundle(semantic.load(settings), settings.language), directory)
    report(f"boards: {importing.import_assets(settings, directory)}")


def synchronise_people(settings: Settings) -> str:
    """Bring Superset's users and Airflow's up to date with sec.people; one line says what was done.

    An instance whose Superset was not prepared yet gets them with its boards.
    """
    from callhouse.bi import importing
    from callhouse.runner import preparation

    if not all(preparation.is_prepared(settings, product) for product in ("superset", "airflow")):
        return "users of superset and airflow come with their first start"
    return importing.synchronise_people(settings)
