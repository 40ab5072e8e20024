"""Keys by which versions are found, such as ``module:q_proj`` or ``label:task=qa``.

Each key has the list of its versions. An entry carries its version's rank as well, so that one
index holds all that a walk along a list compares. The list :data:`LATEST` is kept whenever a
version comes, is yanked or is brought back; all others change only with what they are about.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom import engine_tables
from rankloom.manifest import Manifest
from rankloom.registry.wire import AdapterFacts
from rankloom_server import catalogue, db
from rankloom_server.models import ADAPTER, SEARCH_ENTRY, SEARCH_KEY, VERSION

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

LATEST = "latest"
"""Key of the versions that the alias ``latest`` means."""

MAX_WORDS = 400
"""Words of a card by which its adapter is found."""

_WORD = re.compile(r"\w+")


def modules(facts: AdapterFacts) -> frozenset[str]:
    """Return the names of the modules that an adapter changes, e.g. ``q_proj``, without layers."""
    parts = (target.split(".") for target in facts.targets)
    return frozenset(names[-2] if len(names) > 1 else names[0] for names in parts)


def rank(facts: AdapterFacts) -> int:
    """Return the rank by which an adapter is searched for: the largest of its targets."""
    return max(facts.ranks, default=0)


def words(*texts: str) -> list[str]:
    """Return the words of texts as they are searched for: case folded, each once."""
    found = (word for text in texts for word in _WORD.findall(text.casefold()))
    return list(dict.fromkeys(word[:64] for word in found))[:MAX_WORDS]


def of_facts(facts: AdapterFacts, manifest: Manifest, creator: str | None) -> list[str]:
    """Return the keys of a version that stay until it is derived anew."""
    levels = manifest.base.model_dump().values() if manifest.base else ()
    return [
        *(f"kind:{kind}" for kind in facts.kinds),
        *of_modules(sorted(modules(facts))),
        *(f"base:{digest}" for digest in levels if digest),
        *([f"creator:{creator}"] if creator else []),
        *([f"tensors:{facts.tensors}"] if facts.tensors else []),
    ]


def of_modules(names: Iterable[str]) -> list[str]:
    """Return the keys of modules."""
    return [f"module:{name}" for name in names]


def of_labels(labels: Mapping[str, str]) -> list[str]:
    """Return the keys of labels."""
    return [f"label:{name}={value}" for name, value in labels.items()]


def of_text(namespace: str, name: str, card: str) -> list[str]:
    """Return the keys of an adapter's name and card."""
    return [f"in:{namespace}", *(f"word:{word}" for word in words(f"{namespace} {name}", card))]


def of_verdicts(verdicts: Mapping[str, str], judged_by: str) -> list[str]:
    """Return the keys of engines' verdicts; those of other tables have other lists."""
    return [f"engine:{engine}={verdict}@{judged_by}" for engine, verdict in verdicts.items()]


def ids(connection: sa.Connection, keys: Collection[str]) -> dict[str, int]:
    """Return the row ids of those keys that have a list."""
    statement = sa.select(SEARCH_KEY.c.text, SEARCH_KEY.c.id).where(SEARCH_KEY.c.text.in_(keys))
    return {row.text: row.id for row in connection.execute(statement)}


def add(connection: sa.Connection, version_ids: Sequence[int], keys: Iterable[str]) -> None:
    """Enter versions into the lists of keys."""
    wanted = sorted(set(keys))
    if not wanted or not version_ids:
        return
    made = sorted(_made(connection, wanted))
    versions = sa.select(VERSION.c.id, VERSION.c.rank).where(VERSION.c.id.in_(version_ids))
    rows = [
        {"key_id": key, "version_id": version.id, "rank": version.rank}
        for version in connection.execute(versions).all()
        for key in made
    ]
    # In one order everywhere, so that two who add entries cannot wait for each other in a circle.
    rows.sort(key=lambda row: (row["key_id"], row["version_id"]))
    connection.execute(db.insert(connection, SEARCH_ENTRY).on_conflict_do_nothing(), rows)


def _made(connection: sa.Connection, keys: Sequence[str]) -> Collection[int]:
    statement = db.insert(connection, SEARCH_KEY).on_conflict_do_nothing()
    connection.execute(statement, [{"text": key} for key in keys])
    return ids(connection, keys).values()


def remove(connection: sa.Connection, version_ids: Sequence[int], keys: Collection[str]) -> None:
    """Take versions out of the lists of keys."""
    statement = sa.delete(SEARCH_ENTRY).where(
        SEARCH_ENTRY.c.key_id.in_(ids(connection, keys).values()),
        SEARCH_ENTRY.c.version_id.in_(version_ids),
    )
    connection.execute(statement)


def remove_all(connection: sa.Connection, version_id: int) -> None:
    """Take a version out of every list."""
    row = connection.execute(_indexed().where(VERSION.c.id == version_id)).mappings().one()
    remove(connection, [version_id], [*_keys_of(row), LATEST])


def keep_latest(connection: sa.Connection, adapter_id: int | None = None) -> None:
    """Bring the list of the latest versions to what it should be: of one adapter, or of all.

    Who calls it for an adapter holds the lock on the adapter's row.
    """
    (key,) = _made(connection, [LATEST])
    mine = sa.true() if adapter_id is None else VERSION.c.adapter_id == adapter_id
    before = sa.select(VERSION.c.id).where(mine).scalar_subquery()
    entries = SEARCH_ENTRY.c.key_id == key, SEARCH_ENTRY.c.version_id.in_(before)
    connection.execute(sa.delete(SEARCH_ENTRY).where(*entries))
    now = (
        sa.select(sa.literal(key), VERSION.c.id, VERSION.c.rank)
        .join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id)
        .where(mine, VERSION.c.number == catalogue.LATEST)
    )
    connection.execute(sa.insert(SEARCH_ENTRY).from_select(["key_id", "version_id", "rank"], now))


def judge(connection: sa.Connection, version_id: int, verdicts: Mapping[str, str]) -> None:
    """Move a version to the lists of what the present tables of engines say of it.

    The caller holds its adapter's lock.
    """
    now = engine_tables.digest()
    mine = VERSION.c.id == version_id
    before = sa.select(VERSION.c.verdicts, VERSION.c.judged_by).where(mine)
    old = connection.execute(before).one()
    remove(connection, [version_id], of_verdicts(old.verdicts or {}, old.judged_by))
    judged = sa.update(VERSION).where(mine).values(verdicts={**verdicts}, judged_by=now)
    connection.execute(judged)
    add(connection, [version_id], of_verdicts(verdicts, now))


def keep_facts(connection: sa.Connection, version_id: int, facts: AdapterFacts) -> None:
    """Replace what is kept of a version, and move it to the lists of that, if it is another now.

    The caller holds its adapter's lock.
    """
    mine = VERSION.c.id == version_id
    # Whoever enters the version for a remark waits, or its entry would carry the rank of before.
    before = connection.execute(sa.select(VERSION.c.facts).where(mine).with_for_update())
    if AdapterFacts.model_validate(before.scalar_one()) == facts:
        return
    remove_all(connection, version_id)
    kept = {"facts": facts.model_dump(mode="json"), **_derived(facts)}
    connection.execute(sa.update(VERSION).where(mine).values(**kept))
    enter(connection, version_id)


def _derived(facts: AdapterFacts) -> dict[str, int]:
    return {"rank": rank(facts), "module_count": len(modules(facts))}


def reindex(connection: sa.Connection) -> int:
    """Enter every version anew, e.g. after a change of the keys; return how many."""
    connection.execute(sa.delete(SEARCH_ENTRY))
    kept = _indexed().where(VERSION.c.purged_at.is_(None))
    rows = connection.execute(kept).mappings().all()
    for row in rows:
        facts = AdapterFacts.model_validate(row["facts"])
        found = sa.update(VERSION).where(VERSION.c.id == row["id"])
        connection.execute(found.values(**_derived(facts)))
        add(connection, [row["id"]], _keys_of(row))
    keep_latest(connection)
    return len(rows)


def _indexed() -> sa.Select[tuple[object, ...]]:
    columns = (VERSION, ADAPTER.c.namespace, ADAPTER.c.name, ADAPTER.c.card)
    return sa.select(*columns).join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id)


def _keys_of(row: sa.RowMapping) -> list[str]:
    """Return all keys of a version but the latest one's, from its row."""
    facts = AdapterFacts.model_validate(row["facts"])
    manifest = Manifest.model_validate_json(row["manifest"])
    return [
        *of_facts(facts, manifest, row["creator"]),
        *of_verdicts(row["verdicts"] or {}, row["judged_by"]),
        *of_labels(row["labels"]),
        *of_text(row["namespace"], row["name"], row["card"]),
    ]


def enter(connection: sa.Connection, version_id: int) -> None:
    """Let a version that came, or came back, be found; the caller holds its adapter's lock."""
    row = connection.execute(_indexed().where(VERSION.c.id == version_id)).mappings().one()
    add(connection, [version_id], _keys_of(row))
    keep_latest(connection, row["adapter_id"])
