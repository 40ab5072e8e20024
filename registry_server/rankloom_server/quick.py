"""Resolving by the shortest way: one prepared statement, answered with the bytes that it gives.

Refs are resolved far more often than anything else is asked. A request that is plainly a hit is
answered here. All others are left to the ordinary route, which alone knows the errors: who may not
read, what does not exist or was purged, a namespace that demands signatures, a token whose use
must be noted, a database that is busy.
"""

from __future__ import annotations

import json
import re
import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from starlette.routing import Route

from rankloom import digest as digests
from rankloom import ref as refs
from rankloom.errors import RateLimitError
from rankloom_server import auth, catalogue, problems, signed
from rankloom_server.access import ANONYMOUS, EVERYWHERE, Scope
from rankloom_server.models import ADAPTER, ALIAS, NAMESPACE, TOKEN, TOKEN_GRANT, VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette import types

    from rankloom_server.rates import Rates

_PATH = re.compile(r"/api/v1/adapters/([^/]+)/([^/]+)/resolve")
_FORMS = {
    "alias": re.compile(r"[a-z0-9._-]+", re.ASCII),
    "number": re.compile(r"[1-9][0-9]{0,8}", re.ASCII),
    "digest": re.compile(r"sha256:[0-9a-f]{64}"),
}
_BARE = "&bare=true"
_CONNECTIONS = 8
_PATIENCE_SECONDS = 1.0

_COLUMNS = tuple(column for column in catalogue.VERSION_COLUMNS if column.key != "adapter_id")
_KEYS = tuple(column.key for column in _COLUMNS)
_JSON = tuple(column.key for column in _COLUMNS if isinstance(column.type, sa.JSON))
_encode = json.JSONEncoder().encode


class Reader(Protocol):
    """A connection to the database for single statements, beside the ordinary ones."""

    async def one(self, text: str, values: Mapping[str, Any]) -> Sequence[Any] | None:
        """Return the row that a statement gives, ``None`` if none or if the database is busy."""
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
        except sqlite3.OperationalError:
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

        await self._pool.open()  # does nothing but once
        try:
            async with self._pool.connection(_PATIENCE_SECONDS) as connection:
                cursor = await connection.execute(text, values)
                return await cursor.fetchone()
        except psycopg.OperationalError:
            return None

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()


def open_reader(engine: sa.Engine) -> Reader:
    """Return a reader of an engine's database; to be opened and used in one event loop."""
    if engine.dialect.name == "sqlite":
        return SqliteReader(engine.url.database or "")
    return PostgresReader(engine.url)


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
        self._reader: Reader | None = None
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
            self._reader = open_reader(self._engine)
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
        actor, required, namesake, aliases, manifest, probe, *version = row
        if not actor or required not in {None, "[]"} or (asked.bare and namesake):
            return None
        return actor, _body(version, aliases, manifest, probe)

    def _in_database(self, moment: datetime) -> datetime | str:
        if self._engine.dialect.name != "sqlite":
            return moment
        return moment.replace(tzinfo=None).isoformat(" ", "microseconds")

    def _statement(self, how: str, anonymous: bool) -> tuple[str, dict[str, Any]]:
        """Return the text of a statement, and the values in it that are always the same."""
        if (how, anonymous) not in self._statements:
            self._statements[how, anonymous] = _compiled(self._engine.dialect, how, anonymous)
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


# --- the statement -------------------------------------------------------------------------------

# Rights are compared with what was asked for, and not with a column, which a subquery within a
# subquery would read from a table of its own.
_NAMESPACE: sa.BindParameter[str] = sa.bindparam("namespace", type_=NAMESPACE.c.name.type)


def _compiled(dialect: sa.Dialect, how: str, anonymous: bool) -> tuple[str, dict[str, Any]]:
    columns = [
        sa.cast(column, sa.Text).label(column.key) if column.key in _JSON else column
        for column in _COLUMNS
    ]
    aggregate = sa.func.json_group_array if dialect.name == "sqlite" else sa.func.json_agg
    aliases = sa.select(sa.cast(aggregate(ALIAS.c.name), sa.Text)).where(
        ALIAS.c.adapter_id == ADAPTER.c.id, ALIAS.c.digest == VERSION.c.digest
    )
    statement = (
        sa.select(
            (_public() if anonymous else _holder()).label("actor"),
            sa.cast(signed.REQUIRED, sa.Text).label("required"),
            _namesake().label("namesake"),
            aliases.scalar_subquery().label("aliases"),
            VERSION.c.manifest,
            sa.cast(VERSION.c.probe, sa.Text).label("probe"),
            *columns,
        )
        .select_from(catalogue.VERSIONS)
        .where(
            ADAPTER.c.namespace == _NAMESPACE,
            ADAPTER.c.name == sa.bindparam("name"),
            VERSION.c.purged_at.is_(None),
            _named(how),
        )
    )
    if dialect.name == "sqlite":
        dialect = sqlite.dialect(paramstyle="named")  # as the driver of the other one has them
    compiled = statement.compile(dialect=dialect)
    return str(compiled), dict(compiled.params)


def _named(how: str) -> sa.ColumnElement[bool]:
    value: sa.BindParameter[Any] = sa.bindparam("value")
    if how == "latest":
        return VERSION.c.number == catalogue.LATEST
    if how == "alias":
        named = sa.select(ALIAS.c.digest).where(
            ALIAS.c.adapter_id == ADAPTER.c.id, ALIAS.c.name == value
        )
        return VERSION.c.digest == named.scalar_subquery()
    return VERSION.c[how] == value


def _namesake() -> sa.ScalarSelect[Any]:
    """Return the expression for another namespace that has the name, ``NULL`` if none has."""
    other = ADAPTER.alias("other")
    has_name = other.c.name == sa.bindparam("name"), other.c.namespace != _NAMESPACE
    return sa.select(other.c.namespace).where(*has_name).limit(1).scalar_subquery()


def _public() -> sa.ScalarSelect[Any]:
    """Return the expression for who asks without a token, ``NULL`` if that needs one."""
    public = NAMESPACE.c.name == _NAMESPACE, NAMESPACE.c.anonymous_read
    return sa.select(sa.literal(ANONYMOUS.name)).where(*public).scalar_subquery()


def _holder() -> sa.ScalarSelect[Any]:
    """Return the expression for whose token it is, ``NULL`` if it is not good or noted here."""
    now: sa.BindParameter[Any] = sa.bindparam("now", type_=sa.DateTime(timezone=True))
    noted: sa.BindParameter[Any] = sa.bindparam("noted", type_=sa.DateTime(timezone=True))
    may_read = sa.exists().where(
        TOKEN_GRANT.c.token_id == TOKEN.c.id,
        TOKEN_GRANT.c.scope == Scope.READ.value,
        sa.or_(TOKEN_GRANT.c.namespace == _NAMESPACE, TOKEN_GRANT.c.namespace == EVERYWHERE),
    )
    good = (
        TOKEN.c.secret == sa.bindparam("secret"),
        TOKEN.c.revoked_at.is_(None),
        sa.or_(TOKEN.c.expires_at.is_(None), TOKEN.c.expires_at > now),
        TOKEN.c.last_used_at >= noted,
        may_read,
    )
    return sa.select(TOKEN.c.name).where(*good).scalar_subquery()


# --- the answer ----------------------------------------------------------------------------------


def _body(version: Sequence[Any], aliases: str | None, manifest: str, probe: str | None) -> bytes:
    """Return what the ordinary route would answer; what is JSON in the database stays as it is."""
    row = dict(zip(_KEYS, version, strict=True))
    row["aliases"] = sorted(json.loads(aliases)) if aliases else []
    row["created_at"] = _moment(row["created_at"])
    raw = ",".join(f'"{key}":{row.pop(key)}' for key in _JSON)
    plain = _encode(row)[1:-1]
    rest = f'"manifest":{manifest},"probe":{probe or "null"}'
    return f'{{"version":{{{plain},{raw}}},{rest}}}'.encode()


def _moment(value: datetime | str) -> str:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value.astimezone(UTC)
    return f"{moment.replace(tzinfo=None).isoformat()}Z"
