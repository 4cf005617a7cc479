"""Identifiers, ARNs and times as Amazon Connect writes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import md5
from typing import Any
from uuid import UUID

from callhouse.simulate import world
from callhouse.simulate.records import Agent

ACCOUNT = "111122223333"
INSTANCE = f"arn:aws:connect:ap-southeast-1:{ACCOUNT}:instance/0c1e5a7e-0000-4000-8000-000000000001"

Json = dict[str, Any]


class Names:
    """The same names for the same seed; `epoch` is the first midnight."""

    def __init__(self, epoch: int, seed: int) -> None:
        self.epoch = epoch
        self._seed = seed
        self._stamps: dict[int, str] = {}
        self._arns: dict[tuple[str, str], str] = {}

    def uuid(self, name: str) -> str:
        """A random-looking identifier of `name`."""
        digest = md5(f"{self._seed}/{name}".encode(), usedforsecurity=False).digest()
        return str(UUID(bytes=digest, version=4))

    def arn(self, kind: str, name: str) -> str:
        """Of a queue, an agent, a routing profile and so on."""
        found = self._arns.get((kind, name))
        if found is None:
            found = self._arns[kind, name] = f"{INSTANCE}/{kind}/{self.uuid(f'{kind}/{name}')}"
        return found

    def stamp(self, second: int | None) -> str | None:
        """UTC, whole seconds."""
        if second is None:
            return None
        day, rest = divmod(self.epoch + second, world.DAY)
        if day not in self._stamps:
            self._stamps[day] = datetime.fromtimestamp(day * world.DAY, UTC).strftime("%Y-%m-%dT")
        return f"{self._stamps[day]}{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}Z"

    def milli(self, second: int | None) -> str | None:
        """UTC with the milliseconds that agent events have."""
        stamp = self.stamp(second)
        return None if stamp is None else f"{stamp[:-1]}.000Z"

    def groups(self, team_id: str, label: str) -> Json:
        """Region and team; records and events name the `label` differently."""
        region = next(team.region for team in world.TEAMS if team.team_id == team_id)
        return {
            "Level1": {"ARN": self.arn("agent-group", region), label: region},
            "Level2": {"ARN": self.arn("agent-group", team_id), label: team_id},
            "Level3": None,
            "Level4": None,
            "Level5": None,
        }

    def profile(self, agent: Agent) -> Json:
        """A routing profile stands for the skills."""
        name = "-".join(agent.skills)
        return {"ARN": self.arn("routing-profile", name), "Name": name}

    def queue(self, queue_id: str) -> Json:
        """A queue as a reference."""
        return {"ARN": self.arn("queue", queue_id), "Name": queue_id}


def text(value: object) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"))
