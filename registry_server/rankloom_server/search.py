"""Searching versions by what they are and what is said of them.

Everything that a version can be found by is a key, and each key has the list of its versions
(:mod:`rankloom_server.search_keys`). A search walks the sparsest of its lists from the newest
version on and looks each version up in the others, the next sparsest first: one index on both
databases, no matter which filters come together, and a page far down costs what the first costs.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from rankloom import engine_tables
from rankloom.errors import RefError
from rankloom.registry.wire import VersionPage
from rankloom_server import bases, catalogue, judged, namespaces, search_keys
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
        RefError: ``limit`` is not possible, the text has no word, there is no such engine, or a
            verdict is named without one.
    """
    catalogue.check_limit(limit, "versions")
    if query.text.strip() and not search_keys.words(query.text):
        message = f"{query.text[:80]!r} has no word to search for"
        raise RefError(message, hint="words are letters, digits and underscores")
    keys = _keys(connection, query)
    within = search_keys.of_modules(query.within)
    ids = search_keys.ids(connection, {*keys, *within})
    incomplete = query.engine is not None and judged.is_any_other(connection, readable)
    if not ids.keys() >= set(keys):
        return VersionPage(items=(), incomplete=incomplete)
    lists = _sparsest_first(connection, [ids[key] for key in keys], after)
    shape = _Shape(
        lists=len(lists),
        after=after is not None,
        rank_min=query.rank_min is not None,
        rank_max=query.rank_max is not None,
        within=bool(within),
        yanked=query.yanked,
        everywhere=readable is None,
    )
    values = {
        **{f"key{place}": key for place, key in enumerate(lists)},
        "after": after,
        "rank_min": query.rank_min,
        "rank_max": query.rank_max,
        "within": [ids[key] for key in within if key in ids],
        "readable": sorted(readable or ()),
        "limit": limit + 1,  # one more tells whether there is a next page
    }
    rows = connection.execute(_statement(shape), values).mappings().all()
    found = catalogue.versions(connection, rows[:limit])
    last = rows[limit - 1]["id"] if len(rows) > limit else None
    return VersionPage(items=found, next=last, incomplete=incomplete)


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
        *([f"tensors:{query.tensors}"] if query.tensors else []),
        *([f"in:{query.namespace}"] if query.namespace else []),
        *_of_engine(query),
        *([search_keys.LATEST] if query.latest else []),
    ]


def _of_engine(query: VersionQuery) -> list[str]:
    if query.engine is None:
        if query.verdict is None:
            return []
        message = f"{query.verdict} is a verdict of no engine"
        raise RefError(message, hint="name the engine too, e.g. vllm==0.33")
    from rankloom.validate.verdicts import engine_of

    sought = {engine_of(query.engine): query.verdict or "accept"}
    return search_keys.of_verdicts(sought, engine_tables.digest())


def _sparsest_first(
    connection: sa.Connection, lists: Sequence[int], after: int | None
) -> list[int]:
    """Bring the lists to the front that lie sparsest below ``after``; one statement for all."""
    wanted = sorted(set(lists))
    if len(wanted) < 2:
        return wanted
    values = {f"key{place}": key for place, key in enumerate(wanted)} | {"after": after}
    rows = connection.execute(_samples(len(wanted), after is not None), values).all()
    newest = max((row.newest or 0 for row in rows), default=0)

    def density(row: sa.Row[Any]) -> float:
        # A list that ends within its sample reaches down to the first version.
        return float(row.seen / (newest + 1 - (row.oldest if row.seen == _SAMPLE else 0)))

    return [row.key_id for row in sorted(rows, key=density)]


# --- the statements; each is built once, for building one takes longer than running it ------------


class _Shape(NamedTuple):
    """What decides the text of a search's statement."""

    lists: int
    after: bool
    rank_min: bool
    rank_max: bool
    within: bool
    yanked: bool
    everywhere: bool


def _given(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.Integer)


@functools.lru_cache(maxsize=256)
def _samples(lists: int, after: bool) -> sa.CompoundSelect[Any]:
    """Return how many the newest of each list are, up to a limit, and where they lie."""
    return sa.union_all(*(_sample(_given(f"key{place}"), after) for place in range(lists)))


def _sample(key: sa.BindParameter[int], after: bool) -> sa.Select[int, int, Any, Any]:
    version = SEARCH_ENTRY.c.version_id
    below = [version < _given("after")] if after else []
    newest = sa.select(version).where(SEARCH_ENTRY.c.key_id == key, *below)
    seen = newest.order_by(version.desc()).limit(sa.literal_column(str(_SAMPLE))).subquery()
    return sa.select(
        sa.type_coerce(key, sa.Integer).label("key_id"),
        sa.func.count().label("seen"),
        sa.func.min(seen.c.version_id).label("oldest"),
        sa.func.max(seen.c.version_id).label("newest"),
    ).select_from(seen)


@functools.lru_cache(maxsize=256)
def _statement(shape: _Shape) -> sa.Select[Any]:
    """Return the statement that walks the first of the lists, or all versions if there is none."""
    source: sa.FromClause = catalogue.VERSIONS
    order, rank = VERSION.c.id, VERSION.c.rank
    conditions = []
    if shape.lists:
        walked = SEARCH_ENTRY.alias("walked")
        order, rank = walked.c.version_id, walked.c.rank
        # As a sum it can only be looked up: PostgreSQL, which cannot tell how few of the walked
        # will be left, might else read all versions beside them.
        source = walked.join(catalogue.VERSIONS, VERSION.c.id == order + sa.literal_column("0"))
        conditions.append(walked.c.key_id == _given("key0"))
    if shape.after:
        conditions.append(order < _given("after"))
    if shape.rank_min:
        conditions.append(rank >= _given("rank_min"))
    if shape.rank_max:
        conditions.append(rank <= _given("rank_max"))
    conditions += [_is_in(order, _given(f"key{place}")) for place in range(1, shape.lists)]
    statement = sa.select(VERSION.c.id, *catalogue.VERSION_COLUMNS).select_from(source)
    statement = statement.where(*conditions, *_of_version(shape))
    return statement.order_by(order.desc()).limit(_given("limit"))


def _is_in(version: sa.ColumnElement[int], key: sa.BindParameter[int]) -> sa.ColumnElement[bool]:
    """Return the condition that a list holds a version.

    A scalar subquery, for PostgreSQL turns EXISTS into a join, and may then read the whole list.
    """
    entry = SEARCH_ENTRY.alias()
    found: sa.Select[Any] = sa.select(sa.literal_column("1")).where(
        entry.c.key_id == key, entry.c.version_id == version
    )
    return found.scalar_subquery().is_not(None)


def _of_version(shape: _Shape) -> list[sa.ColumnElement[bool]]:
    """Return the conditions for which the version's own row is read."""
    conditions: list[sa.ColumnElement[bool]] = [VERSION.c.purged_at.is_(None)]
    if not shape.yanked:
        conditions.append(VERSION.c.yanked.is_(None))
    if shape.within:
        known = sa.bindparam("within", expanding=True, type_=sa.Integer)
        mine = sa.select(sa.func.count()).where(
            SEARCH_ENTRY.c.version_id == VERSION.c.id, SEARCH_ENTRY.c.key_id.in_(known)
        )
        # It changes no other modules than these.
        conditions.append(mine.correlate(VERSION).scalar_subquery() == VERSION.c.module_count)
    if not shape.everywhere:
        shown = ADAPTER.c.namespace.in_(sa.bindparam("readable", expanding=True))
        conditions.append(sa.or_(shown, ADAPTER.c.namespace.in_(namespaces.PUBLIC)))
    return conditions
