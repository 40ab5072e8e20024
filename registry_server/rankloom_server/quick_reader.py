"""Reading single rows for :mod:`rankloom_server.quick`, in the event loop itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg
    import sqlalchemy as sa
    from psycopg.pq.abc import PGconn, PGresult

_PATIENCE_SECONDS = 1.0
_OPENING_SECONDS = 5
# How long a database that could not be reached is left to the ordinary route.
_REST_SECONDS = 5.0

_log = logging.getLogger("rankloom_server")

Row = tuple[Any, ...]
"""What one row has: text, numbers as text or as they are, and ``None``."""


class Reader(Protocol):
    """A connection to the database for single statements, beside the ordinary ones."""

    def one(self, text: str, values: Sequence[Any], then: Callable[[Row | None], None]) -> None:
        """Give ``then`` the row of a statement, now or later in the event loop.

        The first of the values is a text that no other question has, and comes back as the first
        column: an answer to another question is never given out.
        It is given ``None`` if there is no row, or if the database refuses or does not answer:
        the ordinary route meets that too, and knows what to say.
        """
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class SqliteReader:
    """Reads at once in the event loop: a lookup takes less time than handing it to a thread."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        self._connection.execute("PRAGMA query_only = ON")

    def one(self, text: str, values: Sequence[Any], then: Callable[[Row | None], None]) -> None:
        """Give the row of a statement at once."""
        try:
            found: Row | None = self._connection.execute(text, values).fetchone()
        except sqlite3.Error:
            found = None
        then(found)

    async def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class _Question(NamedTuple):
    text: str
    values: Sequence[Any]
    then: Callable[[Row | None], None]
    since: float


class _Line:
    """One connection and what is on the way over it, which ends with it."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection
        self.pgconn: PGconn = connection.pgconn
        # Of our own: libpq closes its socket when the other end does, and tells no more which.
        self.fd = os.dup(connection.pgconn.socket)
        self.sent: deque[_Question | None] = deque()  # None: a statement was prepared
        self.prepared: dict[str, bytes] = {}

    def send(self, question: _Question) -> None:
        name = self.prepared.get(question.text)
        if name is not None:
            self.sent.append(question)
        else:
            self.sent += [None, question]
            name = self.prepared[question.text] = b"rankloom_%d" % len(self.prepared)
            self.pgconn.send_prepare(name, question.text.encode())
        self.pgconn.send_query_prepared(name, [str(value).encode() for value in question.values])

    def take(self, result: PGresult) -> None:
        """Give on what one command resulted in.

        Raises:
            psycopg.Error: it failed, or is not what was asked.
        """
        import psycopg
        from psycopg.pq import ExecStatus

        if result.status == ExecStatus.PIPELINE_SYNC:
            return
        if result.status not in {ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK} or not self.sent:
            raise psycopg.DatabaseError
        question = self.sent[0]
        row = _row(result)
        if row is not None and (question is None or row[0] != question.values[0]):
            raise psycopg.DatabaseError
        self.sent.popleft()
        if question is not None:
            question.then(row)


class PostgresReader:
    """Reads over one connection, on which statements follow each other without waiting.

    It speaks to libpq, which sends what the requests of one turn of the event loop ask in one
    piece (its pipeline), and prepares every statement once. A task, a pool and a cursor for each
    row would take longer than the database does.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._place = engine.dialect.create_connect_args(engine.url)
        self._loop = asyncio.get_running_loop()
        self._opening: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._rests_until = 0.0
        self._told = False
        self._line: _Line | None = None
        self._unsent: deque[_Question] = deque()
        self._watch: asyncio.TimerHandle | None = None

    def one(self, text: str, values: Sequence[Any], then: Callable[[Row | None], None]) -> None:
        """Give the row of a statement when it has come."""
        if self._line is None and self._loop.time() < self._rests_until:
            then(None)
            return
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(_Question(text, values, then, self._loop.time()))
        if self._watch is None:
            self._watch = self._loop.call_later(_PATIENCE_SECONDS, self._look)

    async def close(self) -> None:
        """Close the connection."""
        if self._opening is not None:
            self._opening.cancel()
        self._drop()
        await asyncio.gather(*self._leaving)

    def _send(self) -> None:
        """Send all that was asked since the last time; open the connection if there is none."""
        import psycopg

        if self._line is None:
            if self._opening is None:
                self._opening = self._loop.create_task(self._open())
            return
        try:
            while self._unsent:
                self._line.send(self._unsent.popleft())
            self._line.pgconn.pipeline_sync()
        except psycopg.Error:
            self._drop()
        else:
            self._flush()

    def _flush(self) -> None:
        import psycopg

        line = self._line
        assert line is not None  # noqa: S101 - only called while there is one
        try:
            waits = line.pgconn.flush()
        except psycopg.Error:
            self._drop()
            return
        if waits:  # the socket takes no more now
            self._loop.add_writer(line.fd, self._flush)
        else:
            self._loop.remove_writer(line.fd)

    async def _open(self) -> None:
        import psycopg

        try:
            arguments, named = self._place
            named = {"connect_timeout": _OPENING_SECONDS, **named, "client_encoding": "utf8"}
            opened = await psycopg.AsyncConnection.connect(*arguments, autocommit=True, **named)
            opened.pgconn.nonblocking = 1
            opened.pgconn.enter_pipeline_mode()
            self._line = _Line(opened)
        except (psycopg.Error, OSError) as error:
            self._rest(error)
            self._drop()
            return
        finally:
            self._opening = None
        self._rests_until, self._told = 0.0, False
        self._loop.add_reader(self._line.fd, self._read)
        self._send()

    def _rest(self, why: Exception | str) -> None:
        """Leave all to the ordinary route for a while, and say so the first time."""
        self._rests_until = self._loop.time() + _REST_SECONDS
        if not self._told:
            said = "refs are resolved by the ordinary route only, without a connection: %s"
            _log.warning(said, " ".join(str(why).split()))
            self._told = True

    def _read(self) -> None:
        import psycopg

        line = self._line
        assert line is not None  # noqa: S101 - only called while there is one
        try:
            line.pgconn.consume_input()
            ended = False  # two nothings after each other: the rest has not come yet
            while not line.pgconn.is_busy():
                result = line.pgconn.get_result()
                if result is not None:
                    line.take(result)
                elif ended:
                    break
                ended = result is None
        except psycopg.Error:
            self._drop()

    def _look(self) -> None:
        """Give up on a connection that does not answer."""
        self._watch = None
        asked = self._asked()
        if not asked:
            return
        left = asked[0].since + _PATIENCE_SECONDS - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look)
            return
        silent = self._detach()
        if silent is None:
            self._rest("the database does not answer")
        else:
            task = self._loop.create_task(_leave(silent))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        self._pass_on(asked)

    def _asked(self) -> list[_Question]:
        """Return what is not answered, in the order in which it was asked."""
        sent = () if self._line is None else self._line.sent
        return [one for one in (*sent, *self._unsent) if one is not None]

    def _drop(self) -> None:
        """Close the connection."""
        asked = self._asked()
        connection = self._detach()
        if connection is not None:
            connection.pgconn.finish()
        self._pass_on(asked)

    def _detach(self) -> psycopg.AsyncConnection[Any] | None:
        """Return the connection, of which nothing is expected any more."""
        line, self._line = self._line, None
        if line is None:
            return None
        self._loop.remove_reader(line.fd)
        self._loop.remove_writer(line.fd)
        os.close(line.fd)
        return line.connection

    def _pass_on(self, asked: list[_Question]) -> None:
        """Let the ordinary route answer what was asked over a connection that is no more."""
        self._unsent.clear()
        for question in asked:
            question.then(None)


async def _leave(connection: psycopg.AsyncConnection[Any]) -> None:
    """Close a connection whose statement, e.g. behind a lock, would wait on without us."""
    import psycopg

    with contextlib.suppress(psycopg.Error):
        await connection.cancel_safe(timeout=_PATIENCE_SECONDS)
    await connection.close()


def _row(result: PGresult) -> Row | None:
    if not result.ntuples:
        return None
    cells = (result.get_value(0, number) for number in range(result.nfields))
    return tuple(None if cell is None else cell.decode() for cell in cells)


def open_reader(engine: sa.Engine) -> Reader:
    """Return a reader of an engine's database; to be opened and used in one event loop."""
    if engine.dialect.name == "sqlite":
        return SqliteReader(engine.url.database or "")
    return PostgresReader(engine)
