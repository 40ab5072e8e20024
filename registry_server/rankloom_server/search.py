"""Searching versions by what they are and what is said of them.

Everything that a version can be found by is a key, and each key has the list of its versions
(:mod:`rankloom_server.search_keys`). A search walks the sparsest of its lists from the newest
version on and looks each version up in the others, the next sparsest first: one index on both
databases, no matter which filters come together, and a page far down costs what the first costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rankloom.errors import RefError
from rankloom.registry.wire import VersionPage
from rankloom_server import bases, catalogue, namespaces, search_keys
from rankloom_server.models import ADAPTER, SEARCH_ENTRY, VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.registry.wire import VersionQuery

_SAMPLE = 300
"""Newest versions of a list by which its density is judged."""


def find(
    connection: sa.Connection,
    query: VersionQuery,
    *,
    limit: int = 50,
    after: int | None = None,
    readable: frozenset[str] | None = None,
) -> VersionPage:
    """Return a page of versions, newest first.

    Args:
        connection: the database.
        query: all of it must hold.
        limit: versions on a page.
        after: the ``next`` of the page before.
        readable: namespaces that are shown beside the public ones; ``None``: all.

    Raises:
        NotFoundError: there is no such base.
        RefError: ``limit`` is not possible, or the text has no word.
    """
    if not 1 <= limit <= catalogue.MAX_PAGE:
        message = f"a page of {limit} versions is not possible"
        raise RefError(message, hint=f"ask for 1 to {catalogue.MAX_PAGE}")
    if query.text.strip() and not search_keys.words(query.text):
        message = f"{query.text[:80]!r} has no word to search for"
        raise RefError(message, hint="words are letters, digits and underscores")
    keys = _keys(connection, query)
    within = search_keys.of_modules(query.within)
    ids = search_keys.ids(connection, {*keys, *within})
    if not ids.keys() >= set(keys):
        return VersionPage(items=())
    lists = _sparsest_first(connection, [ids[key] for key in keys], after)
    conditions = [*_conditions(query, readable), *_within(within, ids)]
    statement = _statement(lists, query, after).where(*conditions).limit(limit + 1)
    rows = connection.execute(statement).mappings().all()
    found = catalogue.versions(connection, rows[:limit])
    return VersionPage(items=found, next=rows[limit - 1]["id"] if len(rows) > limit else None)


def _keys(connection: sa.Connection, query: VersionQuery) -> list[str]:
    """Return the keys in whose lists a version must be."""
    base = [f"base:{bases.level(connection, query.base)}"] if query.base else []
    return [
        *base,
        *(f"word:{word}" for word in search_keys.words(query.text)),
        *search_keys.of_modules(query.contains),
        *(f"label:{label}" for label in query.labels),
        *([f"kind:{query.kind}"] if query.kind else []),
        *([f"creator:{query.creator}"] if query.creator else []),
        *([f"in:{query.namespace}"] if query.namespace else []),
        *([search_keys.LATEST] if query.latest else []),
    ]


def _sparsest_first(
    connection: sa.Connection, lists: Sequence[int], before: int | None
) -> list[int]:
    """Bring the lists to the front that lie sparsest below ``before``; one statement for all."""
    wanted = sorted(set(lists))
    if len(wanted) < 2:
        return wanted
    rows = connection.execute(sa.union_all(*(_sample(key, before) for key in wanted))).all()
    newest = max((row.newest or 0 for row in rows), default=0)

    def density(row: sa.Row[Any]) -> float:
        # A list that ends within its sample reaches down to the first version.
        return float(row.seen / (newest + 1 - (row.oldest if row.seen == _SAMPLE else 0)))

    return [row.key_id for row in sorted(rows, key=density)]


def _sample(key: int, before: int | None) -> sa.Select[Any]:
    version = SEARCH_ENTRY.c.version_id
    newest = sa.select(version).where(SEARCH_ENTRY.c.key_id == key, *_below(version, before))
    seen = newest.order_by(version.desc()).limit(_SAMPLE).subquery()
    return sa.select(
        sa.literal(key).label("key_id"),
        sa.func.count().label("seen"),
        sa.func.min(seen.c.version_id).label("oldest"),
        sa.func.max(seen.c.version_id).label("newest"),
    ).select_from(seen)


def _below(column: sa.ColumnElement[int], before: int | None) -> list[sa.ColumnElement[bool]]:
    return [] if before is None else [column < before]


def _ranks(column: sa.ColumnElement[int], query: VersionQuery) -> list[sa.ColumnElement[bool]]:
    low, high = query.rank_min, query.rank_max
    return [
        *([] if low is None else [column >= low]),
        *([] if high is None else [column <= high]),
    ]


def _conditions(
    query: VersionQuery, readable: frozenset[str] | None
) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [VERSION.c.purged_at.is_(None)]
    if not query.yanked:
        conditions.append(VERSION.c.yanked.is_(None))
    if readable is not None:
        shown = ADAPTER.c.namespace.in_(sorted(readable))
        conditions.append(sa.or_(shown, ADAPTER.c.namespace.in_(namespaces.PUBLIC)))
    return conditions


def _within(keys: Sequence[str], ids: dict[str, int]) -> list[sa.ColumnElement[bool]]:
    """Return the condition that a version changes no other modules than these."""
    if not keys:
        return []
    known = [ids[key] for key in keys if key in ids]
    mine = sa.select(sa.func.count()).where(
        SEARCH_ENTRY.c.version_id == VERSION.c.id, SEARCH_ENTRY.c.key_id.in_(known)
    )
    return [mine.correlate(VERSION).scalar_subquery() == VERSION.c.module_count]


def _statement(lists: Sequence[int], query: VersionQuery, after: int | None) -> sa.Select[Any]:
    """Return the statement that walks the first of the lists, or all versions if there is none."""
    columns = (VERSION.c.id, *catalogue.VERSION_COLUMNS)
    if not lists:
        statement = sa.select(*columns).select_from(catalogue.VERSIONS)
        statement = statement.where(*_ranks(VERSION.c.rank, query), *_below(VERSION.c.id, after))
        return statement.order_by(VERSION.c.id.desc())
    walked = SEARCH_ENTRY.alias("walked")
    order = walked.c.version_id
    return (
        sa.select(*columns)
        .select_from(walked.join(catalogue.VERSIONS, VERSION.c.id == order))
        .where(
            walked.c.key_id == lists[0],
            *_below(order, after),
            *_ranks(walked.c.rank, query),
            *(_is_in(order, key) for key in lists[1:]),
        )
        .order_by(order.desc())
    )


def _is_in(version: sa.ColumnElement[int], key: int) -> sa.ColumnElement[bool]:
    """Return the condition that a list holds a version.

    A scalar subquery, for PostgreSQL turns EXISTS into a join, and may then read the whole list.
    """
    entry = SEARCH_ENTRY.alias()
    found = sa.select(sa.literal(1)).where(entry.c.key_id == key, entry.c.version_id == version)
    return found.scalar_subquery().is_not(None)
