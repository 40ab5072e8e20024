"""Which versions the present tables of engines have judged."""

from __future__ import annotations

import sqlalchemy as sa

from rankloom import engine_tables
from rankloom_server import catalogue
from rankloom_server.models import ADAPTER, VERSION

_KEPT = VERSION.c.purged_at.is_(None)
_NEVER = VERSION.c.judged_by.is_(None)
"""Then nothing was read of its single tensors, either."""


NOBODY = ""
"""What judged a version whose tensors were read, but whose verdicts could not be taken."""


def is_other() -> sa.ColumnElement[bool]:
    """Return the condition that a version was never judged, or by other tables."""
    return sa.and_(_KEPT, sa.or_(_NEVER, VERSION.c.judged_by != engine_tables.digest()))


def is_any_other(connection: sa.Connection, readable: frozenset[str] | None) -> bool:
    """Say whether a version that is shown was not judged by the present tables.

    ``readable`` names the namespaces that are shown beside the public ones; ``None``: all.
    """
    return _is_any(connection, is_other(), readable)


def is_any_not_read(connection: sa.Connection, readable: frozenset[str] | None) -> bool:
    """Say whether a version that is shown was published before single tensors were read.

    ``readable`` as in :func:`is_any_other`.
    """
    return _is_any(connection, sa.and_(_KEPT, _NEVER), readable)


def _is_any(
    connection: sa.Connection, condition: sa.ColumnElement[bool], readable: frozenset[str] | None
) -> bool:
    if not _is_any_old(connection):
        return False
    found = sa.select(sa.literal(1)).select_from(VERSION).where(condition).limit(1)
    if readable is not None:  # else the answer would tell what others have
        # As a sum it can only be looked up: else all versions of who reads are, though none is old.
        found = found.join(ADAPTER, ADAPTER.c.id == VERSION.c.adapter_id + sa.literal_column("0"))
        found = found.where(catalogue.is_shown(readable))
    return connection.execute(found).first() is not None


def _is_any_old(connection: sa.Connection) -> bool:
    """Say whether there is a version at all that the present tables did not judge.

    The first and the last entry of an index tell it, whatever a planner believes of how many there
    are; one without a value is the first or the last, as the database sorts.
    """
    kept = sa.select(VERSION.c.judged_by).where(_KEPT).limit(1)
    ends = (kept.order_by(VERSION.c.judged_by), kept.order_by(VERSION.c.judged_by.desc()))
    found = connection.execute(sa.select(*(end.scalar_subquery() for end in ends))).one()
    return set(found) != {engine_tables.digest()}
