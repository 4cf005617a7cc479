"""Connections that stay, for who lands again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from callhouse import warehouse
from callhouse.settings import Settings


class Connections:
    """A collector's connections: to connect anew for each landing would cost as much as to land.

    The first one keeps the plans of the state's views. `enter` is called with it when it is new,
    and refuses it by an exception.
    """

    def __init__(
        self, settings: Settings, enter: Callable[[psycopg.Connection], None] | None = None
    ) -> None:
        self.settings, self.enter = settings, enter
        self._main: psycopg.Connection | None = None
        self._sides: dict[int, psycopg.Connection] = {}

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """A block that commits at its end. A server that has gone away is connected to anew."""
        if self._main is None or self._main.closed:
            main = warehouse.opened(self.settings)
            try:
                if self.enter:
                    with main.transaction():
                        self.enter(main)
            except BaseException:
                main.close()
                raise
            self._main = main
        try:
            with self._main.transaction():
                yield self._main
        except psycopg.OperationalError:
            self.close()
            raise

    def side(self, number: int) -> psycopg.Connection:
        """A connection besides the transaction's own, each statement of which commits at once."""
        side = self._sides.get(number)
        if side is None or side.closed:
            side = self._sides[number] = warehouse.opened(self.settings, autocommit=True)
        return side

    def close(self) -> None:
        """Let go of the warehouse: the next transaction connects anew."""
        for connection in (self._main, *self._sides.values()):
            if connection:
                connection.close()
        self._main = None
        self._sides.clear()
