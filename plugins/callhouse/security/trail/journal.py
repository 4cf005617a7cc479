"""Events that no database sees, as lines of JSON in files of a day, for the trail to collect.

Standard library only: Superset's processes import it, and every command.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from callhouse.settings import Settings


def directory(settings: Settings) -> Path:
    """Where the files are. What is in them is not masked: only the account itself reads them."""
    return settings.log_directory / "trail"


def write(settings: Settings, origin: str, event: Mapping[str, Any]) -> None:
    """Add one event, named as the columns of trail.entries. OSError where it cannot be kept.

    One write to a file that is only appended to: lines of several processes do not mix.
    """
    now = datetime.now(UTC)
    folder = directory(settings)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps({"happened_at": now.isoformat(), **event}, ensure_ascii=False)
    # The first line break ends what a full disk may have cut off before.
    line = f"\n{text}\n".encode("utf-8", "replace")
    file = folder / f"{origin}-{now:%Y-%m-%d}.jsonl"
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(f"{file} is cut off: is the disk full?")
    finally:
        os.close(descriptor)
