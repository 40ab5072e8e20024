"""The step that turns uploaded blobs into a version."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from pydantic import ValidationError

from rankloom import engine_tables
from rankloom.errors import (
    AdapterError,
    BaseError,
    ConflictError,
    IncompatibleError,
    UploadCorruptError,
)
from rankloom.manifest import Manifest
from rankloom.recipe.recipe import Lock
from rankloom.ref import AdapterName
from rankloom_server import audit, bases, catalogue, db, remarks, search_keys, tensors
from rankloom_server.judged import NOBODY
from rankloom_server.models import ADAPTER, VERSION, VERSION_FILE, VERSION_PART
from rankloom_server.publish import claims, facts, journal, numbering
from rankloom_server.publish.materialise import check_arrived, materialise

if TYPE_CHECKING:
    from rankloom.registry.wire import Version
    from rankloom_server.access import Actor
    from rankloom_server.publish.facts import Examined
    from rankloom_server.store.interface import Store

_REJECTED = (AdapterError, BaseError, IncompatibleError, UploadCorruptError)


@dataclass(frozen=True, slots=True)
class _Push:
    """An upload that shall become a version."""

    row: sa.RowMapping
    adapter: AdapterName
    manifest: Manifest
    actor: Actor

    @property
    def blobs(self) -> frozenset[str]:
        return frozenset(entry.digest for entry in self.manifest.files)


@dataclass(frozen=True, slots=True)
class _Verified:
    """What the verification of an upload gave; ``base_id`` is the row of its base, if known."""

    examined: Examined
    base_id: int | None


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
        push = _find(connection, upload_id, actor)
        known = _kept(connection, push)
        damaged = claims.damaged(connection, push.adapter.namespace, push.blobs)
    if known and not damaged and push.row["state"] == "published":
        return known  # a replay changes nothing, not even the card
    found = None if known and not damaged else _verify(engine, store, scratch, push)
    with db.write(engine) as connection:
        return _name(connection, push, found)


def _find(connection: sa.Connection, upload_id: str, actor: Actor) -> _Push:
    row = journal.find(connection, upload_id, actor)
    adapter = AdapterName(row["namespace"], row["name"])
    return _Push(row, adapter, Manifest.model_validate_json(row["manifest"]), actor)


def _kept(connection: sa.Connection, push: _Push) -> Version | None:
    """Return the version if it exists and is not purged."""
    known = catalogue.find_version(connection, push.adapter, push.row["digest"])
    return None if known is None or known.purged_at is not None else known


def _name(connection: sa.Connection, push: _Push, found: _Verified | None) -> Version:
    """Make the version, if it is not there by now; ``found`` is what its verification gave."""
    adapter_id = _lock_adapter(connection, push.adapter, push.row["card"])
    semver = push.row["semver"]
    numbering.check(connection, push.adapter, push.row["digest"], semver)
    if _kept(connection, push) is None:
        if found is None:
            message = f"{push.adapter}@{push.row['digest']} was purged meanwhile"
            raise ConflictError(message, hint="push it again to bring it back")
        version_id = _write_version(connection, adapter_id, push, found)
        _write_files(connection, version_id, push)
        tensors.enter(connection, version_id, found.examined.contents)
        search_keys.enter(connection, version_id)
    if found is not None:
        claims.note_damage(connection, push.adapter.namespace, push.blobs, damaged=False)
    numbering.give(connection, adapter_id, push.row["digest"], semver)
    journal.close(connection, push.row["id"], "published")
    return catalogue.version(connection, push.adapter, push.row["digest"])


def _verify(engine: sa.Engine, store: Store, scratch: Path, push: _Push) -> _Verified:
    journal.resume(engine, push.row, push.blobs)
    base_id = push.row["base_id"]
    with db.read(engine) as connection:
        base = beside = bases.by_id(connection, base_id) if base_id else None
        if base is None and push.manifest.base is not None:
            base_id = bases.same_values(connection, push.manifest.base)
            beside = bases.by_id(connection, base_id) if base_id else None
    scratch.mkdir(parents=True, exist_ok=True)
    inside = store.inside(push.adapter.namespace)
    try:
        check_arrived(inside, push.manifest)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            _refuse_damage(engine, push, materialise(inside, push.manifest, Path(folder)))
            examined = facts.examine(Path(folder), push.manifest, base, beside)
    except _REJECTED:
        with db.write(engine) as connection:
            journal.close(connection, push.row["id"], "failed")
        raise
    return _Verified(examined, base_id)


def _refuse_damage(engine: sa.Engine, push: _Push, damage: dict[str, str]) -> None:
    """Refuse damaged blobs, and remember them so that the next push brings them anew."""
    if not damage:
        return
    with db.write(engine) as connection:
        claims.note_damage(connection, push.adapter.namespace, damage, damaged=True)
    hint = "push again: what is damaged is sent anew; if it stays so, check the store"
    raise UploadCorruptError("; ".join(damage.values()), hint=hint)


def _lock_adapter(connection: sa.Connection, adapter: AdapterName, card: str | None) -> int:
    """Return the adapter's row id; others that publish to it wait until this is committed."""
    statement = db.insert(connection, ADAPTER).values(
        namespace=adapter.namespace, name=adapter.name, card="", created_at=datetime.now(UTC)
    )
    unique = [ADAPTER.c.namespace, ADAPTER.c.name]
    connection.execute(statement.on_conflict_do_nothing(index_elements=unique))
    mine = catalogue.is_adapter(adapter)
    locking = sa.select(ADAPTER.c.id, ADAPTER.c.card).where(mine).with_for_update()
    row = connection.execute(locking).one()
    adapter_id: int = row.id
    if card is not None and card != row.card:
        remarks.set_card(connection, adapter_id, adapter, row.card, card)
    return adapter_id


def _write_version(
    connection: sa.Connection, adapter_id: int, push: _Push, found: _Verified
) -> int:
    """Write a version's row, or bring a purged one back; return its id."""
    facts, verdicts = found.examined.facts, found.examined.verdicts
    newest = sa.select(sa.func.max(VERSION.c.number)).where(VERSION.c.adapter_id == adapter_id)
    derived = {
        "facts": facts.model_dump(mode="json"),
        "rank": search_keys.rank(facts),
        "module_count": len(search_keys.modules(facts)),
        "header_digest": found.examined.header_digest,
        "verdicts": verdicts,
        "judged_by": engine_tables.digest() if verdicts else NOBODY,
        "base_id": found.base_id,
    }
    statement = db.insert(connection, VERSION).values(
        adapter_id=adapter_id,
        number=(connection.execute(newest).scalar() or 0) + 1,
        digest=push.row["digest"],
        manifest=push.row["manifest"],
        created_at=datetime.now(UTC),
        creator=push.actor.name,
        labels={},
        metrics={},
        **derived,
    )
    statement = statement.on_conflict_do_update(
        index_elements=[VERSION.c.adapter_id, VERSION.c.digest],
        set_={"purged_at": None, **derived},
    )
    audit.record(
        connection,
        push.actor,
        "version.publish",
        namespace=push.adapter.namespace,
        subject=push.adapter.name,
        detail={"version": push.row["digest"]},
    )
    version_id: int = connection.execute(statement.returning(VERSION.c.id)).scalar_one()
    return version_id


def _write_files(connection: sa.Connection, version_id: int, push: _Push) -> None:
    files = [
        {"version_id": version_id, "path": file.path, "size": file.size, "digest": file.digest}
        for file in push.manifest.files
    ]
    connection.execute(sa.insert(VERSION_FILE), files)
    parts = [{"version_id": version_id, "digest": digest} for digest in parts_of(push.manifest)]
    if parts:
        statement = db.insert(connection, VERSION_PART).on_conflict_do_nothing()
        connection.execute(statement, parts)


def parts_of(manifest: Manifest) -> list[str]:
    """Return the digests of the versions of which a composition was made, as its lock says.

    A lock of a form that this version does not know names none.
    """
    if manifest.lock is None:
        return []
    try:
        lock = Lock.model_validate(manifest.lock)
    except ValidationError:
        return []
    return sorted({part.digest for part in lock.parts})
