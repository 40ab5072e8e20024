"""The journal of uploads: what was declared, which blobs are missing, how long they are wanted."""

from __future__ import annotations

import functools
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom.errors import NotFoundError
from rankloom.registry import crew
from rankloom.registry.wire import LargeBlob, Upload
from rankloom_server import bases, db
from rankloom_server.access import Scope
from rankloom_server.models import UPLOAD, UPLOAD_BLOB
from rankloom_server.publish import claims, declared, numbering, quota

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rankloom.ref import AdapterName
    from rankloom.registry.wire import PutTarget, UploadRequest
    from rankloom_server.access import Actor
    from rankloom_server.store.interface import Store

LEASE = timedelta(hours=24)
"""How long the blobs of an unfinished upload are kept; a push may be taken up again until then.

No signed URL is good for longer, so nobody can bring a blob that was collected meanwhile.
"""


def open_upload(
    engine: sa.Engine, store: Store, adapter: AdapterName, request: UploadRequest
) -> Upload:
    """Write a push into the journal, claim its blobs, and say which of them must be sent.

    The same request again is the same open upload with a fresh lease. With another base, card or
    semantic version it is another upload: nobody changes what somebody else is about to publish.

    Raises:
        ConflictError: (REG004) the semantic version is another version's.
        IncompatibleError: the named base is not the manifest's.
        NotFoundError: the named base does not exist.
        ForbiddenError: the namespace would hold more than it may.
        RefError: the manifest cannot become a version.
    """
    declared.check(request)
    digest = declared.digest_of(request.manifest)
    sizes = {entry.digest: entry.size for entry in request.manifest.files}
    with db.read(engine) as connection:
        if request.base is not None:
            declared.check_base(request.manifest, bases.get(connection, request.base))
        quota.check(connection, adapter.namespace, sizes)
        numbering.check(connection, adapter, digest, request.semver)

    def remember() -> tuple[str, frozenset[str]]:
        with db.write(engine) as connection:
            upload_id = _remember(connection, adapter, request, digest)
            _add_blobs(connection, upload_id, sizes)
            return upload_id, claims.claim(connection, adapter.namespace, sizes)

    # First the journal, then the store: what was claimed cannot vanish behind our back.
    upload_id, damaged = claims.patiently(remember)
    inside = store.inside(adapter.namespace)
    targets: list[PutTarget] = []
    large: list[LargeBlob] = []
    held = _sizes_held(inside, sizes)
    for blob, size in sorted(sizes.items()):
        stored = held[blob]
        if stored == size and blob not in damaged:
            continue
        if part_bytes := inside.part_bytes(size):
            large.append(LargeBlob(digest=blob, part_bytes=part_bytes))
        else:
            targets.append(inside.presign_put(blob, size, replace=stored is not None))
    return Upload(id=upload_id, missing=tuple(targets), large=tuple(large))


def _sizes_held(store: Store, blobs: Iterable[str]) -> dict[str, int | None]:
    """Ask a store for the sizes of blobs, several at a time: each question is a way to it."""
    held: dict[str, int | None] = {}

    def look(blob: str) -> None:
        held[blob] = store.size(blob)

    crew.run([functools.partial(look, blob) for blob in blobs])
    return held


def _remember(
    connection: sa.Connection, adapter: AdapterName, request: UploadRequest, digest: str
) -> str:
    """Write the upload's row, or renew the open one of the same request; return its id."""
    now = datetime.now(UTC)
    asked = {
        "namespace": adapter.namespace,
        "name": adapter.name,
        "digest": digest,
        "base_id": bases.row_id(request.base),
        "card": request.card,
        "semver": request.semver,
        "state": "open",
    }
    same = [UPLOAD.c[name].is_not_distinct_from(value) for name, value in asked.items()]
    found: str | None = connection.execute(sa.select(UPLOAD.c.id).where(*same).limit(1)).scalar()
    if found is not None:
        renewed = sa.update(UPLOAD).where(UPLOAD.c.id == found)
        connection.execute(renewed.values(lease_until=now + LEASE))
        return found
    upload_id = secrets.token_hex(16)
    values = {
        "id": upload_id,
        "manifest": request.manifest.canonical().decode(),
        "lease_until": now + LEASE,
        "created_at": now,
    }
    connection.execute(sa.insert(UPLOAD).values(**values, **asked))
    return upload_id


def _add_blobs(connection: sa.Connection, upload_id: str, blobs: Iterable[str]) -> None:
    rows = [{"upload_id": upload_id, "digest": blob} for blob in sorted(blobs)]
    connection.execute(db.insert(connection, UPLOAD_BLOB).on_conflict_do_nothing(), rows)


def resume(engine: sa.Engine, upload: sa.RowMapping, blobs: Iterable[str]) -> None:
    """Renew an upload's lease and claim, so that its blobs stay while they are verified."""

    def renew() -> None:
        with db.write(engine) as connection:
            mine = UPLOAD.c.id == upload["id"]
            lease_until = datetime.now(UTC) + LEASE
            connection.execute(sa.update(UPLOAD).where(mine).values(lease_until=lease_until))
            claims.claim(connection, upload["namespace"], blobs)

    claims.patiently(renew)


def find(connection: sa.Connection, upload_id: str, actor: Actor) -> sa.RowMapping:
    """Return the row of an upload that an actor may go on with.

    Raises:
        NotFoundError: there is no such upload, or not for this actor.
    """
    row = get(connection, upload_id)
    if not actor.may(Scope.PUSH, row["namespace"], row["name"]):
        raise _no_upload(upload_id)
    return row


def get(connection: sa.Connection, upload_id: str) -> sa.RowMapping:
    """Return an upload's row.

    Raises:
        NotFoundError: there is no such upload.
    """
    statement = sa.select(UPLOAD).where(UPLOAD.c.id == upload_id)
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise _no_upload(upload_id)
    return row


def _no_upload(upload_id: str) -> NotFoundError:
    message = f"there is no upload {upload_id[:32]!r}"
    return NotFoundError(message, hint="begin the push again")


def close(connection: sa.Connection, upload_id: str, state: str) -> None:
    """Note how an upload ended: ``published`` or ``failed``."""
    statement = sa.update(UPLOAD).where(UPLOAD.c.id == upload_id, UPLOAD.c.state != "published")
    connection.execute(statement.values(state=state))
