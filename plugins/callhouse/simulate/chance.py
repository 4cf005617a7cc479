"""Random numbers: one independent stream per purpose, so that a change to one leaves the others."""

from __future__ import annotations

import random


def stream(seed: int, purpose: str) -> random.Random:
    """The same numbers for the same seed and purpose, on every machine."""
    return random.Random(f"{seed}/{purpose}")  # noqa: S311 - made-up calls, no secrets
