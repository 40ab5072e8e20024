"""Searching versions by what they are and what is said of them.

Everything that a version can be found by is a key, such as ``module:q_proj`` or ``label:task=qa``,
and each key has the list of its versions, newest first. A search walks the shortest of its lists
and looks each version up in the others: one index on both databases, no matter which filters come
together, and a page far down costs what the first one costs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rankloom.errors import RefError
from rankloom.manifest import Manifest
from rankloom.registry.wire import AdapterFacts, VersionPage
from rankloom_server import bases, catalogue, db, namespaces
from rankloom_server.models import ADAPTER, SEARCH_ENTRY, SEARCH_KEY, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rankloom.registry.wire import VersionQuery

MAX_WORDS = 400
"""Words of a card by which its adapter is found."""

_COUNTED = 2000
"""Lists longer than this all count as long; knowing more would cost more than it saves."""

_WORD = re.compile(r"\w+")


def modules(facts: AdapterFacts) -> frozenset[str]:
    """Return the names of the modules that an adapter changes, e.g. ``q_proj``, without layers."""
    parts = (target.split(".") for target in facts.targets)
    return frozenset(names[-2] if len(names) > 1 else names[0] for names in parts)


def words(*texts: str) -> list[str]:
    """Return the words of texts as they are searched for: case folded, each once."""
    found = (word for text in texts for word in _WORD.findall(text.casefold()))
    return list(dict.fromkeys(word[:64] for word in found))[:MAX_WORDS]


def keys_of_facts(facts: AdapterFacts, manifest: Manifest, creator: str | None) -> list[str]:
    """Return the keys of a version that never change."""
    levels = manifest.base.model_dump().values() if manifest.base else ()
    return [
        *(f"kind:{kind}" for kind in facts.kinds),
        *(f"module:{module}" for module in sorted(modules(facts))),
        *(f"base:{digest}" for digest in levels if digest),
        *([f"creator:{creator}"] if creator else []),
    ]


def keys_of_labels(labels: Mapping[str, str]) -> list[str]:
    """Return the keys of labels."""
    return [f"label:{name}={value}" for name, value in labels.items()]


def keys_of_text(namespace: str, name: str, card: str) -> list[str]:
    """Return the keys of an adapter's name and card."""
    return [f"in:{namespace}", *(f"word:{word}" for word in words(f"{namespace} {name}", card))]


def add(connection: sa.Connection, version_ids: Sequence[int], keys: Iterable[str]) -> None:
    """Enter versions into the lists of keys."""
    wanted = sorted(set(keys))
    if not wanted or not version_ids:
        return
    # In one order everywhere, so that two who add keys cannot wait for each other in a circle.
    statement = db.insert(connection, SEARCH_KEY).on_conflict_do_nothing()
    connection.execute(statement, [{"text": key} for key in wanted])
    rows = [
        {"key_id": key_id, "version_id": version_id}
        for key_id in sorted(_ids(connection, wanted).values())
        for version_id in version_ids
    ]
    connection.execute(db.insert(connection, SEARCH_ENTRY).on_conflict_do_nothing(), rows)


def remove(connection: sa.Connection, version_ids: Sequence[int], keys: Iterable[str]) -> None:
    """Take versions out of the lists of keys."""
    found = _ids(connection, sorted(set(keys)))
    statement = sa.delete(SEARCH_ENTRY).where(
        SEARCH_ENTRY.c.key_id.in_(found.values()), SEARCH_ENTRY.c.version_id.in_(version_ids)
    )
    connection.execute(statement)


def remove_all(connection: sa.Connection, version_id: int) -> None:
    """Take a version out of every list."""
    row = connection.execute(_indexed().where(VERSION.c.id == version_id)).mappings().one()
    remove(connection, [version_id], _keys_of(row))


def _ids(connection: sa.Connection, keys: Sequence[str]) -> dict[str, int]:
    statement = sa.select(SEARCH_KEY.c.text, SEARCH_KEY.c.id).where(SEARCH_KEY.c.text.in_(keys))
    return {row.text: row.id for row in connection.execute(statement)}


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
    if query.text.strip() and not words(query.text):
        message = f"{query.text[:80]!r} has no word to search for"
        raise RefError(message, hint="words are letters, digits and underscores")
    groups = _groups(connection, query)
    texts = sorted({key for group in groups for key in group} | set(_module_keys(query.within)))
    ids = _ids(connection, texts)
    lists = [[ids[key] for key in group if key in ids] for group in groups]
    if not all(lists):
        return VersionPage(items=())
    lists = _shortest_first(connection, lists)
    conditions = [*_conditions(query, readable), *_within(query.within, ids)]
    if after is not None:
        conditions.append(VERSION.c.id < after)
    rows = connection.execute(_statement(lists, conditions, limit + 1)).mappings().all()
    found = catalogue.versions(connection, rows[:limit])
    return VersionPage(items=found, next=rows[limit - 1]["id"] if len(rows) > limit else None)


def _groups(connection: sa.Connection, query: VersionQuery) -> list[list[str]]:
    """Return what must hold: of each group one key at least."""
    plain = [
        *(f"word:{word}" for word in words(query.text)),
        *_module_keys(query.contains),
        *(f"label:{label}" for label in query.labels),
        *([f"kind:{query.kind}"] if query.kind else []),
        *([f"creator:{query.creator}"] if query.creator else []),
        *([f"in:{query.namespace}"] if query.namespace else []),
    ]
    groups = [[key] for key in plain]
    if query.base:
        groups.append([f"base:{digest}" for digest in bases.levels(connection, query.base)])
    return groups


def _module_keys(names: Iterable[str]) -> list[str]:
    return [f"module:{name}" for name in names]


def _shortest_first(connection: sa.Connection, lists: list[list[int]]) -> list[list[int]]:
    """Bring the lists that are shortest to the front; one statement however many there are."""
    if len(lists) < 2:
        return lists
    counts = [
        sa.select(sa.func.count())
        .select_from(
            sa.select(sa.literal(1))
            .where(SEARCH_ENTRY.c.key_id.in_(keys))
            .limit(_COUNTED)
            .subquery()
        )
        .scalar_subquery()
        .label(f"c{place}")
        for place, keys in enumerate(lists)
    ]
    lengths = connection.execute(sa.select(*counts)).one()
    return [lists[place] for place in sorted(range(len(lists)), key=lengths.__getitem__)]


def _conditions(
    query: VersionQuery, readable: frozenset[str] | None
) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [VERSION.c.purged_at.is_(None)]
    if not query.yanked:
        conditions.append(VERSION.c.yanked.is_(None))
    if query.latest:
        conditions.append(VERSION.c.number == catalogue.LATEST)
    if query.rank_min is not None:
        conditions.append(VERSION.c.rank >= query.rank_min)
    if query.rank_max is not None:
        conditions.append(VERSION.c.rank <= query.rank_max)
    if readable is not None:
        shown = ADAPTER.c.namespace.in_(sorted(readable))
        conditions.append(sa.or_(shown, ADAPTER.c.namespace.in_(namespaces.PUBLIC)))
    return conditions


def _within(names: Sequence[str], ids: dict[str, int]) -> list[sa.ColumnElement[bool]]:
    """Return the condition that a version changes no other modules than these."""
    if not names:
        return []
    known = [ids[key] for key in _module_keys(names) if key in ids]
    mine = sa.select(sa.func.count()).where(
        SEARCH_ENTRY.c.version_id == VERSION.c.id, SEARCH_ENTRY.c.key_id.in_(known)
    )
    return [mine.correlate(VERSION).scalar_subquery() == VERSION.c.module_count]


def _statement(
    lists: list[list[int]], conditions: list[sa.ColumnElement[bool]], limit: int
) -> sa.Select[Any]:
    columns = (VERSION.c.id, *catalogue.VERSION_COLUMNS)
    statement = sa.select(*columns).where(*conditions)
    if not lists:
        return statement.select_from(catalogue.VERSIONS).order_by(VERSION.c.id.desc()).limit(limit)
    driver = lists[0]
    if len(driver) == 1:
        walked = SEARCH_ENTRY.alias("walked")
        statement = statement.select_from(
            walked.join(catalogue.VERSIONS, VERSION.c.id == walked.c.version_id)
        ).where(walked.c.key_id == driver[0])
        order, rest = walked.c.version_id, lists[1:]
    else:
        statement = statement.select_from(catalogue.VERSIONS)
        order, rest = VERSION.c.id, lists
    for place, keys in enumerate(rest):
        entry = SEARCH_ENTRY.alias(f"entry{place}")
        statement = statement.where(
            sa.exists().where(entry.c.key_id.in_(keys), entry.c.version_id == order)
        )
    return statement.order_by(order.desc()).limit(limit)


def reindex(connection: sa.Connection) -> int:
    """Enter every version anew, e.g. after a change of the keys; return how many."""
    connection.execute(sa.delete(SEARCH_ENTRY))
    kept = _indexed().where(VERSION.c.purged_at.is_(None))
    rows = connection.execute(kept).mappings().all()
    for row in rows:
        add(connection, [row["id"]], _keys_of(row))
        facts = AdapterFacts.model_validate(row["facts"])
        derived = {"rank": max(facts.ranks, default=0), "module_count": len(modules(facts))}
        connection.execute(sa.update(VERSION).where(VERSION.c.id == row["id"]).values(**derived))
    return len(rows)


def _indexed() -> sa.Select[Any]:
    columns = (VERSION, ADAPTER.c.namespace, ADAPTER.c.name, ADAPTER.c.card)
    return sa.select(*columns).join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id)


def _keys_of(row: sa.RowMapping) -> list[str]:
    """Return all keys of a version, from its row."""
    facts = AdapterFacts.model_validate(row["facts"])
    manifest = Manifest.model_validate_json(row["manifest"])
    return [
        *keys_of_facts(facts, manifest, row["creator"]),
        *keys_of_labels(row["labels"]),
        *keys_of_text(row["namespace"], row["name"], row["card"]),
    ]
