"""The bases that the registry knows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rankloom import digest as digests
from rankloom.errors import ConflictError, NotFoundError
from rankloom.fingerprint import Fingerprint
from rankloom.registry import base_record
from rankloom.registry.wire import BaseRecord
from rankloom_server import audit, db
from rankloom_server.models import BASE

if TYPE_CHECKING:
    from rankloom_server.access import Actor

_LEVELS = (BASE.c.cfg, BASE.c.struct, BASE.c.exact, BASE.c.bf16)
_SUMMARY = (BASE.c.name, *_LEVELS, BASE.c.source, BASE.c.config)


def add(connection: sa.Connection, actor: Actor, record: BaseRecord) -> BaseRecord:
    """Record a base, or return the one that has its name and fingerprint already.

    Raises:
        BaseError: its fingerprint is not that of what the record says.
        ConflictError: the name belongs to another fingerprint.
    """
    # Others' versions are judged beside it, so what it says must be what its fingerprint means.
    base_record.check(record)
    # Two who record one base at once must both succeed.
    statement = db.insert(connection, BASE).values(**_values(record))
    statement = statement.on_conflict_do_nothing(index_elements=[BASE.c.name])
    if connection.execute(statement.returning(BASE.c.id)).first():
        detail = record.fingerprint.model_dump()
        audit.record(connection, actor, "base.add", subject=record.name, detail=detail)
        return record
    found = get(connection, record.name)
    if found.fingerprint != record.fingerprint:
        message = f"base {record.name} is recorded with another fingerprint"
        hint = "record this base under another name; a base's name always means the same values"
        raise ConflictError(message, hint=hint)
    return found


def _values(record: BaseRecord) -> dict[str, Any]:
    content = record.model_dump(mode="json", exclude={"fingerprint"})
    levels = record.fingerprint.model_dump()
    return {**content, **levels, "created_at": datetime.now(UTC)}


def get(connection: sa.Connection, name: str) -> BaseRecord:
    """Return a base with its tensors' headers.

    Raises:
        NotFoundError: there is no such base.
    """
    found = find(connection, name)
    if found is None:
        message = f"there is no base {name[:96]!r}"
        raise NotFoundError(message, hint="record it with 'loractl base add DIR'")
    return found


def find(connection: sa.Connection, name: str) -> BaseRecord | None:
    """Return a base with its tensors' headers, ``None`` if there is no such base."""
    statement = sa.select(*_SUMMARY, BASE.c.tensors).where(BASE.c.name == name)
    row = connection.execute(statement).mappings().one_or_none()
    return None if row is None else _record(row)


def list_all(connection: sa.Connection) -> tuple[BaseRecord, ...]:
    """Return every base in name order, without its tensors."""
    rows = connection.execute(sa.select(*_SUMMARY).order_by(BASE.c.name)).mappings()
    return tuple(_record(row) for row in rows)


def by_id(connection: sa.Connection, row_id: int) -> BaseRecord:
    """Return the base that a row of another table points to."""
    statement = sa.select(*_SUMMARY, BASE.c.tensors).where(BASE.c.id == row_id)
    return _record(connection.execute(statement).mappings().one())


def same_values(connection: sa.Connection, fingerprint: Fingerprint) -> int | None:
    """Return the row id of the recorded base with these very values that was there first.

    What somebody else records later changes nothing for it, and one of another config, whatever
    values it claims, is another base.
    """
    same = [
        level == value
        for level, value in ((BASE.c.exact, fingerprint.exact), (BASE.c.bf16, fingerprint.bf16))
        if value is not None
    ]
    statement = (
        sa.select(BASE.c.id)
        .where(
            BASE.c.struct == fingerprint.struct, BASE.c.cfg.is_not_distinct_from(fingerprint.cfg)
        )
        .where(sa.or_(sa.false(), *same))
        .order_by(BASE.c.id)
        .limit(1)
    )
    found: int | None = connection.execute(statement).scalar()
    return found


def level(connection: sa.Connection, base: str) -> str:
    """Return the digest that all versions made for a base carry: of its name, or itself.

    Bases that agree exactly agree rounded to bfloat16 as well, so that level finds both.
    """
    if base.startswith("sha256:"):
        return digests.parse(base)
    fingerprint = get(connection, base).fingerprint
    return fingerprint.bf16 or fingerprint.exact or fingerprint.struct


def row_id(name: str | None) -> sa.ScalarSelect[int] | None:
    """Return the expression for the row id of a base by its name."""
    return (
        None if name is None else sa.select(BASE.c.id).where(BASE.c.name == name).scalar_subquery()
    )


def _record(row: sa.RowMapping) -> BaseRecord:
    levels = {level.name: row[level.name] for level in _LEVELS}
    return BaseRecord(
        name=row["name"],
        fingerprint=Fingerprint.model_validate(levels),
        source=row["source"],
        config=row["config"],
        tensors=row.get("tensors", {}),
    )
