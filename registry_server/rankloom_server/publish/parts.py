"""Large blobs, which a client sends in parts and may go on with at any time, in any process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.errors import NotFoundError, RefError
from rankloom.manifest import Manifest
from rankloom.registry.wire import MissingParts
from rankloom_server import db
from rankloom_server.publish import claims, journal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

    from rankloom_server.access import Actor
    from rankloom_server.store.interface import Store


def assemble(
    engine: sa.Engine,
    store: Store,
    upload_id: str,
    digest: str,
    parts: Sequence[str],
    actor: Actor,
) -> MissingParts:
    """Say which parts of an upload's blob have not arrived; with all of them, make the blob.

    The upload's lease begins anew. Whether the blob has its digest is seen when it is published.

    Raises:
        NotFoundError: there is no such upload, not for this actor, or it declared no such blob.
        RefError: the blob is not sent in parts, or in another number of them.
    """
    with db.read(engine) as connection:
        upload = journal.find(connection, upload_id, actor)
        damaged = claims.damaged(connection, upload["namespace"], [digest])
    inside = store.inside(upload["namespace"])
    size = _declared_size(upload, digest)
    _check_count(digest, size, inside.part_bytes(size), len(parts))
    # First the claim, then the store: what is put together now must not be collected meanwhile.
    journal.resume(engine, upload, [digest])
    stored = inside.size(digest)
    if stored == size and not damaged:
        return MissingParts(missing=())
    missing = inside.assemble(digest, size, parts, replace=stored is not None)
    return MissingParts(missing=missing)


def _declared_size(upload: sa.RowMapping, digest: str) -> int:
    manifest = Manifest.model_validate_json(upload["manifest"])
    for entry in manifest.files:
        if entry.digest == digest:
            return entry.size
    message = f"upload {upload['id']} declared no blob {digest}"
    raise NotFoundError(message, hint="begin the push again")


def _check_count(digest: str, size: int, part_bytes: int | None, count: int) -> None:
    if part_bytes is None:
        message = f"blob {digest} of {size} bytes is sent whole"
        raise RefError(message, hint="open the upload again; its answer says where to send it")
    expected = -(-size // part_bytes)
    if count != expected:
        message = f"blob {digest} has {expected} parts of {part_bytes} bytes, not {count}"
        raise RefError(message, hint="open the upload again; its answer says how large parts are")
