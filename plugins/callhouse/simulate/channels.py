"""Asterisk's names of the channels of a call: queue_log, CDR and CEL agree on them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

from callhouse.simulate import world
from callhouse.simulate.clock import Clock
from callhouse.simulate.records import Call, Leg, Ring

PER_CALL = 20  # the caller's channel, then one per leg, then those that rang in vain
IN_VAIN = 10
EXTENSIONS = {"service": "4000000001", "premium": "4000000002"}


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel with its name and unique id."""

    name: str
    unique_id: str


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels of the call with this number; `epoch` is the first midnight."""

    call: Call
    number: int
    epoch: int

    @property
    def caller(self) -> Channel:
        """The trunk's channel; of a call-back the agent's, whose unique id names the call."""
        first = self.number * PER_CALL
        party = f"{self.call.legs[0].agent_id}" if self.call.channel == "callback" else "trunk"
        return Channel(f"PJSIP/{party}-{first:08x}", f"{self.epoch + self.call.arrived}.{first}")

    def agent(self, leg_number: int, leg: Leg) -> Channel:
        """The channel of the agent who answered."""
        since = (leg.answered or 0) - (leg.ring_seconds or 0)
        return self._of(leg.agent_id, since, leg_number)

    def in_vain(self, place: int, ring: Ring) -> Channel:
        """The channel of an agent who did not answer; `place` counts these in the call."""
        return self._of(ring.agent_id, ring.start, IN_VAIN + place)

    def customer(self) -> Channel:
        """The outbound channel of a call-back."""
        return self._of("trunk", self.call.arrived, 1)

    def consulting(self, leg_number: int, leg: Leg) -> Channel:
        """The second channel of an agent who consults a colleague."""
        since = (leg.released or 0) - leg.aside_seconds
        return self._of(leg.agent_id, since, PER_CALL - leg_number)

    def _of(self, party: str, since: int, offset: int) -> Channel:
        number = self.number * PER_CALL + offset
        return Channel(f"PJSIP/{party}-{number:08x}", f"{self.epoch + since}.{number}")


def comma_separated(fields: Sequence[str | int]) -> str:
    """A line as Asterisk's CSV backends write it: texts quoted, numbers not."""
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_NONNUMERIC, lineterminator="").writerow(fields)
    return buffer.getvalue()


def file_names(name: str, start: date, days: int) -> list[str]:
    """What a run may write: the last calls may end on the day after."""
    return [_file_name(name, day.isoformat()) for day in world.days(start, days + 1)]


def _file_name(name: str, day: str) -> str:
    return f"{name}-{day}.csv.gz"


def by_day(
    name: str, clock: Clock, lines: Iterable[tuple[int, str]]
) -> Iterator[tuple[str, list[str]]]:
    """Files per local day; `lines` are in order of time."""
    for day, found in groupby(lines, key=lambda line: line[0] // world.DAY):
        yield _file_name(name, clock.day(day * world.DAY)), [text for _, text in found]
