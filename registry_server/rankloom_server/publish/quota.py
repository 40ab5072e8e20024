"""How much a namespace may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom.errors import ForbiddenError
from rankloom_server import namespaces
from rankloom_server.models import ADAPTER, VERSION, VERSION_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping


def check(connection: sa.Connection, namespace: str, sizes: Mapping[str, int]) -> None:
    """Refuse a push with which a namespace would hold more than it may.

    A blob counts once, however many versions name it. Pushes that are under way at the same time
    do not see each other, so a namespace may end above its quota by what they bring.

    Args:
        connection: the database.
        namespace: where it is pushed to.
        sizes: bytes by digest of what is pushed.

    Raises:
        ForbiddenError: it is too much.
    """
    quota = namespaces.get(connection, namespace).quota_bytes
    if quota is None:
        return
    held = (
        sa.select(VERSION_FILE.c.digest, VERSION_FILE.c.size)
        .distinct()
        .join(VERSION, VERSION_FILE.c.version_id == VERSION.c.id)
        .join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id)
        .where(ADAPTER.c.namespace == namespace)
        .subquery()
    )
    total = sa.select(sa.func.coalesce(sa.func.sum(held.c.size), 0))
    known = sa.select(held.c.digest).where(held.c.digest.in_(sorted(sizes)))
    there = set(connection.execute(known).scalars())
    used = int(connection.execute(total).scalar_one())
    wanted = sum(size for digest, size in sizes.items() if digest not in there)
    if wanted and used + wanted > quota:
        message = f"namespace {namespace} holds {used} of {quota} bytes: {wanted} more are too many"
        raise ForbiddenError(message, hint="ask for a larger quota, or let older versions go")
