"""Reading single rows for :mod:`rankloom_server.quick`, in the event loop itself."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import sqlalchemy as sa

_CONNECTIONS = 8
_PATIENCE_SECONDS = 1.0


class Reader(Protocol):
    """A connection to the database for single statements, beside the ordinary ones."""

    async def one(self, text: str, values: Mapping[str, Any]) -> Sequence[Any] | None:
        """Return the row that a statement gives, ``None`` if none or if the database refuses."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class SqliteReader:
    """Reads at once in the event loop: a lookup takes less time than handing it to a thread."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        self._connection.execute("PRAGMA query_only = ON")

    async def one(self, text: str, values: Mapping[str, Any]) -> Sequence[Any] | None:
        """Return the row that a statement gives."""
        try:
            found: Sequence[Any] | None = self._connection.execute(text, values).fetchone()
        except sqlite3.Error:  # the ordinary route meets it too, and knows what to say
            return None
        return found

    async def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class PostgresReader:
    """Reads over a few connections of its own, which prepare what they run often."""

    def __init__(self, url: sa.URL) -> None:
        from psycopg_pool import AsyncConnectionPool

        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        options = {"autocommit": True}
        self._pool = AsyncConnectionPool(
            plain, min_size=1, max_size=_CONNECTIONS, open=False, kwargs=options
        )

    async def one(self, text: str, values: Mapping[str, Any]) -> Sequence[Any] | None:
        """Return the row that a statement gives."""
        import psycopg

        try:
            if self._pool.closed:
                await self._pool.open()
            async with self._pool.connection(_PATIENCE_SECONDS) as connection:
                cursor = await connection.execute(text, values)
                return await cursor.fetchone()
        except psycopg.Error:  # the ordinary route meets it too, and knows what to say
            return None

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()


def open_reader(engine: sa.Engine) -> Reader:
    """Return a reader of an engine's database; to be opened and used in one event loop."""
    if engine.dialect.name == "sqlite":
        return SqliteReader(engine.url.database or "")
    return PostgresReader(engine.url)
