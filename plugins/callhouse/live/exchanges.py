"""Exchanges that are listened to: their passwords, and whether they let the collector in."""

from __future__ import annotations

from callhouse import warehouse
from callhouse.capture import devices
from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.sources.contract import Listened

# Three of the listener's heartbeats.
NOT_HEARD_SECONDS = 180.0


def secret_name(feed: str) -> str:
    """The secret that a feed's exchange is told."""
    return f"ami_{feed}"


def password(settings: Settings, feed: str) -> str:
    """What was put there for the feed; CallhouseError with where to put it."""
    name = secret_name(feed)
    file = settings.home / "secrets" / name
    if settings.given_secret(name) is None and not file.exists():
        raise CallhouseError(f"the password of its user is missing: write it into {file}")
    return settings.secret(name, is_made=False)


def problems(settings: Settings) -> dict[str, str]:
    """By feed what keeps its exchange from being heard; empty where it is.

    Where nobody has listened for a while its login is tried.
    """
    found = {}
    for feed in registry.feeds(settings):
        if not isinstance(feed, Listened) or not (address := registry.listens(feed)):
            continue
        name = feed.file.stem
        with warehouse.connect(settings) as connection:
            (is_heard,) = warehouse.one(
                connection, "select exists (select from ops.heartbeats where device = %s "
                "and beat_at > now() - make_interval(secs => %s))",
                [devices.listener_name(feed), NOT_HEARD_SECONDS],
            )  # fmt: skip
        found[name] = ""
        if not is_heard:
            try:
                feed.session(address, password(settings, name)).close()
                found[name] = f"{address} answers, but the collector does not listen"
            except CallhouseError as problem:
                found[name] = str(problem)
            except OSError as problem:
                found[name] = f"{address}: {problem}"
    return found
