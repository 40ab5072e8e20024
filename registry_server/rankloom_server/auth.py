"""Bearer tokens: shown once, kept as a digest, with scopes and an end."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom import digest as digests
from rankloom import ref as refs
from rankloom.errors import AuthError, ConflictError, ForbiddenError
from rankloom_server import db
from rankloom_server.models import TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "rl_"


class Scope(StrEnum):
    """What a token may do."""

    READ = "read"
    PUSH = "push"
    ADMIN = "admin"


def create(
    engine: sa.Engine,
    name: str,
    scopes: Iterable[Scope],
    *,
    expires_at: datetime | None = None,
) -> str:
    """Make a token and return it; it cannot be shown again.

    Raises:
        ConflictError: a token of this name exists.
    """
    token = PREFIX + secrets.token_urlsafe(32)
    refs.check_name(name, "token name")
    with db.write(engine) as connection:
        if not _insert(connection, name, token, scopes, expires_at):
            message = f"there is a token {name} already"
            raise ConflictError(message, hint="choose another name, or revoke it first")
    return token


def create_first(engine: sa.Engine) -> str | None:
    """Make a token that may do everything if there is none yet at all, and return it."""
    token = PREFIX + secrets.token_urlsafe(32)
    with db.write(engine) as connection:
        if connection.execute(sa.select(TOKEN.c.id).limit(1)).first() is not None:
            return None
        made = _insert(connection, "admin", token, list(Scope), None)
    return token if made else None


def _insert(
    connection: sa.Connection,
    name: str,
    token: str,
    scopes: Iterable[Scope],
    expires_at: datetime | None,
) -> int:
    # Several servers may start at the same time: the name decides which one makes the first token.
    statement = sa.text(
        "INSERT INTO api_token (name, secret, scopes, created_at, expires_at) "
        "VALUES (:name, :secret, :scopes, :created_at, :expires_at) ON CONFLICT (name) DO NOTHING"
    ).bindparams(
        sa.bindparam("created_at", type_=TOKEN.c.created_at.type),
        sa.bindparam("expires_at", type_=TOKEN.c.expires_at.type),
    )
    values = {
        "name": name,
        "secret": digests.of_bytes(token.encode()),
        "scopes": " ".join(sorted(scopes)),
        "created_at": datetime.now(UTC),
        "expires_at": expires_at,
    }
    return connection.execute(statement, values).rowcount


def revoke(engine: sa.Engine, name: str) -> bool:
    """End a token's life; return whether there was one to end."""
    statement = sa.update(TOKEN).where(TOKEN.c.name == name, TOKEN.c.revoked_at.is_(None))
    with db.write(engine) as connection:
        return connection.execute(statement.values(revoked_at=datetime.now(UTC))).rowcount > 0


def check(engine: sa.Engine, token: str | None, scope: Scope) -> None:
    """Refuse a request whose token may not do this.

    Raises:
        AuthError: there is no token, or none that is good now.
        ForbiddenError: the token has not this scope.
    """
    hint = "'loractl login' keeps a token; the server shows the first one when it first starts"
    if not token:
        message = "this registry needs a token"
        raise AuthError(message, hint=hint)
    # The lookup is by digest, so its time says nothing about the secret.
    statement = sa.select(TOKEN.c.name, TOKEN.c.scopes, TOKEN.c.expires_at).where(
        TOKEN.c.secret == digests.of_bytes(token.encode()), TOKEN.c.revoked_at.is_(None)
    )
    with db.read(engine) as connection:
        row = connection.execute(statement).one_or_none()
    if row is None or (row.expires_at is not None and row.expires_at <= datetime.now(UTC)):
        message = "the token is unknown, revoked or expired"
        raise AuthError(message, hint=hint)
    if scope not in row.scopes.split():
        message = f"token {row.name} may not {scope}: its scopes are {row.scopes}"
        raise ForbiddenError(message, hint="ask an administrator of the registry for a token")
