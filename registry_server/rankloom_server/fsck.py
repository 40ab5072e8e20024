"""Comparing database and store, in both directions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom.errors import NotFoundError
from rankloom_server import audit, db
from rankloom_server.models import ADAPTER, BLOB, VERSION, VERSION_FILE
from rankloom_server.publish import claims
from rankloom_server.store.interface import StoredBlob

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankloom_server.access import Actor
    from rankloom_server.store.interface import Store


@dataclass
class Checked:
    """What a check found.

    Attributes:
        versions: how many versions were compared.
        blobs: how many blobs the store holds.
        rehashed: how many of them were read and hashed.
        missing: blobs that a version names and the store has not: ``adapter@vN path digest``.
        broken: the blobs of ``damaged``, as values.
        damaged: blobs whose stored size or bytes are not those that their name promises.
        unknown: blobs that the database knows nothing of; a collection removes them once adopted.
        adopted: how many of these were entered into the database, unnamed.
    """

    versions: int = 0
    blobs: int = 0
    rehashed: int = 0
    missing: list[str] = field(default_factory=list)
    broken: list[StoredBlob] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    adopted: int = 0

    @property
    def sound(self) -> bool:
        """Whether every version can be pulled, as far as was looked."""
        return not self.missing and not self.damaged


def check(
    engine: sa.Engine,
    store: Store,
    *,
    rehash: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Compare database and store; nothing is changed, and everybody may go on working.

    Args:
        engine: the database.
        store: the blobs.
        rehash: read and hash every blob that a version names.
        progress: called with (bytes hashed, bytes to hash).
    """
    found = Checked()
    # The store first: what is published meanwhile may then seem missing, and is looked at again.
    stored = {(blob.namespace, blob.digest): blob.size for blob in store.list_all()}
    with db.read(engine) as connection:
        named = _named(connection)
        known = {
            tuple(row) for row in connection.execute(sa.select(BLOB.c.namespace, BLOB.c.digest))
        }
        count = sa.select(sa.func.count()).where(VERSION.c.purged_at.is_(None))
        found.versions = connection.execute(count).scalar_one()
    found.blobs = len(stored)
    sound: list[StoredBlob] = []
    for blob, where in named.items():
        size = stored.get((blob.namespace, blob.digest))
        if size is None:
            size = store.inside(blob.namespace).size(blob.digest)
        if size is None:
            found.missing.append(f"{where} {blob.digest}")
        elif size != blob.size:
            found.broken.append(blob)
            found.damaged.append(f"{where} {blob.digest}: {size} of {blob.size} bytes")
        else:
            sound.append(blob)
    found.unknown = sorted(
        f"{namespace}/{digest}" for namespace, digest in stored.keys() - known - _keys(sound)
    )
    if rehash:
        _rehash(store, {blob: named[blob] for blob in sound}, found, progress)
    return found


def _keys(blobs: list[StoredBlob]) -> set[tuple[str, str]]:
    return {(blob.namespace, blob.digest) for blob in blobs}


def _named(connection: sa.Connection) -> dict[StoredBlob, str]:
    """Return every blob that a version names, with one of the places that name it."""
    statement = (
        sa.select(
            ADAPTER.c.namespace,
            ADAPTER.c.name,
            VERSION.c.number,
            VERSION_FILE.c.path,
            VERSION_FILE.c.digest,
            VERSION_FILE.c.size,
        )
        .join(VERSION, VERSION_FILE.c.version_id == VERSION.c.id)
        .join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id)
        .order_by(ADAPTER.c.namespace, ADAPTER.c.name, VERSION.c.number, VERSION_FILE.c.path)
    )
    found: dict[StoredBlob, str] = {}
    for row in connection.execute(statement):
        blob = StoredBlob(row.namespace, row.digest, row.size)
        found.setdefault(blob, f"{row.namespace}/{row.name}@v{row.number} {row.path}")
    return found


def _rehash(
    store: Store,
    named: dict[StoredBlob, str],
    found: Checked,
    progress: Callable[[int, int], None] | None,
) -> None:
    total, here = sum(blob.size for blob in named), 0
    for blob, where in named.items():
        sha = hashlib.sha256()
        try:
            for chunk in store.inside(blob.namespace).read(blob.digest):
                sha.update(chunk)
                here += len(chunk)
                if progress:
                    progress(here, total)
        except NotFoundError:
            found.missing.append(f"{where} {blob.digest}")
            continue
        found.rehashed += 1
        if f"sha256:{sha.hexdigest()}" != blob.digest:
            found.broken.append(blob)
            found.damaged.append(f"{where} {blob.digest}: other bytes, sha256:{sha.hexdigest()}")


def adopt(engine: sa.Engine, actor: Actor, found: Checked) -> None:
    """Enter the blobs that the database does not know, so that the next collections remove them."""
    now = datetime.now(UTC)
    rows = [
        {
            "namespace": namespace,
            "digest": digest,
            "state": "live",
            "damaged": False,
            "wanted_at": now,
            "changed_at": now,
        }
        for namespace, _, digest in (name.partition("/") for name in found.unknown)
    ]
    if not rows:
        return
    with db.write(engine) as connection:
        connection.execute(db.insert(connection, BLOB).on_conflict_do_nothing(), rows)
        detail = {"blobs": len(rows)}
        audit.record(connection, actor, "blobs.adopt", subject="*", detail=detail)
    found.adopted = len(rows)


def note_damage(engine: sa.Engine, actor: Actor, found: Checked) -> None:
    """Remember damaged blobs, so that a push of the same content brings them anew."""
    for blob in found.broken:
        with db.write(engine) as connection:
            claims.note_damage(connection, blob.namespace, [blob.digest], damaged=True)
            audit.record(
                connection,
                actor,
                "blob.damaged",
                namespace=blob.namespace,
                subject=blob.digest,
            )
