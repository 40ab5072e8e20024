"""A name that was written without its namespace must be one adapter's only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom.errors import NotFoundError, RefError
from rankloom_server import namespaces
from rankloom_server.models import ADAPTER

if TYPE_CHECKING:
    from rankloom.ref import AdapterName

_SHOWN = 3


def check(connection: sa.Connection, adapter: AdapterName, readable: frozenset[str] | None) -> None:
    """Refuse an adapter whose namespace was supposed, if the name may have meant another.

    Args:
        connection: the database.
        adapter: the adapter, in the namespace that is supposed where none is written.
        readable: the namespaces that the reader sees beside the public ones; ``None``: all.

    Raises:
        NotFoundError: only other namespaces have the name.
        RefError: (REG005) others have it too.
    """
    elsewhere = ADAPTER.c.namespace != adapter.namespace
    statement = (
        sa.select(ADAPTER.c.namespace)
        .where(ADAPTER.c.name == adapter.name)
        .order_by(elsewhere, ADAPTER.c.namespace)
        .limit(_SHOWN + 1)
    )
    if readable is not None:
        shown = ADAPTER.c.namespace.in_(sorted({adapter.namespace, *readable}))
        statement = statement.where(sa.or_(shown, ADAPTER.c.namespace.in_(namespaces.PUBLIC)))
    found = list(connection.execute(statement).scalars())
    names = ", ".join(f"{namespace}/{adapter.name}" for namespace in found[:_SHOWN])
    if found and adapter.namespace not in found:
        message = f"there is no adapter {adapter.name} in namespace {adapter.namespace}"
        raise NotFoundError(message, hint=f"other namespaces have that name: {names}")
    if len(found) > 1:
        more = " and others" if len(found) > _SHOWN else ""
        message = f"REG005 {adapter.name} may mean {names}{more}"
        raise RefError(
            message, hint="write the namespace too, so that no other can be taken for it"
        )
