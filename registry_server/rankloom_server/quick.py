"""Resolving by the shortest way: one prepared statement, answered with the bytes that it gives.

Refs are resolved far more often than anything else is asked. A request that is plainly a hit is
answered here. All others are left to the ordinary route, which alone knows the errors: who may not
read, what does not exist or was purged, a namespace that demands signatures, a token whose use
must be noted, a database that is busy.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.routing import Route

from rankloom import digest as digests
from rankloom import ref as refs
from rankloom.errors import RateLimitError
from rankloom_server import auth, problems, quick_reader, quick_statement
from rankloom_server.access import ANONYMOUS

if TYPE_CHECKING:
    import sqlalchemy as sa
    from starlette import types

    from rankloom_server.rates import Rates

_PATH = re.compile(r"/api/v1/adapters/([a-z0-9._-]+)/([a-z0-9._-]+)/resolve", re.ASCII)
_FORMS = {
    "alias": re.compile(r"[a-z0-9._-]+", re.ASCII),
    "number": re.compile(r"[1-9][0-9]{0,8}", re.ASCII),
    "digest": re.compile(r"sha256:[0-9a-f]{64}"),
}
_BARE = "&bare=true"


class _Asked(NamedTuple):
    """What a request names; ``how`` is ``latest``, ``alias``, ``number`` or ``digest``.

    ``bare``: the namespace was supposed, so that no other may have the name.
    """

    namespace: str
    name: str
    how: str
    value: str
    token: str | None
    bare: bool


class QuickResolve:
    """Answers requests to resolve that are hits, and passes on all others."""

    def __init__(self, app: types.ASGIApp, engine: sa.Engine, rates: Rates) -> None:
        self._app = app
        self._engine = engine
        self._rates = rates
        self._reader: quick_reader.Reader | None = None
        self._statements: dict[tuple[str, bool], tuple[str, dict[str, Any]]] = {}

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            if self._reader is not None:
                await self._reader.close()
            return
        asked = _asked(scope) if scope["type"] == "http" else None
        found = None if asked is None else await self._find(asked)
        if found is None:
            await self._app(scope, receive, send)
            return
        actor, body = found
        scope["state"]["actor"] = actor
        scope["route"] = _ROUTE
        try:
            self._spend(actor, scope)
        except RateLimitError as error:
            problem = problems.of_error(error, scope["state"]["request_id"])
            await problems.respond(problem)(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _spend(self, actor: str, scope: types.Scope) -> None:
        address = scope["client"][0] if scope.get("client") else "somewhere"
        client = address if actor == ANONYMOUS.name else f"token {actor}"
        self._rates.spend(client, scope)

    async def _find(self, asked: _Asked) -> tuple[str, bytes] | None:
        """Return who asks and the answer, if it is a hit."""
        if self._reader is None:
            self._reader = quick_reader.open_reader(self._engine)
        now = datetime.now(UTC)
        values = {
            "namespace": asked.namespace,
            "name": asked.name,
            "value": int(asked.value) if asked.how == "number" else asked.value,
            "secret": asked.token and digests.of_bytes(asked.token.encode()),
            "now": self._in_database(now),
            "noted": self._in_database(now - auth.USE_NOTED_EVERY),
        }
        text, constants = self._statement(asked.how, asked.token is None)
        row = await self._reader.one(text, {**constants, **values})
        if row is None:
            return None
        actor, required, namesake, *answer = row
        if not actor or required not in {None, "[]"} or (asked.bare and namesake):
            return None
        return actor, quick_statement.body(*answer)

    def _in_database(self, moment: datetime) -> datetime | str:
        if self._engine.dialect.name != "sqlite":
            return moment
        return moment.replace(tzinfo=None).isoformat(" ", "microseconds")

    def _statement(self, how: str, anonymous: bool) -> tuple[str, dict[str, Any]]:
        """Return the text of a statement, and the values in it that are always the same."""
        if (how, anonymous) not in self._statements:
            made = quick_statement.compiled(self._engine.dialect, how, anonymous)
            self._statements[how, anonymous] = made
        return self._statements[how, anonymous]


_ROUTE = Route("/api/v1/adapters/{namespace}/{name}/resolve", QuickResolve)


def _asked(scope: types.Scope) -> _Asked | None:
    if scope["method"] != "GET" or not (path := _PATH.fullmatch(scope["path"])):
        return None
    query = scope["query_string"].decode("latin-1")
    bare = query.endswith(_BARE)
    query = query.removesuffix(_BARE)
    how, _, value = query.partition("=") if query else ("alias", "", refs.LATEST)
    value = value.replace("%3A", ":")  # as some clients write the one in a digest
    if how not in _FORMS or not _FORMS[how].fullmatch(value):
        return None
    if value == refs.LATEST:
        how = "latest"
    header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    if header is not None and not header.startswith(b"Bearer "):
        return None
    token = None if header is None else header[7:].decode("latin-1")
    return _Asked(path[1], path[2], how, value, token, bare)
