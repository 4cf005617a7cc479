"""The steps of the `land` DAGs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TypedDict

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from callhouse import settings as settings_module
from callhouse.sources import registry
from callhouse.sources.contract import Feed

LOG = logging.getLogger(__name__)


class Summary(TypedDict):
    """What one look into a drop folder brought; handed from task to task."""

    staged_rows: int
    refused: list[str]


@dataclass(frozen=True)
class Drop:
    """The drop folder of a feed, as a DAG is made from it."""

    feed: str
    label: str
    inbox: str


def label_of(feed: Feed) -> str:
    """The feed's name for people; what adds to another feed's source has that one's label too."""
    return feed.label if feed.name == feed.file.stem else f"{feed.label} ({feed.file.stem})"


def drops() -> list[Drop]:
    """Every registered feed. Reads mapping files only: this runs whenever a DAG file is parsed."""
    settings = settings_module.load()
    return [
        Drop(feed.file.stem, label_of(feed), str(settings.inbox / feed.file.stem))
        for feed in registry.feeds(settings)
    ]


def land(feed: str) -> Summary:
    """Land what lies in the feed's drop folder; skipped where nothing does.

    Safe to repeat: the ledger knows every file that was landed; refused ones are out of the way.
    """
    from callhouse import landing

    settings = settings_module.load()
    results = landing.land_inbox(settings, feed)
    if not results:
        raise AirflowSkipException(f"nothing in {settings.inbox / feed}")
    for result in results:
        LOG.info(
            "%s: %s, %s of %s rows staged", result.name, result.status, result.staged, result.read
        )
    return {
        "staged_rows": sum(result.staged for result in results),
        "refused": [str(result.reason) for result in results if result.status == "refused"],
    }


def announce(summary: Summary) -> None:
    """Succeeds, and so wakes `transform` up, where rows were staged."""
    if not summary["staged_rows"]:
        raise AirflowSkipException("no row was staged, so no day has changed")


def report_refused(summary: Summary) -> None:
    """Fails, without another try, where a file was refused; everything else has landed by now."""
    if refused := summary["refused"]:
        raise AirflowFailException(f"{len(refused)} refused: " + " | ".join(refused))
