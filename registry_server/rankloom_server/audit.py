"""The audit log: who changed what and when. The database lets nobody change or remove a line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rankloom.registry.wire import AuditEntry, AuditPage
from rankloom_server.models import AUDIT

if TYPE_CHECKING:
    from rankloom_server.access import Actor

MAX_PAGE = 1000


def record(
    connection: sa.Connection,
    actor: Actor,
    action: str,
    *,
    subject: str,
    namespace: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Write a line in the transaction of the change itself: both are kept, or neither.

    Args:
        connection: the transaction.
        actor: who does it.
        action: ``noun.verb``, e.g. ``alias.move``.
        subject: what it is done to.
        namespace: where, if it is in one.
        detail: whatever one must know to understand the change.
    """
    values = {
        "at": datetime.now(UTC),
        "actor": actor.name,
        "action": action,
        "namespace": namespace,
        "subject": subject,
        "detail": detail or {},
        "request_id": actor.request_id,
    }
    connection.execute(sa.insert(AUDIT).values(**values))


def read(
    connection: sa.Connection,
    *,
    namespace: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> AuditPage:
    """Return lines, newest first; ``before`` is the id of the last line of the page before."""
    statement = sa.select(AUDIT).order_by(AUDIT.c.id.desc()).limit(min(max(limit, 1), MAX_PAGE))
    if namespace is not None:
        statement = statement.where(AUDIT.c.namespace == namespace)
    if before is not None:
        statement = statement.where(AUDIT.c.id < before)
    rows = connection.execute(statement).mappings()
    return AuditPage(items=tuple(AuditEntry.model_validate(dict(row)) for row in rows))
