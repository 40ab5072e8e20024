"""What is said beside a version's content: card, labels, metrics, deprecation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom_server import audit, catalogue, search_keys
from rankloom_server.models import ADAPTER, VERSION

if TYPE_CHECKING:
    from rankloom.ref import AdapterName
    from rankloom.registry.wire import Remarks, Version
    from rankloom_server.access import Actor


def put(
    connection: sa.Connection, actor: Actor, adapter: AdapterName, digest: str, remarks: Remarks
) -> Version:
    """Say of a version what is given, and nothing else any more.

    Raises:
        NotFoundError: there is no such adapter or version.
    """
    before = catalogue.version(connection, adapter, digest)
    mine = sa.and_(
        VERSION.c.digest == digest,
        VERSION.c.adapter_id
        == sa.select(ADAPTER.c.id).where(catalogue.is_adapter(adapter)).scalar_subquery(),
    )
    # Whoever says something else of the version at the same time waits until this is committed.
    row = connection.execute(
        sa.select(VERSION.c.id, VERSION.c.labels).where(mine).with_for_update()
    ).one()
    connection.execute(sa.update(VERSION).where(mine).values(**remarks.model_dump()))
    search_keys.remove(connection, [row.id], search_keys.of_labels(row.labels))
    if before.purged_at is None:
        search_keys.add(connection, [row.id], search_keys.of_labels(remarks.labels))
    audit.record(
        connection,
        actor,
        "version.remark",
        namespace=adapter.namespace,
        subject=adapter.name,
        detail={"version": digest, **remarks.model_dump(exclude_defaults=True)},
    )
    return catalogue.version(connection, adapter, digest)


def set_card(
    connection: sa.Connection, adapter_id: int, adapter: AdapterName, before: str, after: str
) -> None:
    """Change an adapter's card; the caller holds the lock on the adapter's row."""
    statement = sa.update(ADAPTER).where(ADAPTER.c.id == adapter_id)
    connection.execute(statement.values(card=after))
    kept = sa.select(VERSION.c.id).where(
        VERSION.c.adapter_id == adapter_id, VERSION.c.purged_at.is_(None)
    )
    versions = connection.execute(kept).scalars().all()
    old, new = (
        set(search_keys.of_text(adapter.namespace, adapter.name, card)) for card in (before, after)
    )
    search_keys.remove(connection, versions, old - new)
    search_keys.add(connection, versions, new - old)
