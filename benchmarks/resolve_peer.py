"""What a resolve costs without our code: one row by name and alias, as JSON.

An ASGI application that a careful hand would write for this one question: no framework, no token,
no log, the same uvicorn. ``PEER_DATABASE`` is a path of SQLite, or a URL of PostgreSQL.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from psycopg_pool import AsyncConnectionPool

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

STATEMENT = (
    "SELECT v.number, v.digest, v.manifest FROM adapter a "
    "JOIN alias l ON l.adapter_id = a.id "
    "JOIN version v ON v.adapter_id = a.id AND v.digest = l.digest "
    "WHERE a.namespace = {0} AND a.name = {0} AND l.name = {0}"
)


class Peer:
    """The application."""

    def __init__(self, database: str) -> None:
        self._pool = None
        if database.startswith("postgresql"):
            options = {"autocommit": True}
            self._pool = AsyncConnectionPool(
                database, min_size=1, max_size=8, open=False, kwargs=options
            )
            self._text = STATEMENT.format("%s")
        else:
            self._sqlite = sqlite3.connect(database)
            self._text = STATEMENT.format("?")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        query = parse_qs(scope["query_string"].decode())
        _, _, _, _, namespace, name, _ = scope["path"].split("/")
        number, digest, manifest = await self._row((namespace, name, query["alias"][0]))
        body = f'{{"number":{number},"digest":"{digest}","manifest":{manifest}}}'.encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _row(self, values: tuple[str, ...]) -> Any:  # noqa: ANN401 - a driver's row
        if self._pool is None:
            return self._sqlite.execute(self._text, values).fetchone()
        await self._pool.open()
        async with self._pool.connection() as connection:
            return await (await connection.execute(self._text, values)).fetchone()


app = Peer(os.environ["PEER_DATABASE"])
