"""Seeded sample data: a call centre simulated with SimPy, as files and as truth.

The same arguments give byte-identical files. Nothing here is used by the pipeline, and the truth
uses nothing of the pipeline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from callhouse.errors import CallhouseError
from callhouse.simulate import (
    carrier,
    cdr,
    cel,
    channels,
    connect,
    details,
    feed,
    menus,
    queue_log,
    surveys,
    truth,
)
from callhouse.simulate.centre import Centre, Progress
from callhouse.simulate.rendering import Rendering

DEFAULT_SEED = 42
DEFAULT_START = date(2026, 10, 5)
DEFAULT_DAYS = 35
DEFAULT_CALLS_PER_DAY = 3000
FORMATS = ("delimited", "queue_log", "cdr", "cel", "connect", "carrier")


@dataclass(frozen=True)
class SimulationResult:
    """Where the files are and what they hold."""

    directory: Path
    truth: Path
    call_files: tuple[Path, ...]
    agents_file: Path
    queues_file: Path
    totals: Mapping[str, int]  # counts over all days, named like the metrics
    dirt: Mapping[str, int]  # pieces injected into the call files, by kind
    renderings: Mapping[str, Rendering]  # of the other formats, by name


def write(
    directory: Path,
    *,
    seed: int = DEFAULT_SEED,
    start: date = DEFAULT_START,
    days: int = DEFAULT_DAYS,
    calls_per_day: int = DEFAULT_CALLS_PER_DAY,
    dirt: bool = True,
    formats: Sequence[str] = ("delimited",),
    progress: Progress | None = None,
) -> SimulationResult:
    """Simulate `days` days and write the feed into `directory`, the truth into its `truth/`.

    `progress` gets a sentence per simulated day. `calls_per_day` is the mean over a year without
    holidays and spikes. Dirt and formats change the files, never the world or its truth. With dirt
    and the format `carrier` the delimited feed lacks some calls that the carrier has.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise CallhouseError(
            f"{', '.join(unknown) or 'nothing'} is no format: choose from {', '.join(FORMATS)}"
        )
    if days < 1 or calls_per_day < 1:
        raise CallhouseError(
            f"cannot simulate {days} days with {calls_per_day} calls a day: both must be at least 1"
        )
    _refuse_foreign_files(directory, start, days)
    directory.mkdir(parents=True, exist_ok=True)
    played = Centre(seed, start, days, calls_per_day, progress).run()
    menus.walk(played.calls, seed)
    surveys.ask(played.calls, seed)
    references = feed.write_references(directory, played, start)
    files = feed.FeedFiles([], {}, [])
    lost = carrier.lost(played, seed) if dirt and "carrier" in formats else set[str]()
    if "delimited" in formats:
        kept = replace(played, calls=[c for c in played.calls if c.call_id not in lost])
        files = feed.write(directory, kept, start, days, seed, dirt)
        nowhere = {"kind": "lost_call", "file": None, "line": None, "leg": None}
        files.dirt.extend(nowhere | {"call_id": call_id} for call_id in sorted(lost))
        details.write(directory, kept, start, days)
    renderings = []
    if "queue_log" in formats:
        renderings.append(queue_log.write(directory, played, start, days, seed, dirt))
    if "cdr" in formats:
        renderings.append(cdr.write(directory, played, start, days, seed, dirt))
    if "cel" in formats:
        renderings.append(cel.write(directory, played, start, days, seed, dirt))
    if "connect" in formats:
        renderings.append(connect.write(directory, played, start, seed, dirt))
    if "carrier" in formats:
        renderings.append(carrier.write(directory, played, start, days, seed, lost))
    parameters = {
        "seed": seed,
        "start": start.isoformat(),
        "days": days,
        "calls_per_day": calls_per_day,
        "dirt": dirt,
    }
    summary = truth.write(directory / "truth", played, files, renderings, start, days, parameters)
    return SimulationResult(
        directory,
        directory / "truth",
        tuple(files.calls),
        references.agents,
        references.queues,
        summary["totals"],
        dict(sorted(Counter(entry["kind"] for entry in files.dirt).items())),
        {rendering.name: rendering for rendering in renderings},
    )


def _refuse_foreign_files(directory: Path, start: date, days: int) -> None:
    """Files of another run would be landed together with this one's, and match no truth."""
    own = {
        ".": [
            *feed.call_file_names(start, days),
            *(name for kind in details.KINDS for name in details.file_names(kind, start, days)),
        ],
        queue_log.FOLDER: queue_log.file_names(days),
        cdr.FOLDER: channels.file_names("Master", start, days),
        cel.FOLDER: channels.file_names("Master", start, days),
        connect.FOLDER: connect.file_names(start, days),
        carrier.FOLDER: carrier.file_names(start, days),
    }
    foreign = sorted(
        path.name
        for folder, names in own.items()
        for path in (directory / folder).glob("*" if folder != "." else "*_*.csv.gz")
        if path.name not in names
    )
    if foreign:
        raise CallhouseError(
            f"{directory} holds files of another simulation ({foreign[0]}"
            f"{' and others' if len(foreign) > 1 else ''}): choose an empty folder or remove them"
        )
