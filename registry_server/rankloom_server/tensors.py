"""Which versions have tensors in common: a tensor's content, whatever its name, by its digest.

What others have by chance (:attr:`rankloom.tensorfile.tensor_digest.Leaf.uniform`) is not counted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom.errors import RefError
from rankloom.registry.wire import RelatedPage, RelatedVersion
from rankloom_server import catalogue, db, judged
from rankloom_server.models import VERSION, VERSION_TENSOR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rankloom.ref import VersionRef

_PLACE = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,10})", re.ASCII)


def enter(connection: sa.Connection, version_id: int, contents: Iterable[bytes] | None) -> None:
    """Write down which tensors a version has; ``None``: they were not read, what is known stays."""
    if contents is None:
        return
    known = sa.update(VERSION).where(VERSION.c.id == version_id)
    rows = [{"digest": digest, "version_id": version_id} for digest in sorted(contents)]
    connection.execute(known.values(tensor_count=len(rows)))
    if rows:
        statement = db.insert(connection, VERSION_TENSOR).on_conflict_do_nothing()
        connection.execute(statement, rows)


def remove(connection: sa.Connection, version_id: int) -> None:
    """Forget which tensors a version has."""
    mine = VERSION_TENSOR.c.version_id == version_id
    connection.execute(sa.delete(VERSION_TENSOR).where(mine))


def related(
    connection: sa.Connection,
    ref: VersionRef,
    *,
    limit: int,
    after: str | None,
    readable: frozenset[str] | None,
) -> RelatedPage:
    """Return a page of the versions that share tensors with one, those that share most first.

    Among those that share as many, the ones with the fewest others come first, so that versions of
    the very same tensors lead.

    Args:
        connection: the database.
        ref: the version.
        limit: versions on a page.
        after: the ``next`` of the page before.
        readable: namespaces that are shown beside the public ones; ``None``: all.

    Raises:
        NotFoundError: there is no such version.
        RefError: ``limit`` or ``after`` is not possible, or the version's tensors are not known.
    """
    catalogue.check_limit(limit, "versions")
    row = catalogue.row_of(connection, ref)
    if row["tensor_count"] is None:
        message = f"{ref} was published before the registry took digests of single tensors"
        hint = "'loractl admin index', run where the registry is, takes them"
        raise RefError(message, hint=hint)
    statement = _sharing(row["id"]).limit(limit + 1)  # one more tells whether there is a next page
    if after is not None:
        statement = statement.where(_behind(after))
    if readable is not None:
        statement = statement.where(catalogue.is_shown(readable))
    rows = connection.execute(statement).mappings().all()
    found = catalogue.versions(connection, rows[:limit])
    counts = [(other["shared"], other["tensor_count"]) for other in rows]
    return RelatedPage(
        digest=row["digest"],
        items=tuple(
            RelatedVersion(version=version, shared=shared, of=row["tensor_count"], tensors=tensors)
            for version, (shared, tensors) in zip(found, counts, strict=False)
        ),
        next=_place(rows[limit - 1]) if len(rows) > limit else None,
        incomplete=judged.is_any_not_read(connection, readable),
    )


_MINE = VERSION_TENSOR.alias("mine")
_SHARED = (
    sa.select(VERSION_TENSOR.c.version_id, sa.func.count().label("shared"))
    .join(_MINE, _MINE.c.digest == VERSION_TENSOR.c.digest)
    .where(_MINE.c.version_id == sa.bindparam("mine", type_=sa.Integer))
    .group_by(VERSION_TENSOR.c.version_id)
    .subquery("sharing")
)
_ORDER = (-_SHARED.c.shared, VERSION.c.tensor_count, -VERSION.c.id)


def _sharing(version_id: int) -> sa.Select[tuple[object, ...]]:
    """Return the statement for all versions that share tensors with one, in their order."""
    # As a sum it can only be looked up; a planner might else read all versions first.
    same = VERSION.c.id == _SHARED.c.version_id + sa.literal_column("0")
    statement = (
        sa.select(
            VERSION.c.id, VERSION.c.tensor_count, _SHARED.c.shared, *catalogue.VERSION_COLUMNS
        )
        .select_from(_SHARED.join(catalogue.VERSIONS, same))
        .where(VERSION.c.id != version_id, VERSION.c.purged_at.is_(None))
        .order_by(*_ORDER)
    )
    return statement.params(mine=version_id)


def _behind(after: str) -> sa.ColumnElement[bool]:
    place = _PLACE.fullmatch(after)
    if place is None:
        message = f"{after[:80]!r} is no place in a list of related versions"
        raise RefError(message, hint="give the 'next' of the page before")
    shared, tensors, version_id = map(int, place.groups())
    last = (-shared, tensors, -version_id)
    return sa.tuple_(*_ORDER) > sa.tuple_(*map(sa.literal, last))


def _place(row: sa.RowMapping) -> str:
    return f"{row['shared']}.{row['tensor_count']}.{row['id']}"
