"""Which versions the rules of their namespace let go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom.ref import AdapterName
from rankloom_server import audit, catalogue, search_keys, tensors
from rankloom_server.models import ADAPTER, ALIAS, NAMESPACE, VERSION, VERSION_FILE, VERSION_PART

if TYPE_CHECKING:
    from rankloom_server.access import Actor

# Other version rows of the same adapter, for counting how many are newer.
_NEWER = VERSION.alias("newer")
_WHOLE = VERSION.alias("whole")


@dataclass(frozen=True, slots=True)
class Purgeable:
    """A version that the rules let go."""

    version_id: int
    adapter: AdapterName
    number: int
    digest: str


def find(connection: sa.Connection, now: datetime) -> tuple[Purgeable, ...]:
    """Return every version that may be purged now, by adapter and number."""
    rules = sa.select(NAMESPACE).where(
        sa.or_(NAMESPACE.c.keep_versions.is_not(None), NAMESPACE.c.purge_yanked_days.is_not(None))
    )
    found: list[Purgeable] = []
    for rule in connection.execute(rules.order_by(NAMESPACE.c.name)).mappings():
        found += _in_namespace(connection, rule, now)
    return tuple(found)


def _in_namespace(connection: sa.Connection, rule: sa.RowMapping, now: datetime) -> list[Purgeable]:
    statement = (
        sa.select(VERSION.c.id, VERSION.c.number, VERSION.c.digest, ADAPTER.c.name)
        .join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id)
        .where(
            ADAPTER.c.namespace == rule["name"],
            VERSION.c.purged_at.is_(None),
            sa.or_(*_let_go(rule, now)),
            _unprotected(),
        )
        .order_by(ADAPTER.c.name, VERSION.c.number)
    )
    return [
        Purgeable(row.id, AdapterName(rule["name"], row.name), row.number, row.digest)
        for row in connection.execute(statement)
    ]


def _let_go(rule: sa.RowMapping, now: datetime) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if rule["purge_yanked_days"] is not None:
        old = now - timedelta(days=rule["purge_yanked_days"])
        conditions.append(sa.and_(VERSION.c.yanked.is_not(None), VERSION.c.created_at <= old))
    if rule["keep_versions"] is not None:
        newer = (
            sa.select(sa.func.count())
            .select_from(_NEWER)
            .where(
                _NEWER.c.adapter_id == VERSION.c.adapter_id,
                _NEWER.c.number > VERSION.c.number,
                _NEWER.c.purged_at.is_(None),
            )
            .scalar_subquery()
        )
        old = now - timedelta(days=rule["keep_days"])
        conditions.append(sa.and_(newer >= rule["keep_versions"], VERSION.c.created_at <= old))
    return conditions


def _unprotected() -> sa.ColumnElement[bool]:
    aliased = sa.exists().where(
        ALIAS.c.adapter_id == VERSION.c.adapter_id, ALIAS.c.digest == VERSION.c.digest
    )
    # A lock that is kept must stay good, in whatever namespace the composition lies.
    part = sa.exists().where(
        VERSION_PART.c.digest == VERSION.c.digest,
        VERSION_PART.c.version_id == _WHOLE.c.id,
        _WHOLE.c.purged_at.is_(None),
    )
    # An adapter whose versions are all yanked has no latest, so the number is compared with none.
    latest = sa.func.coalesce(catalogue.LATEST, 0) == VERSION.c.number
    return sa.not_(sa.or_(aliased, part, latest))


def purge(connection: sa.Connection, actor: Actor, version: Purgeable, now: datetime) -> bool:
    """Let a version go, if nothing protects it by now; return whether it went.

    Its row stays, so that its number never means anything else; its files become unnamed.
    """
    # As a publish does: whoever is second sees what the first one did.
    mine = catalogue.is_adapter(version.adapter)
    connection.execute(sa.select(ADAPTER.c.id).where(mine).with_for_update())
    statement = (
        sa.update(VERSION)
        .where(
            VERSION.c.id == version.version_id,
            VERSION.c.purged_at.is_(None),
            VERSION.c.adapter_id == ADAPTER.c.id,
            _unprotected(),
        )
        .values(purged_at=now)
    )
    if not connection.execute(statement).rowcount:
        return False
    connection.execute(
        sa.delete(VERSION_FILE).where(VERSION_FILE.c.version_id == version.version_id)
    )
    tensors.remove(connection, version.version_id)
    search_keys.remove_all(connection, version.version_id)
    # Should it come back, it is looked at anew: a server of before would not do so by itself.
    forgotten = {"verdicts": None, "judged_by": None, "tensor_count": None}
    gone = sa.update(VERSION).where(VERSION.c.id == version.version_id)
    connection.execute(gone.values(**forgotten))
    audit.record(
        connection,
        actor,
        "version.purge",
        namespace=version.adapter.namespace,
        subject=version.adapter.name,
        detail={"version": version.digest, "number": version.number},
    )
    return True
