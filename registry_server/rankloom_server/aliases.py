"""What may change about a version: the aliases that name it, and whether it is yanked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rankloom import digest as digests
from rankloom import ref as refs
from rankloom.errors import ConflictError, ForbiddenError, NotFoundError, RefError
from rankloom.registry.wire import AliasMove
from rankloom_server import audit, catalogue, db, namespaces, search_keys, signed
from rankloom_server.access import Scope
from rankloom_server.models import ADAPTER, ALIAS, VERSION

if TYPE_CHECKING:
    from rankloom.ref import AdapterName
    from rankloom.registry.wire import AliasRequest, Version
    from rankloom_server.access import Actor


def set_alias(
    connection: sa.Connection,
    actor: Actor,
    adapter: AdapterName,
    alias: str,
    request: AliasRequest,
) -> AliasMove:
    """Move an alias if it names what the caller expects; strictly compare-and-set.

    Raises:
        ConflictError: it names another version than expected now.
        ForbiddenError: the alias is protected.
        NotFoundError: there is no such adapter or version.
        RefError: the alias is malformed, or ``latest``.
        SignatureError: the namespace demands a signature that the version has not.
    """
    _check_movable(alias)
    _check_protected(connection, actor, adapter, alias)
    adapter_id = _adapter_id(connection, adapter)
    version = catalogue.version(connection, adapter, request.digest)
    if version.purged_at is not None:
        raise catalogue.purged(version.pinned, version.purged_at)
    signed.check(connection, adapter, request.digest)
    if request.expected is None:
        changed = _insert(connection, adapter_id, alias, request.digest)
    else:
        statement = (
            sa.update(ALIAS)
            .where(
                ALIAS.c.adapter_id == adapter_id,
                ALIAS.c.name == alias,
                ALIAS.c.digest == request.expected,
            )
            .values(digest=request.digest)
        )
        changed = connection.execute(statement).rowcount > 0
    if not changed:
        raise _moved(connection, adapter_id, f"{adapter}:{alias}", alias)
    move = AliasMove(alias=alias, before=request.expected, after=request.digest)
    _note(connection, actor, "alias.move", adapter, move.model_dump())
    return move


def _note(
    connection: sa.Connection,
    actor: Actor,
    action: str,
    adapter: AdapterName,
    detail: dict[str, Any],
) -> None:
    audit.record(
        connection,
        actor,
        action,
        namespace=adapter.namespace,
        subject=adapter.name,
        detail=detail,
    )


def _check_movable(alias: str) -> None:
    refs.check_name(alias, "alias")
    if alias == refs.LATEST:
        message = "the alias 'latest' always means the newest version that is not yanked"
        raise RefError(message, hint="choose another alias, or yank the versions to skip")


def _check_protected(
    connection: sa.Connection, actor: Actor, adapter: AdapterName, alias: str
) -> None:
    protected = namespaces.get(connection, adapter.namespace).protected_aliases
    if alias in protected and not actor.may(Scope.ADMIN, adapter.namespace):
        message = f"alias {alias} is protected in namespace {adapter.namespace}"
        raise ForbiddenError(message, hint="ask who administers the namespace to move it")


def _adapter_id(connection: sa.Connection, adapter: AdapterName) -> int:
    # Locked until the change is made: a version that an alias begins to name is not purged.
    statement = sa.select(ADAPTER.c.id).where(catalogue.is_adapter(adapter)).with_for_update()
    found: int | None = connection.execute(statement).scalar()
    if found is None:
        raise catalogue.no_adapter(adapter)
    return found


def _insert(connection: sa.Connection, adapter_id: int, alias: str, digest: str) -> bool:
    values = {"adapter_id": adapter_id, "name": alias, "digest": digest}
    statement = db.insert(connection, ALIAS).values(**values).on_conflict_do_nothing()
    return connection.execute(statement.returning(ALIAS.c.name)).first() is not None


def _moved(
    connection: sa.Connection, adapter_id: int, what: str, alias: str
) -> ConflictError | NotFoundError:
    statement = sa.select(ALIAS.c.digest).where(
        ALIAS.c.adapter_id == adapter_id, ALIAS.c.name == alias
    )
    present = connection.execute(statement).scalar()
    message = f"alias {what} was moved meanwhile: it names {present or 'nothing'} now"
    return ConflictError(message, hint="look at the present version, then decide again")


def delete_alias(
    connection: sa.Connection, actor: Actor, adapter: AdapterName, alias: str, expected: str
) -> None:
    """Remove an alias if it names what the caller expects.

    Raises:
        ConflictError: it names another version, or none.
        ForbiddenError: the alias is protected.
        NotFoundError: there is no such adapter.
        RefError: the alias is malformed, or ``latest``.
    """
    _check_movable(alias)
    _check_protected(connection, actor, adapter, alias)
    adapter_id = _adapter_id(connection, adapter)
    statement = sa.delete(ALIAS).where(
        ALIAS.c.adapter_id == adapter_id,
        ALIAS.c.name == alias,
        ALIAS.c.digest == digests.parse(expected),
    )
    if not connection.execute(statement).rowcount:
        raise _moved(connection, adapter_id, f"{adapter}:{alias}", alias)
    _note(connection, actor, "alias.delete", adapter, {"alias": alias, "before": expected})


def yank(
    connection: sa.Connection,
    actor: Actor,
    adapter: AdapterName,
    version: str,
    reason: str | None,
) -> Version:
    """Withdraw a version from ``latest``, giving the reason; ``None`` brings it back.

    Raises:
        NotFoundError: there is no such adapter or version.
        RefError: the reason is empty.
    """
    if reason is not None and not reason.strip():
        message = f"{adapter}@{version} cannot be yanked without a reason"
        raise RefError(message, hint="say in a few words why it should not be used")
    adapter_id = _adapter_id(connection, adapter)
    statement = (
        sa.update(VERSION)
        .where(VERSION.c.adapter_id == adapter_id, VERSION.c.digest == version)
        .values(yanked=reason)
    )
    connection.execute(statement)
    search_keys.keep_latest(connection, adapter_id)
    found = catalogue.version(connection, adapter, version)
    _note(connection, actor, "version.yank", adapter, {"version": version, "reason": reason})
    return found
