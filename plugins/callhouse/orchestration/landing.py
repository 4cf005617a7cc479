"""The steps of the `land` DAGs."""

from __future__ import annotations

from dataclasses import dataclass

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from callhouse import settings as settings_module
from callhouse.sources import registry


@dataclass(frozen=True)
class Drop:
    """The drop folder of a feed, as a DAG is made from it."""

    feed: str
    label: str
    inbox: str


def drops() -> list[Drop]:
    """Every registered feed. Reads mapping files only: this runs whenever a DAG file is parsed."""
    settings = settings_module.load()
    return [
        Drop(feed.name, feed.label, str(settings.inbox / feed.name))
        for feed in registry.feeds(settings)
    ]


def land(feed: str) -> dict[str, list[str] | int]:
    """Land what lies in the feed's drop folder; skipped where nothing does.

    Safe to repeat: the ledger knows every file that was landed, and refused ones are out of the way.
    """
    from callhouse import landing

    settings = settings_module.load()
    results = landing.land_inbox(settings, registry.feed(settings, feed))
    if not results:
        raise AirflowSkipException(f"nothing in {settings.inbox / feed}")
    return {
        "staged_rows": sum(result.staged_rows for result in results),
        "refused": [
            f"{result.name}: {result.reason}" for result in results if result.status == "refused"
        ],
    }


def announce(summary: dict[str, list[str] | int]) -> None:
    """Succeeds, and so wakes `transform` up, where rows were staged."""
    if not summary["staged_rows"]:
        raise AirflowSkipException("no row was staged, so no day has changed")


def report_refused(summary: dict[str, list[str] | int]) -> None:
    """Fails, without another try, where a file was refused; everything else has landed by now."""
    refused = summary["refused"]
    if isinstance(refused, list) and refused:
        raise AirflowFailException(f"{len(refused)} refused: " + " | ".join(refused))
