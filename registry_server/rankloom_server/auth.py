"""Bearer tokens: shown once, kept as a digest, with scopes by namespace and an end."""

from __future__ import annotations

import itertools
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rankloom import digest as digests
from rankloom import ref as refs
from rankloom.errors import AuthError, ConflictError, ForbiddenError, RefError
from rankloom.registry.wire import TokenRecord
from rankloom_server import audit, db, namespaces
from rankloom_server.access import ANONYMOUS, LOCAL, Actor, Grant, Scope
from rankloom_server.models import TOKEN, TOKEN_GRANT

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "rl_"
_LOGIN = "'loractl login' keeps a token; the server shows the first one when it first starts"
USE_NOTED_EVERY = timedelta(minutes=1)  # a write for every request would cost more than it tells


def fresh() -> str:
    """Return a new secret of 256 bits, with a prefix that scanners for secrets find."""
    return PREFIX + secrets.token_urlsafe(32)


def create(
    engine: sa.Engine,
    name: str,
    grants: Iterable[Grant],
    *,
    expires_at: datetime | None = None,
    actor: Actor = LOCAL,
) -> str:
    """Make a token and return it; it cannot be shown again.

    Raises:
        ConflictError: a token of this name exists.
        RefError: the name is malformed, there is no grant, or the end is over already.
    """
    refs.check_name(name, "token name")
    wanted = frozenset(grants)
    if not wanted or (expires_at is not None and expires_at <= datetime.now(UTC)):
        message = f"token {name} could be used for nothing"
        raise RefError(message, hint="give at least one scope, and an end that is still to come")
    token = fresh()
    with db.write(engine) as connection:
        if insert(connection, name, token, wanted, expires_at) is None:
            message = f"there is a token {name} already"
            raise ConflictError(message, hint="names of revoked tokens are not used again either")
        detail = {"grants": sorted(map(str, wanted)), "expires_at": str(expires_at or "never")}
        audit.record(connection, actor, "token.create", subject=name, detail=detail)
    return token


def create_first(engine: sa.Engine) -> str | None:
    """Make a token that may do everything if there is none yet at all, and return it."""
    token = fresh()
    with db.write(engine) as connection:
        if connection.execute(sa.select(TOKEN.c.id).limit(1)).first() is not None:
            return None
        if insert(connection, "admin", token, LOCAL.grants, None) is None:
            return None
        audit.record(connection, LOCAL, "token.create", subject="admin")
    return token


def insert(
    connection: sa.Connection,
    name: str,
    token: str,
    grants: frozenset[Grant],
    expires_at: datetime | None,
) -> int | None:
    """Write a token in a transaction; return its id, ``None`` if there is one of this name."""
    # Several servers may start at the same time: the name decides which one makes the first token.
    values = {
        "name": name,
        "secret": digests.of_bytes(token.encode()),
        "created_at": datetime.now(UTC),
        "expires_at": expires_at,
    }
    statement = db.insert(connection, TOKEN).values(**values)
    statement = statement.on_conflict_do_nothing(index_elements=[TOKEN.c.name])
    made: int | None = connection.execute(statement.returning(TOKEN.c.id)).scalar()
    if made is not None:
        rows = [
            {"token_id": made, "scope": grant.scope.value, "namespace": grant.place}
            for grant in sorted(grants)
        ]
        connection.execute(sa.insert(TOKEN_GRANT), rows)
    return made


def revoke(engine: sa.Engine, name: str, actor: Actor = LOCAL) -> bool:
    """End a token's life; return whether there was one to end."""
    statement = sa.update(TOKEN).where(TOKEN.c.name == name, TOKEN.c.revoked_at.is_(None))
    with db.write(engine) as connection:
        ended = connection.execute(statement.values(revoked_at=datetime.now(UTC))).rowcount > 0
        if ended:
            audit.record(connection, actor, "token.revoke", subject=name)
    return ended


def list_all(engine: sa.Engine) -> tuple[TokenRecord, ...]:
    """Return every token in name order, without its secret."""
    statement = (
        sa.select(TOKEN, TOKEN_GRANT.c.scope, TOKEN_GRANT.c.namespace)
        .join(TOKEN_GRANT, TOKEN_GRANT.c.token_id == TOKEN.c.id)
        .order_by(TOKEN.c.name, TOKEN_GRANT.c.namespace, TOKEN_GRANT.c.scope)
    )
    with db.read(engine) as connection:
        rows = connection.execute(statement).all()
    return tuple(_record(list(rows)) for _, rows in itertools.groupby(rows, lambda row: row.name))


def _record(rows: list[sa.Row[Any]]) -> TokenRecord:
    first = rows[0]
    return TokenRecord(
        name=first.name,
        grants=tuple(str(Grant.at(row.scope, row.namespace)) for row in rows),
        created_at=first.created_at,
        expires_at=first.expires_at,
        revoked_at=first.revoked_at,
        last_used_at=first.last_used_at,
    )


def identify(engine: sa.Engine, token: str | None, request_id: str | None = None) -> Actor:
    """Return who asks.

    Raises:
        AuthError: the token is none that is good now.
    """
    if not token:
        return Actor(ANONYMOUS.name, request_id=request_id)
    # The lookup is by digest, so its time says nothing about the secret.
    statement = (
        sa.select(TOKEN, TOKEN_GRANT.c.scope, TOKEN_GRANT.c.namespace)
        .join(TOKEN_GRANT, TOKEN_GRANT.c.token_id == TOKEN.c.id)
        .where(TOKEN.c.secret == digests.of_bytes(token.encode()), TOKEN.c.revoked_at.is_(None))
    )
    with db.read(engine) as connection:
        rows = connection.execute(statement).all()
    now = datetime.now(UTC)
    if not rows or (rows[0].expires_at is not None and rows[0].expires_at <= now):
        message = "the token is unknown, revoked or expired"
        raise AuthError(message, hint=_LOGIN)
    if rows[0].last_used_at is None or rows[0].last_used_at < now - USE_NOTED_EVERY:
        with db.write(engine) as connection:
            used = sa.update(TOKEN).where(TOKEN.c.id == rows[0].id).values(last_used_at=now)
            connection.execute(used)
    grants = frozenset(Grant.at(row.scope, row.namespace) for row in rows)
    return Actor(rows[0].name, grants, request_id)


def authorise(
    engine: sa.Engine,
    actor: Actor,
    scope: Scope,
    namespace: str | None,
    adapter: str | None = None,
) -> None:
    """Refuse what an actor may not do; without a namespace the scope may be held in any.

    The answer is the same whether the namespace, or anything in it, exists or not.

    Raises:
        AuthError: nobody may do it without a token.
        ForbiddenError: the token has not this scope there.
    """
    if actor.may(scope, namespace, adapter):
        return
    if scope is Scope.READ and (namespace is None or refs.is_name(namespace)):
        with db.read(engine) as connection:
            if namespaces.is_public(connection, namespace):
                return
    if actor.name == ANONYMOUS.name:
        message = "this needs a token"
        raise AuthError(message, hint=_LOGIN)
    what = f" {adapter}" if adapter else ""
    where = f"{what} in namespace {namespace}" if namespace else ""
    message = f"token {actor.name} may not {scope}{where}: its scopes are {actor}"
    raise ForbiddenError(message, hint="ask an administrator of the registry for a token")
