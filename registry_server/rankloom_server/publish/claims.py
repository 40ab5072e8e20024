"""Wanting blobs: what a push claims is not collected while its lease lasts.

Claim and collection meet in the blob's row, whose lock decides which of them was first.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom.errors import RegistryError
from rankloom_server import db
from rankloom_server.models import BLOB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    T = TypeVar("T")

_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.05


class BeingDeleted(Exception):  # noqa: N818 - a state of things, which only `patiently` sees
    """A blob is on its way out of the store; in a moment it may be sent again."""


def claim(connection: sa.Connection, namespace: str, blobs: Iterable[str]) -> frozenset[str]:
    """Note that blobs are wanted now, and bring condemned ones back; return the damaged ones.

    Raises:
        BeingDeleted: the store is deleting one right now.
    """
    now = datetime.now(UTC)
    # In one order everywhere, so that two claims cannot wait for each other in a circle.
    rows = [
        {
            "namespace": namespace,
            "digest": blob,
            "state": "live",
            "damaged": False,
            "wanted_at": now,
            "changed_at": now,
        }
        for blob in sorted(blobs)
    ]
    statement = db.insert(connection, BLOB)
    condemned = BLOB.c.state == "condemned"
    statement = statement.on_conflict_do_update(
        index_elements=[BLOB.c.namespace, BLOB.c.digest],
        set_={
            "wanted_at": now,
            "changed_at": sa.case((condemned, now), else_=BLOB.c.changed_at),
            "state": sa.case((condemned, "live"), else_=BLOB.c.state),
        },
    )
    connection.execute(statement, rows)
    found = connection.execute(
        sa.select(BLOB.c.digest, BLOB.c.state, BLOB.c.damaged).where(
            BLOB.c.namespace == namespace, BLOB.c.digest.in_([row["digest"] for row in rows])
        )
    ).all()
    for row in found:
        if row.state == "deleting":
            raise BeingDeleted(row.digest)
    return frozenset(row.digest for row in found if row.damaged)


def damaged(connection: sa.Connection, namespace: str, blobs: Iterable[str]) -> frozenset[str]:
    """Return those blobs whose stored bytes were found to be others."""
    mine = (BLOB.c.namespace == namespace, BLOB.c.digest.in_(sorted(blobs)))
    statement = sa.select(BLOB.c.digest).where(*mine, BLOB.c.damaged)
    return frozenset(connection.execute(statement).scalars())


def note_damage(
    connection: sa.Connection, namespace: str, blobs: Iterable[str], *, damaged: bool
) -> None:
    """Note whether the stored bytes of blobs were found to be damaged, or to be right."""
    mine = (BLOB.c.namespace == namespace, BLOB.c.digest.in_(sorted(blobs)))
    changed = BLOB.c.damaged != damaged
    connection.execute(sa.update(BLOB).where(*mine, changed).values(damaged=damaged))


def patiently(attempt: Callable[[], T]) -> T:
    """Return what ``attempt`` gives, trying again for a while when a blob is being deleted.

    Raises:
        RegistryError: it is still being deleted.
    """
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return attempt()
        except BeingDeleted as error:
            if time.monotonic() > end:
                message = f"the store is deleting blob {error}, which nobody named any more"
                hint = (
                    "push again in a moment; if it stays so, a collection was cut off, and one "
                    "that begins an hour later ('loractl admin gc') ends it"
                )
                raise RegistryError(message, hint=hint) from error
            time.sleep(_PAUSE_SECONDS)
