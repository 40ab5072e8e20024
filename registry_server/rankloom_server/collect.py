"""Garbage collection, while everybody goes on working.

A blob is removed in two passes that lie hours apart. The first condemns what no version and no
lease names; the second deletes what is condemned since then. In between, whoever wants the blob
again brings it back. Every step is one conditional update of the blob's row, whose lock decides
who was first, so collectors and pushers may run at the same time, and stop, anywhere. A deletion is
its collector's alone until :data:`STUCK` has passed: a second one that came late would remove what
was pushed anew meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom_server import audit, db, retention
from rankloom_server.models import (
    ADAPTER,
    BLOB,
    UPLOAD,
    UPLOAD_BLOB,
    VERSION,
    VERSION_FILE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rankloom_server.access import Actor
    from rankloom_server.store.interface import Assembly, Store

GRACE = timedelta(hours=24)
"""How long a blob must have been unwanted before each pass; no signed URL is good for longer."""

STUCK = timedelta(hours=1)
"""How long a deletion is its collector's alone: longer than a call to a store with its retries.

Until then nobody can push what a collector that was killed had begun to delete.
"""

_BATCH = 500

_named_by_version = (
    sa.exists()
    .where(
        VERSION_FILE.c.digest == BLOB.c.digest,
        VERSION_FILE.c.version_id == VERSION.c.id,
        VERSION.c.adapter_id == ADAPTER.c.id,
        ADAPTER.c.namespace == BLOB.c.namespace,
    )
    .correlate(BLOB)
)


def _leased(now: datetime) -> sa.Exists:
    return (
        sa.exists()
        .where(
            UPLOAD_BLOB.c.digest == BLOB.c.digest,
            UPLOAD_BLOB.c.upload_id == UPLOAD.c.id,
            UPLOAD.c.namespace == BLOB.c.namespace,
            UPLOAD.c.state != "published",  # what it published, its version names
            UPLOAD.c.lease_until > now,
        )
        .correlate(BLOB)
    )


@dataclass
class Collected:
    """What a collection did, or in a dry run would have done."""

    purged: list[str] = field(default_factory=list)
    condemned: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    nbytes: int = 0
    partial: int = 0
    abandoned: int = 0
    forgotten: int = 0


@dataclass(frozen=True, slots=True)
class Collector:
    """Collects the garbage of a registry.

    Attributes:
        engine: the database.
        store: the blobs.
        actor: for the audit log.
        grace: how long a blob must have been unwanted before each pass.
        clock: tells the time that counts.
    """

    engine: sa.Engine
    store: Store
    actor: Actor
    grace: timedelta = GRACE
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def run(self, *, dry: bool = False) -> Collected:
        """Purge, condemn, delete what was condemned before, and forget old uploads.

        ``dry`` changes nothing and tells what would be purged, condemned and deleted now.

        Raises:
            RegistryError: database or store do not answer; what was done stays done.
        """
        done = Collected()
        if dry:
            self._foretell(done)
            return done
        self._purge(done)
        self._delete(done)  # before new ones are condemned: a pass never does both to a blob
        self._condemn(done)
        # A transfer that goes on has a partial file too, whatever the time of grace.
        before = self.clock() - max(self.grace, GRACE)
        done.partial = self.store.sweep(before)
        done.abandoned = self._abandon(before)
        done.forgotten = self._forget()
        if done.purged or done.condemned or done.deleted:
            with db.write(self.engine) as connection:
                counts = {
                    "purged": len(done.purged),
                    "condemned": len(done.condemned),
                    "deleted": len(done.deleted),
                }
                audit.record(connection, self.actor, "blobs.collect", subject="*", detail=counts)
        return done

    def _foretell(self, done: Collected) -> None:
        with db.read(self.engine) as connection:
            versions = retention.find(connection, self.clock())
            done.purged = [f"{item.adapter}@v{item.number}" for item in versions]
            for found, conditions in (
                (done.deleted, self._deletable()),
                (done.condemned, self._condemnable()),
            ):
                rows = connection.execute(_selected(*conditions)).all()
                found += [f"{row.namespace}/{row.digest}" for row in rows]
        for name in done.deleted:
            namespace, _, digest = name.partition("/")
            done.nbytes += self.store.inside(namespace).size(digest) or 0

    def _purge(self, done: Collected) -> None:
        now = self.clock()
        with db.read(self.engine) as connection:
            versions = retention.find(connection, now)
        for version in versions:
            with db.write(self.engine) as connection:
                if retention.purge(connection, self.actor, version, now):
                    done.purged.append(f"{version.adapter}@v{version.number}")

    def _condemnable(self) -> tuple[sa.ColumnElement[bool], ...]:
        # The row's own time comes first: PostgreSQL checks only the row anew when it had to wait
        # for somebody who claimed the blob meanwhile.
        now = self.clock()
        return (
            BLOB.c.state == "live",
            BLOB.c.wanted_at <= now - self.grace,
            sa.not_(_named_by_version),
            sa.not_(_leased(now)),
        )

    def _deletable(self) -> tuple[sa.ColumnElement[bool], ...]:
        now = self.clock()
        condemned = sa.and_(BLOB.c.state == "condemned", BLOB.c.changed_at <= now - self.grace)
        # A collector was killed, or the store did not answer.
        stuck = sa.and_(BLOB.c.state == "deleting", BLOB.c.changed_at <= now - STUCK)
        return (sa.or_(condemned, stuck), sa.not_(_named_by_version), sa.not_(_leased(now)))

    def _condemn(self, done: Collected) -> None:
        for namespace, digest in self._candidates(*self._condemnable()):
            if self._move(namespace, digest, "condemned", self._condemnable()):
                done.condemned.append(f"{namespace}/{digest}")

    def _delete(self, done: Collected) -> None:
        for namespace, digest in self._candidates(*self._deletable()):
            # Written down first: while the store may still act on it, nobody builds on the blob.
            since = self._move(namespace, digest, "deleting", self._deletable())
            if since is None:
                continue
            inside = self.store.inside(namespace)
            done.nbytes += inside.size(digest) or 0
            inside.delete(digest)
            mine = (BLOB.c.state == "deleting", BLOB.c.changed_at == since)
            with db.write(self.engine) as connection:
                connection.execute(sa.delete(BLOB).where(*_is(namespace, digest), *mine))
            done.deleted.append(f"{namespace}/{digest}")

    def _candidates(self, *conditions: sa.ColumnElement[bool]) -> Iterator[tuple[str, str]]:
        last = ("", "")
        while True:
            behind = sa.tuple_(BLOB.c.namespace, BLOB.c.digest) > sa.tuple_(*map(sa.literal, last))
            with db.read(self.engine) as connection:
                statement = _selected(*conditions, behind).limit(_BATCH)
                rows = connection.execute(statement).all()
            for row in rows:
                yield row.namespace, row.digest
            if len(rows) < _BATCH:
                return
            last = (rows[-1].namespace, rows[-1].digest)

    def _move(
        self,
        namespace: str,
        digest: str,
        state: str,
        conditions: tuple[sa.ColumnElement[bool], ...],
    ) -> datetime | None:
        """Give a blob another state, if the conditions hold; return since when it has it."""
        now = self.clock()
        statement = sa.update(BLOB).where(*_is(namespace, digest), *conditions)
        with db.write(self.engine) as connection:
            moved = connection.execute(statement.values(state=state, changed_at=now)).rowcount
        return now if moved else None

    def _abandon(self, before: datetime) -> int:
        """Remove the parts of large blobs that nobody goes on with; return of how many blobs.

        Who goes on with one at this moment is told that all parts are missing, and sends them.
        """
        count = 0
        for assembly in self.store.assemblies():
            if assembly.since < before and not self._is_leased(assembly):
                self.store.abandon(assembly)
                count += 1
        return count

    def _is_leased(self, assembly: Assembly) -> bool:
        mine = _is(assembly.namespace, assembly.digest)
        with db.read(self.engine) as connection:
            found = connection.scalar(sa.select(BLOB.c.digest).where(*mine, _leased(self.clock())))
        return found is not None

    def _forget(self) -> int:
        """Remove the journal of uploads whose lease is long over; return how many."""
        count = 0
        while gone := self._forget_some():
            count += gone
        return count

    def _forget_some(self) -> int:
        over = sa.select(UPLOAD.c.id).where(UPLOAD.c.lease_until <= self.clock() - self.grace)
        with db.write(self.engine) as connection:
            # Whoever publishes locks the upload before its blobs: the same order here, and an
            # upload that somebody holds is left to the next pass.
            held = over.limit(_BATCH).with_for_update(skip_locked=True)
            ids = connection.scalars(held).all()
            connection.execute(sa.delete(UPLOAD_BLOB).where(UPLOAD_BLOB.c.upload_id.in_(ids)))
            return connection.execute(sa.delete(UPLOAD).where(UPLOAD.c.id.in_(ids))).rowcount


def _selected(*conditions: sa.ColumnElement[bool]) -> sa.Select[tuple[str, str]]:
    statement = sa.select(BLOB.c.namespace, BLOB.c.digest).where(*conditions)
    return statement.order_by(BLOB.c.namespace, BLOB.c.digest)


def _is(namespace: str, digest: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (BLOB.c.namespace == namespace, BLOB.c.digest == digest)
