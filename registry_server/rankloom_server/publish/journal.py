"""The journal of uploads: what was declared, which blobs are missing, how long they are wanted."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom.errors import NotFoundError
from rankloom.registry.wire import Upload
from rankloom_server import bases, db
from rankloom_server.models import ADAPTER, UPLOAD, UPLOAD_BLOB, VERSION, VERSION_FILE
from rankloom_server.publish import declared

if TYPE_CHECKING:
    from rankloom.ref import AdapterName
    from rankloom.registry.wire import UploadRequest
    from rankloom_server.store.interface import Store

LEASE = timedelta(hours=24)
"""How long the blobs of an unfinished upload are kept; a push may be taken up again until then."""


def open_upload(
    engine: sa.Engine, store: Store, adapter: AdapterName, request: UploadRequest
) -> Upload:
    """Write a push into the journal and say which blobs must be sent.

    A blob counts as present only if the same namespace has it in a version, or sent it in an
    upload that is still open; that another namespace has it is never told. The same content again
    is the same open upload with a fresh lease.

    Raises:
        IncompatibleError: the named base is not the manifest's.
        NotFoundError: the named base does not exist.
        RefError: the manifest cannot become a version.
    """
    declared.check(request)
    digest = declared.digest_of(request.manifest)
    sizes = {entry.digest: entry.size for entry in request.manifest.files}
    with db.read(engine) as connection:
        if request.base is not None:
            declared.check_base(request.manifest, bases.get(connection, request.base))
        ours = _ours(connection, adapter.namespace, sorted(sizes))
    # The store is asked outside of any transaction: it may be far away.
    stored = {blob for blob, size in sizes.items() if store.size(blob) == size}
    with db.write(engine) as connection:
        upload_id = _remember(connection, adapter, request, digest)
        _add_blobs(connection, upload_id, sizes, stored)
    missing = sorted(sizes.keys() - (stored & ours))
    targets = tuple(store.presign_put(blob, sizes[blob]) for blob in missing)
    return Upload(id=upload_id, missing=targets)


def _ours(connection: sa.Connection, namespace: str, blobs: list[str]) -> set[str]:
    """Return which of the blobs this namespace has published or brought into the store."""
    published = (
        sa.select(VERSION_FILE.c.digest)
        .join(VERSION, VERSION_FILE.c.version_id == VERSION.c.id)
        .join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id)
        .where(ADAPTER.c.namespace == namespace, VERSION_FILE.c.digest.in_(blobs))
    )
    brought = (
        sa.select(UPLOAD_BLOB.c.digest)
        .join(UPLOAD, UPLOAD_BLOB.c.upload_id == UPLOAD.c.id)
        .where(
            UPLOAD.c.namespace == namespace,
            UPLOAD.c.state == "open",
            UPLOAD.c.lease_until > datetime.now(UTC),
            UPLOAD_BLOB.c.absent,
            UPLOAD_BLOB.c.digest.in_(blobs),
        )
    )
    return set(connection.execute(sa.union(published, brought)).scalars())


def _remember(
    connection: sa.Connection, adapter: AdapterName, request: UploadRequest, digest: str
) -> str:
    """Write the upload's row, or renew the open one of the same content; return its id."""
    now = datetime.now(UTC)
    changing = {
        "base_id": bases.row_id(request.base),
        "card": request.card,
        "lease_until": now + LEASE,
    }
    same = sa.and_(
        UPLOAD.c.namespace == adapter.namespace,
        UPLOAD.c.name == adapter.name,
        UPLOAD.c.digest == digest,
        UPLOAD.c.state == "open",
    )
    found: str | None = connection.execute(sa.select(UPLOAD.c.id).where(same).limit(1)).scalar()
    if found is not None:
        connection.execute(sa.update(UPLOAD).where(UPLOAD.c.id == found).values(**changing))
        return found
    upload_id = secrets.token_hex(16)
    values = {
        "id": upload_id,
        "namespace": adapter.namespace,
        "name": adapter.name,
        "digest": digest,
        "manifest": request.manifest.canonical().decode(),
        "state": "open",
        "created_at": now,
    }
    connection.execute(sa.insert(UPLOAD).values(**values, **changing))
    return upload_id


def _add_blobs(
    connection: sa.Connection, upload_id: str, sizes: dict[str, int], stored: set[str]
) -> None:
    known = set(
        connection.execute(
            sa.select(UPLOAD_BLOB.c.digest).where(UPLOAD_BLOB.c.upload_id == upload_id)
        ).scalars()
    )
    rows = [
        {"upload_id": upload_id, "digest": blob, "absent": blob not in stored}
        for blob in sorted(sizes.keys() - known)
    ]
    if rows:
        connection.execute(sa.insert(UPLOAD_BLOB), rows)


def get(connection: sa.Connection, upload_id: str) -> sa.RowMapping:
    """Return an upload's row.

    Raises:
        NotFoundError: there is no such upload.
    """
    statement = sa.select(UPLOAD).where(UPLOAD.c.id == upload_id)
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise no_upload(upload_id)
    return row


def no_upload(upload_id: str) -> NotFoundError:
    """Return the error for an upload that is not there, or that is not the caller's business."""
    message = f"there is no upload {upload_id[:32]!r}"
    return NotFoundError(message, hint="begin the push again")


def close(connection: sa.Connection, upload_id: str, state: str) -> None:
    """Note how an upload ended: ``published`` or ``failed``."""
    statement = sa.update(UPLOAD).where(UPLOAD.c.id == upload_id, UPLOAD.c.state != "published")
    connection.execute(statement.values(state=state))
