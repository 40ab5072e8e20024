"""Which versions the present tables of engines have judged."""

from __future__ import annotations

import sqlalchemy as sa

from rankloom import engine_tables
from rankloom_server.models import VERSION

_KEPT = VERSION.c.purged_at.is_(None)
_NEVER = VERSION.c.judged_by.is_(None)
"""Then nothing was read of its single tensors, either."""


def is_other() -> sa.ColumnElement[bool]:
    """Return the condition that a version was never judged, or by other tables; by an index."""
    now = engine_tables.digest()
    return sa.and_(_KEPT, sa.or_(_NEVER, VERSION.c.judged_by < now, VERSION.c.judged_by > now))


def is_any_other(connection: sa.Connection) -> bool:
    """Say whether a version was not judged by the present tables."""
    return _is_any(connection, is_other())


def is_any_not_read(connection: sa.Connection) -> bool:
    """Say whether a version was published before single tensors were read."""
    return _is_any(connection, sa.and_(_KEPT, _NEVER))


def _is_any(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> bool:
    found = sa.select(sa.literal(1)).select_from(VERSION).where(condition).limit(1)
    return connection.execute(found).first() is not None
