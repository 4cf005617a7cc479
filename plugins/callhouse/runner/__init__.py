"""Everything that runs: starting, stopping and asking after an instance.

Imports happen in the functions: the containers of Superset use this package without the
pipeline's libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callhouse.runner.diagnosis import Finding
    from callhouse.runner.lifecycle import Status
    from callhouse.settings import Settings


def up(settings: Settings, report: Callable[[str], None]) -> None:
    """Bring the instance up and wait until it is healthy; safe to repeat."""
    from callhouse.runner import lifecycle

    lifecycle.up(settings, report)


def down(settings: Settings, report: Callable[[str], None] | None = None) -> None:
    """End every process of the instance; nothing is deleted."""
    from callhouse.runner import lifecycle

    lifecycle.down(settings, report or _nothing)


def _nothing(_line: str) -> None:
    """Where progress goes that nobody asked for."""


def status(settings: Settings) -> Status:
    """The components with their health, and the addresses."""
    from callhouse.runner import lifecycle

    return lifecycle.status(settings)


def doctor(settings: Settings) -> list[Finding]:
    """What may be wrong on this machine, each with what to do about it."""
    from callhouse.runner import diagnosis

    return diagnosis.doctor(settings)
