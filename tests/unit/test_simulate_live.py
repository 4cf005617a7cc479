"""The simulated exchange: what it plays is a queue_log as it grows, dated now."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from callhouse.simulate import live
from callhouse.simulate.live import Episode

PLAYED = Episode(seed=3, began_at=1_796_000_000.0, speed=4.0, calls_per_day=200)


def test_an_episode_is_in_order_and_whole() -> None:
    lines = list(PLAYED.lines())
    assert lines == list(PLAYED.lines())
    instants = [instant for instant, _ in lines]
    assert instants == sorted(instants) and instants[0] == PLAYED.began_at
    begun, ended = set(), set()
    for instant, line in lines:
        at, call, _, _, event, *data = line.split("|")
        assert int(at) == int(instant)
        if event in live.BEGINNINGS:
            begun.add(call)
        elif event in ("COMPLETEAGENT", "COMPLETECALLER", "ABANDON"):
            assert call in begun
            ended.add(call)
        elif event == "AGENTLOGOFF":
            assert 0 < int(data[1]) <= instant - PLAYED.began_at + 1
    assert len(ended) > 50


def test_time_that_goes_faster_shortens_what_lasts() -> None:
    def talks(speed: float) -> list[int]:
        episode = Episode(3, PLAYED.began_at, speed, 200)
        found = [line.split("|") for _, line in episode.lines()]
        return [int(fields[6]) for fields in found if fields[4] == "COMPLETECALLER"]

    slow, fast = talks(1.0), talks(4.0)
    assert len(slow) == len(fast) > 20
    assert all(abs(a - 4 * b) <= 2 for a, b in zip(slow, fast, strict=True))


def test_a_player_goes_on_where_the_one_before_was_killed(tmp_path: Path) -> None:
    past = Episode(3, time.time() - 7200, 4.0, 200)
    (tmp_path / "episode.json").write_text(json.dumps(vars(past)), encoding="utf-8")
    due = [line for instant, line in past.lines() if instant <= time.time()]
    half = due[: len(due) // 2]
    log = tmp_path / "queue_log"
    log.write_text("".join(f"{line}\n" for line in half) + due[len(half)][:9], encoding="utf-8")
    stop = threading.Event()
    player = threading.Thread(target=live.play, args=(tmp_path, 1.0, stop, lambda _: None))
    player.start()
    deadline = time.monotonic() + 60
    while log.read_text("utf-8").count("\n") < len(due) and time.monotonic() < deadline:
        time.sleep(0.1)
    stop.set()
    player.join()
    assert log.read_text("utf-8").splitlines()[: len(due)] == due
