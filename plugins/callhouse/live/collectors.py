"""Collectors: what follows logs, or listens to exchanges, each in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import psycopg

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.live import state
from callhouse.live.listener import Listener
from callhouse.live.tail import Tail
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.sources.contract import Listened, Tailed

LOOK_SECONDS = 0.5
# Between attempts while the server, or the log, is away.
RETRY_SECONDS = 3.0
# How soon the state is kept again after an upgrade, or seeds, have taken its views away.
KEEP_SECONDS = 20.0
# How often it is asked anew what today usually brings: the day changes, and weeks are published.
LEARN_SECONDS = 900.0

Say = Callable[[str], None]


class Collector(Protocol):
    """What is asked again and again to land what is new."""

    name: str

    @property
    def follows(self) -> str:
        """Log or address, for people."""

    def look(self) -> bool:
        """Land what is new; True where more waits already."""

    def forget(self) -> None:
        """What failed may have been committed."""

    def disconnect(self) -> None:
        """Let go of the warehouse."""

    def close(self) -> None:
        """Let go of everything."""


def configured(
    settings: Settings, names: Sequence[str] = (), say: Say = print
) -> list[Tail | Listener]:
    """The collectors of the feeds called `names`, or of all."""
    feeds = [registry.feed(settings, name) for name in names] or registry.feeds(settings)
    found: list[Tail | Listener] = []
    for feed in feeds:
        if isinstance(feed, Tailed) and (path := registry.tail(feed)):
            found.append(Tail(settings, feed, path, say=say))
        elif isinstance(feed, Listened) and (address := registry.listens(feed)):
            found.append(Listener(settings, feed, address, say=say))
    followed = {collector.name for collector in found}
    if missing := [name for name in names if name not in followed]:
        raise CallhouseError(
            f"feed {missing[0]} follows nothing: add `tail: PATH`, or a `location` that is "
            "listened to, to its YAML"
        )
    if not found:
        raise CallhouseError(
            "nothing to collect: no feed has `tail: PATH`, or a `location` that is listened to, "
            "in its YAML"
        )
    return found


def collect(
    settings: Settings, found: Sequence[Collector], stop: threading.Event, say: Say
) -> None:
    """Let every one collect until `stop`, and keep the state; what goes away is waited for."""
    threads = [threading.Thread(target=_follow, args=(one, stop, say)) for one in found]
    threads.append(threading.Thread(target=keep, args=(settings, stop, say)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def keep(settings: Settings, stop: threading.Event, say: Say) -> None:
    """Keep the views of the state as the programs and the seeds are, until `stop`."""
    told, learned_at = "", 0.0
    while not stop.is_set():
        try:
            with _alone(settings):
                state.install(settings, say)
            if not learned_at or time.monotonic() - learned_at > LEARN_SECONDS:
                state.learn(settings)
                learned_at = time.monotonic()
            told = ""
        except (CallhouseError, psycopg.Error, OSError) as problem:
            if str(problem) != told:
                told = str(problem)
                say(f"live: {told}")
        stop.wait(KEEP_SECONDS)


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Collector and receiver both keep the views: dbt must not make them twice at once."""
    with warehouse.connect(settings, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(hashtextextended('keep live views', 0))")
        yield


def _follow(collector: Collector, stop: threading.Event, say: Say) -> None:
    told = ""
    while not stop.is_set():
        began = time.monotonic()
        try:
            has_more = collector.look()
        except (CallhouseError, psycopg.Error, OSError) as problem:
            if str(problem) != told:
                told = str(problem)
                say(f"{collector.name}: {told}; trying again")
            collector.forget()
            collector.disconnect()
            stop.wait(RETRY_SECONDS)
            continue
        if told:
            say(f"{collector.name}: goes on")
            told = ""
        if not has_more:
            stop.wait(max(0.0, LOOK_SECONDS - (time.monotonic() - began)))
    collector.close()
