"""How many rows the queries of checks find, asked for by two sessions at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError

# As many as the cores of a small machine.
SESSIONS = 2
# How the library asks how many rows the query of a check finds.
COUNT = "SELECT COUNT(*) as unexpected_row_count FROM ({}) AS substituted_batch_subquery"


@contextmanager
def counted(library: Engine, queries: Iterable[str]) -> Iterator[None]:
    """A block within which the library is told what `queries` find, each once, in any order.

    By itself it asks one after the other, in one session. It is not made for several threads, so
    that it stays in one, and is answered where it would ask. What cannot be answered it asks all
    the same, and says what is wrong.
    """
    ours = create_engine(library.url, pool_size=SESSIONS)
    known: dict[str, Future[int | None]] = {}

    def answer(
        _connection: Any, _cursor: Any, statement: str, parameters: Any, *_context: Any
    ) -> tuple[str, Any]:
        # Once: who asks again wants to know what is there by then.
        number = known.pop(statement).result() if statement in known else None
        return statement if number is None else f"select {number}", parameters

    pool = ThreadPoolExecutor(max_workers=SESSIONS)
    event.listen(library, "before_cursor_execute", answer, retval=True)
    try:
        for query in queries:
            statement = text(COUNT.format(query))
            known[str(statement.compile(ours))] = pool.submit(_count, ours, statement)
        yield
    finally:
        pool.shutdown(cancel_futures=True)
        event.remove(library, "before_cursor_execute", answer)
        ours.dispose()


def _count(engine: Engine, statement: Any) -> int | None:
    try:
        with engine.connect() as session:
            return int(session.execute(statement).scalar_one())
    except SQLAlchemyError:
        return None
