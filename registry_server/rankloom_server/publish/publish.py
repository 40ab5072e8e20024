"""The step that turns uploaded blobs into a version."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom.errors import AdapterError, BaseError, IncompatibleError, UploadCorruptError
from rankloom.manifest import Manifest
from rankloom.ref import AdapterName
from rankloom_server import audit, bases, catalogue, db
from rankloom_server.access import Scope
from rankloom_server.models import ADAPTER, VERSION, VERSION_FILE
from rankloom_server.publish import facts, journal
from rankloom_server.publish.materialise import materialise

if TYPE_CHECKING:
    from rankloom.registry.wire import AdapterFacts, Version
    from rankloom_server.access import Actor
    from rankloom_server.store.interface import Store

_REJECTED = (AdapterError, BaseError, IncompatibleError, UploadCorruptError)


def publish(
    engine: sa.Engine, store: Store, scratch: Path, upload_id: str, actor: Actor
) -> Version:
    """Verify an upload's blobs and name them a version; again: the same version.

    ``scratch`` is a folder for the time of the verification; on the file system of a local store
    nothing is copied.

    Raises:
        AdapterError: a rule found an error.
        ConflictError: blobs are missing.
        IncompatibleError: the adapter does not fit its base.
        NotFoundError: there is no such upload, or not for this actor.
        UploadCorruptError: stored bytes are not those that were declared.
    """
    with db.read(engine) as connection:
        upload = journal.get(connection, upload_id)
        if not actor.may(Scope.PUSH, upload["namespace"]):
            raise journal.no_upload(upload_id)
        adapter = AdapterName(upload["namespace"], upload["name"])
        known = catalogue.find_version(connection, adapter, upload["digest"]) is not None
    found = None if known else _verify(engine, store, scratch, upload)
    with db.write(engine) as connection:
        adapter_id = _lock_adapter(connection, adapter, upload["card"])
        if catalogue.find_version(connection, adapter, upload["digest"]) is None and found:
            _insert_version(connection, adapter_id, upload, found, actor)
        journal.close(connection, upload_id, "published")
        return catalogue.version(connection, adapter, upload["digest"])


def _verify(engine: sa.Engine, store: Store, scratch: Path, upload: sa.RowMapping) -> AdapterFacts:
    manifest = Manifest.model_validate_json(upload["manifest"])
    with db.read(engine) as connection:
        base = bases.by_id(connection, upload["base_id"]) if upload["base_id"] else None
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            materialise(store, manifest, Path(folder))
            return facts.examine(Path(folder), manifest, base)
    except _REJECTED:
        with db.write(engine) as connection:
            journal.close(connection, upload["id"], "failed")
        raise


def _lock_adapter(connection: sa.Connection, adapter: AdapterName, card: str | None) -> int:
    """Return the adapter's row id; others that publish to it wait until this is committed."""
    statement = db.insert(connection, ADAPTER).values(
        namespace=adapter.namespace, name=adapter.name, card="", created_at=datetime.now(UTC)
    )
    unique = [ADAPTER.c.namespace, ADAPTER.c.name]
    connection.execute(statement.on_conflict_do_nothing(index_elements=unique))
    mine = catalogue.is_adapter(adapter)
    if card is not None:
        connection.execute(sa.update(ADAPTER).where(mine).values(card=card))
    locking = sa.select(ADAPTER.c.id).where(mine).with_for_update()
    adapter_id: int = connection.execute(locking).scalar_one()
    return adapter_id


def _insert_version(
    connection: sa.Connection,
    adapter_id: int,
    upload: sa.RowMapping,
    found: AdapterFacts,
    actor: Actor,
) -> None:
    manifest = Manifest.model_validate_json(upload["manifest"])
    base_id = upload["base_id"]
    if base_id is None and manifest.base is not None:
        base_id = bases.same_values(connection, manifest.base)
    newest = sa.select(sa.func.max(VERSION.c.number)).where(VERSION.c.adapter_id == adapter_id)
    statement = sa.insert(VERSION).values(
        adapter_id=adapter_id,
        number=(connection.execute(newest).scalar() or 0) + 1,
        digest=upload["digest"],
        base_id=base_id,
        manifest=upload["manifest"],
        facts=found.model_dump(mode="json"),
        created_at=datetime.now(UTC),
    )
    version_id = connection.execute(statement.returning(VERSION.c.id)).scalar_one()
    files = [
        {"version_id": version_id, "path": file.path, "size": file.size, "digest": file.digest}
        for file in manifest.files
    ]
    connection.execute(sa.insert(VERSION_FILE), files)
    audit.record(
        connection,
        actor,
        "version.publish",
        namespace=upload["namespace"],
        subject=upload["name"],
        detail={"version": upload["digest"]},
    )
