"""Backup and restore: a registry copied into another, each on any database and store.

A backup is a folder that is a registry itself: ``loractl serve --data-dir`` opens it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlmodel import SQLModel

from rankloom.errors import ConflictError, NotFoundError
from rankloom_server import db
from rankloom_server.models import ADAPTER, VERSION, VERSION_FILE
from rankloom_server.service import DATABASE
from rankloom_server.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rankloom_server.store.interface import Store

_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied; blobs that the target had already are not counted in ``sent``."""

    rows: int
    blobs: int
    sent: int
    nbytes: int


def backup(
    engine: sa.Engine,
    store: Store,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Copied:
    """Write a registry as it is at this moment into a folder, or renew the backup there.

    The database is read in one snapshot, and a blob that it names is collected a day later at the
    earliest, so everybody may go on working meanwhile. Each blob is hashed on its way.

    Raises:
        UploadCorruptError: a stored blob is damaged; the database of an older backup stays.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    coming = folder / f".{DATABASE}.new"
    coming.unlink(missing_ok=True)
    target = db.open_engine(db.sqlite_url(coming))
    try:
        db.upgrade(target)
        rows = _copy_tables(engine, target)
        blobs, sent, nbytes = _copy_blobs(target, store, LocalStore(folder), progress)
        with target.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        target.dispose()
    coming.replace(folder / DATABASE)
    return Copied(rows, blobs, sent, nbytes)


def restore(
    folder: Path,
    engine: sa.Engine,
    store: Store,
    progress: Callable[[int, int], None] | None = None,
) -> Copied:
    """Fill an empty registry from a backup; blobs come first, so it is never seen incomplete.

    Raises:
        ConflictError: the registry is not empty.
        NotFoundError: the folder is no backup.
        UploadCorruptError: a blob of the backup is damaged.
    """
    _check_empty(engine)
    if not (folder / DATABASE).is_file():
        message = f"{folder} is no backup: it has no {DATABASE}"
        raise NotFoundError(message, hint="name a folder that 'loractl admin backup' wrote")
    source = db.open_engine(db.sqlite_url(folder.absolute() / DATABASE))
    try:
        db.upgrade(source)
        blobs, sent, nbytes = _copy_blobs(source, LocalStore(folder.absolute()), store, progress)
        rows = _copy_tables(source, engine)
    finally:
        source.dispose()
    return Copied(rows, blobs, sent, nbytes)


def _check_empty(engine: sa.Engine) -> None:
    with db.read(engine) as connection:
        for table in SQLModel.metadata.sorted_tables:
            if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
                message = f"this registry is not empty: its table {table.name} has rows"
                raise ConflictError(message, hint="restore into a new database and data directory")


def _copy_tables(source: sa.Engine, target: sa.Engine) -> int:
    count = 0
    with db.read(source) as reading, db.write(target) as writing:
        for table in SQLModel.metadata.sorted_tables:
            rows = reading.execution_options(yield_per=_ROWS).execute(sa.select(table)).mappings()
            for batch in rows.partitions(_ROWS):
                writing.execute(sa.insert(table), [dict(row) for row in batch])
                count += len(batch)
            _count_on(writing, table)
    return count


def _count_on(connection: sa.Connection, table: sa.Table) -> None:
    """Let PostgreSQL number new rows behind the copied ones; SQLite does so by itself."""
    key = table.autoincrement_column
    if connection.dialect.name != "postgresql" or key is None:
        return
    sequence = sa.func.pg_get_serial_sequence(table.name, key.name)
    last = sa.select(sa.func.coalesce(sa.func.max(key), 0) + 1).scalar_subquery()
    connection.execute(sa.select(sa.func.setval(sequence, last, False)))


def _copy_blobs(
    engine: sa.Engine,
    source: Store,
    target: Store,
    progress: Callable[[int, int], None] | None,
) -> tuple[int, int, int]:
    """Copy the blobs that versions name; return how many there are, were sent, and their bytes."""
    statement = (
        sa.select(ADAPTER.c.namespace, VERSION_FILE.c.digest, VERSION_FILE.c.size)
        .distinct()
        .join(VERSION, VERSION_FILE.c.version_id == VERSION.c.id)
        .join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id)
    )
    with db.read(engine) as connection:
        rows = connection.execute(statement).all()
    total, here, sent, nbytes = sum(row.size for row in rows), 0, 0, 0
    for row in rows:
        kept = target.inside(row.namespace)
        if kept.size(row.digest) != row.size:
            kept.put(row.digest, row.size, source.inside(row.namespace).read(row.digest))
            sent, nbytes = sent + 1, nbytes + row.size
        here += row.size
        if progress:
            progress(here, total)
    return len(rows), sent, nbytes
