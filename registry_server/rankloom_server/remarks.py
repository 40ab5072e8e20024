"""What is said beside a version's content: card, labels, metrics, deprecation."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from rankloom.errors import RefError
from rankloom.registry.wire import MAX_LABELS, MAX_METRICS
from rankloom_server import audit, catalogue, search_keys
from rankloom_server.models import ADAPTER, VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.ref import AdapterName
    from rankloom.registry.wire import Remarks, Version
    from rankloom_server.access import Actor

T = TypeVar("T")


def add(
    connection: sa.Connection, actor: Actor, adapter: AdapterName, digest: str, remarks: Remarks
) -> Version:
    """Say of a version what is given; all else that was said of it stays.

    Raises:
        NotFoundError: there is no such adapter or version.
        RefError: it would have too many labels or metrics.
    """
    catalogue.version(connection, adapter, digest)
    mine = sa.and_(
        VERSION.c.digest == digest,
        VERSION.c.adapter_id
        == sa.select(ADAPTER.c.id).where(catalogue.is_adapter(adapter)).scalar_subquery(),
    )
    # Whoever says something else of the version at the same time waits until this is committed.
    before = connection.execute(sa.select(VERSION).where(mine).with_for_update()).one()
    after = {
        "labels": _merged(before.labels, remarks.labels, MAX_LABELS, "labels"),
        "metrics": _merged(before.metrics, remarks.metrics, MAX_METRICS, "metrics"),
    }
    named = remarks.model_dump(include={"deprecated", "probe"}, exclude_none=True)
    if remarks.deprecated == "":
        named["deprecated"] = None
    connection.execute(sa.update(VERSION).where(mine).values(**after, **named))
    search_keys.remove(connection, [before.id], search_keys.of_labels(before.labels))
    if before.purged_at is None:
        search_keys.add(connection, [before.id], search_keys.of_labels(after["labels"]))
    audit.record(
        connection,
        actor,
        "version.remark",
        namespace=adapter.namespace,
        subject=adapter.name,
        detail={"version": digest, **remarks.model_dump(exclude_defaults=True)},
    )
    return catalogue.version(connection, adapter, digest)


def _merged(
    before: dict[str, T], new: Mapping[str, T | None], most: int, what: str
) -> dict[str, T]:
    merged = {name: value for name, value in {**before, **new}.items() if value is not None}
    if len(merged) > most:
        message = f"the version would have {len(merged)} {what}, {most} are the most"
        raise RefError(message, hint=f"remove some of its {what} in the same request")
    return merged


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
