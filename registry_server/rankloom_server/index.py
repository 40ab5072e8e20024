"""Deriving anew what versions are found by, where it is old or was never derived.

A version that was published before single tensors were read, or before the digest of its header was
kept, is read whole once; of one that other tables of engines have judged, only the config and the
tensors' header are. Each is one short transaction, so this may be stopped at any time, goes on from
there, and may run twice.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom.errors import RankloomError, RegistryError
from rankloom.manifest import Manifest
from rankloom.registry.wire import AdapterFacts
from rankloom_server import bases, db, judged, search_keys, tensors
from rankloom_server.models import ADAPTER, VERSION
from rankloom_server.publish import facts
from rankloom_server.publish.materialise import materialise_headers, rematerialise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.registry.wire import BaseRecord
    from rankloom_server.service import Service

_BATCH = 100
_LOG = logging.getLogger(__name__)


@dataclass
class Indexed:
    """What was done.

    Attributes:
        judged: versions whose engines were judged.
        read: how many of them were read whole, for the digests of their tensors and header.
        left: versions that are still to be looked at.
        failed: those that could not be looked at, each with the reason; they are left too.
    """

    judged: int = 0
    read: int = 0
    left: int = 0
    failed: list[str] = field(default_factory=list)


def run(service: Service, limit: int | None = None) -> Indexed:
    """Look at versions, the oldest first.

    Args:
        service: the registry.
        limit: how many are judged at most, not counting failures; ``None``: all.

    Raises:
        RegistryError: database or store do not answer; what was done stays done.
    """
    done, known = Indexed(), _Bases(service.engine)
    service.scratch.mkdir(parents=True, exist_ok=True)
    for row in _pending(service.engine):
        if done.judged == limit:
            break
        try:
            _look_at(service, row, known.get(row["base_id"]), done)
        except RegistryError:
            raise
        except Exception as error:  # noqa: BLE001 - one version holds up no other
            name = f"{row['namespace']}/{row['name']}@v{row['number']}"
            done.failed.append(f"{name}: {_reason(error)}")
    done.left = _count(service.engine)
    return done


def _reason(error: Exception) -> str:
    if isinstance(error, RankloomError):
        return error.message
    if isinstance(error, OSError):
        return str(error)
    _LOG.exception("a fault of rankloom")
    return f"a fault of rankloom: {error!r}"


class _Bases:
    """Recorded bases, each read once."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._known: dict[int, BaseRecord] = {}

    def get(self, base_id: int | None) -> BaseRecord | None:
        """Return a base by its row."""
        if base_id is None:
            return None
        if base_id not in self._known:
            with db.read(self._engine) as connection:
                self._known[base_id] = bases.by_id(connection, base_id)
        return self._known[base_id]


def _count(engine: sa.Engine) -> int:
    counted = sa.select(sa.func.count()).select_from(VERSION).where(judged.is_other())
    with db.read(engine) as connection:
        return connection.execute(counted).scalar_one()


def _pending(engine: sa.Engine) -> Iterator[sa.RowMapping]:
    last = 0
    while True:
        statement = (
            sa.select(VERSION, ADAPTER.c.namespace, ADAPTER.c.name)
            .join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id)
            .where(judged.is_other(), VERSION.c.id > last)
            .order_by(VERSION.c.id)
            .limit(_BATCH)
        )
        with db.read(engine) as connection:
            rows = connection.execute(statement).mappings().all()
        yield from rows
        if len(rows) < _BATCH:
            return
        last = rows[-1]["id"]


def _look_at(service: Service, row: sa.RowMapping, base: BaseRecord | None, done: Indexed) -> None:
    manifest = Manifest.model_validate_json(row["manifest"])
    inside = service.store.inside(row["namespace"])
    header = None if row["tensor_count"] is None else row["header_digest"]
    known = None if header is None else AdapterFacts.model_validate(row["facts"])
    with tempfile.TemporaryDirectory(dir=service.scratch) as name:
        folder = Path(name)
        if header is None:
            rematerialise(inside, manifest, folder)
        else:
            materialise_headers(inside, manifest, folder, header)
        found = facts.derive(folder, manifest, base, known)
    with db.write(service.engine) as connection:
        # As a purge does: whoever is second sees what the first one did.
        mine = sa.select(ADAPTER.c.id).where(ADAPTER.c.id == row["adapter_id"])
        connection.execute(mine.with_for_update())
        kept = VERSION.c.id == row["id"], VERSION.c.purged_at.is_(None), *_as_read(row)
        if connection.execute(sa.select(VERSION.c.id).where(*kept)).first() is None:
            return
        connection.execute(
            sa.update(VERSION).where(*kept).values(header_digest=found.header_digest)
        )
        search_keys.keep_facts(connection, row["id"], found.facts)
        search_keys.judge(connection, row["id"], found.verdicts)
        tensors.enter(connection, row["id"], found.contents)
    done.judged += 1
    done.read += header is None


def _as_read(row: sa.RowMapping) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that a version was neither judged nor brought back meanwhile."""
    return [VERSION.c[name].is_not_distinct_from(row[name]) for name in ("base_id", "judged_by")]
