"""Resolving by the shortest way: one prepared statement, answered with the bytes that it gives.

Refs are resolved far more often than anything else is asked. A request that is plainly a hit is
answered here. All others are left to the ordinary route, which alone knows the errors: who may not
read, what does not exist or was purged, a namespace that demands signatures, a token whose use
must be noted, a database that is busy.

Two doors lead here: :mod:`rankloom_server.quick_protocol` takes requests from the connection, and
:class:`QuickResolve` those that come as ASGI has them.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from starlette.routing import Route

from rankloom import digest as digests
from rankloom import ref as refs
from rankloom.errors import RateLimitError
from rankloom_server import auth, problems, quick_reader, quick_statement
from rankloom_server.access import ANONYMOUS

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa
    from starlette import types

    from rankloom_server.rates import Rates

ROUTE = "/api/v1/adapters/{namespace}/{name}/resolve"
_PATH = re.compile(r"/api/v1/adapters/([a-z0-9._-]+)/([a-z0-9._-]+)/resolve", re.ASCII)
_FORMS = {
    "alias": re.compile(r"[a-z0-9._-]+", re.ASCII),
    "number": re.compile(r"[1-9][0-9]{0,8}", re.ASCII),
    "digest": re.compile(r"sha256:[0-9a-f]{64}"),
}
_BARE = "&bare=true"

LOOKED_UP = "looked_up"
"""In the state of a request that the other door has looked up, and did not answer."""


class Asked(NamedTuple):
    """What a request names; ``how`` is ``latest``, ``alias``, ``number`` or ``digest``.

    ``bare``: the namespace was supposed, so that no other may have the name.
    """

    namespace: str
    name: str
    how: str
    value: str
    token: str | None
    bare: bool


class Hit(NamedTuple):
    """Who asked, and the answer."""

    actor: str
    body: bytes


class Quick:
    """Looks for what is plainly a hit, and may be given out."""

    def __init__(self, engine: sa.Engine, rates: Rates) -> None:
        self._engine = engine
        self._rates = rates
        self._reader: quick_reader.Reader | None = None
        self._marks = itertools.count()
        self._statements: dict[tuple[str, bool, bool], quick_statement.Statement] = {}

    def find(self, asked: Asked, then: Callable[[Hit | None], None]) -> None:
        """Give ``then`` the hit, now or later in the event loop; ``None`` if it is none."""
        if self._reader is None:
            self._reader = quick_reader.open_reader(self._engine)
        now = datetime.now(UTC)
        statement = self._statement(asked)
        values = {
            "mark": str(next(self._marks)),
            "namespace": asked.namespace,
            "name": asked.name,
            "value": asked.value,
            "secret": asked.token and digests.of_bytes(asked.token.encode()),
            "now": self._in_database(now),
            "noted": self._in_database(now - auth.USE_NOTED_EVERY),
        }
        self._reader.one(statement.text, statement.values(values), lambda row: then(_hit(row)))

    def spend(self, actor: str, scope: types.Scope) -> None:
        """Count a request that is answered here.

        Raises:
            RateLimitError: too many.
        """
        address = scope["client"][0] if scope.get("client") else "somewhere"
        client = address if actor == ANONYMOUS.name else f"token {actor}"
        self._rates.spend(client, scope)

    async def close(self) -> None:
        """Close the connection to the database."""
        if self._reader is not None:
            await self._reader.close()

    def _in_database(self, moment: datetime) -> str:
        if self._engine.dialect.name != "sqlite":
            return moment.isoformat()
        return moment.replace(tzinfo=None).isoformat(" ", "microseconds")

    def _statement(self, asked: Asked) -> quick_statement.Statement:
        kind = asked.how, asked.token is None, asked.bare
        if kind not in self._statements:
            self._statements[kind] = quick_statement.compiled(
                self._engine.dialect, asked.how, anonymous=asked.token is None, bare=asked.bare
            )
        return self._statements[kind]


def _hit(row: quick_reader.Row | None) -> Hit | None:
    if row is None:
        return None
    _, actor, required, namesake, *answer = row
    if not actor or required not in {None, "[]"} or namesake:
        return None
    return Hit(actor, quick_statement.body(*answer))


class QuickResolve:
    """Answers requests to resolve that are hits, and passes on all others."""

    def __init__(self, app: types.ASGIApp, quick: Quick) -> None:
        self._app = app
        self._quick = quick

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Handle one request."""
        asked = _asked(scope) if scope["type"] == "http" else None
        found = None if asked is None else await self._find(asked)
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["state"]["actor"] = found.actor
        scope["route"] = _ROUTE
        try:
            self._quick.spend(found.actor, scope)
        except RateLimitError as error:
            problem = problems.of_error(error, scope["state"]["request_id"])
            await problems.respond(problem)(scope, receive, send)
            return
        length = b"%d" % len(found.body)
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": found.body})

    async def _find(self, asked: Asked) -> Hit | None:
        found: asyncio.Future[Hit | None] = asyncio.get_running_loop().create_future()

        def then(hit: Hit | None) -> None:
            if not found.done():  # the client may have gone
                found.set_result(hit)

        self._quick.find(asked, then)
        return await found


_ROUTE = Route(ROUTE, QuickResolve)


def _asked(scope: types.Scope) -> Asked | None:
    if scope["state"].get(LOOKED_UP):
        return None
    if scope["method"] != "GET" or not (path := _PATH.fullmatch(scope["path"])):
        return None
    query = scope["query_string"].decode("latin-1")
    header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    return read(path[1], path[2], query, header)


def read(namespace: str, name: str, query: str, authorization: bytes | None) -> Asked | None:
    """Return what a request names, if it is one of the plain forms.

    Args:
        namespace: from the path; in form a name.
        name: of the adapter, likewise.
        query: as it was sent, without its question mark.
        authorization: the header, if there is one.
    """
    bare = query.endswith(_BARE)
    query = query.removesuffix(_BARE)
    how, _, value = query.partition("=") if query else ("alias", "", refs.LATEST)
    value = value.replace("%3A", ":")  # as some clients write the one in a digest
    if how not in _FORMS or not _FORMS[how].fullmatch(value):
        return None
    if value == refs.LATEST:
        how = "latest"
    if authorization is not None and not authorization.startswith(b"Bearer "):
        return None
    token = None if authorization is None else authorization[7:].decode("latin-1")
    return Asked(namespace, name, how, value, token, bare)
