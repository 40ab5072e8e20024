"""Reading takes a fixed number of statements, however much there is to read."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from rankloom import digest as digests
from rankloom.manifest import FileEntry, Manifest
from rankloom.ref import AdapterName, VersionRef
from rankloom_server import bases, catalogue, db
from rankloom_server.models import ADAPTER, ALIAS, BASE, VERSION, VERSION_FILE
from statements import counted

NAME = AdapterName("n", "a000")
FACTS = {"kinds": ["lora"], "ranks": [4], "targets": ["x"], "parameters": 1, "nbytes": 4}


def _manifest(number: int) -> Manifest:
    digest = digests.of_bytes(b"%d" % number)
    return Manifest(files=(FileEntry(path="f", size=1, digest=digest),))


def _fill(engine: sa.Engine, adapters: int, versions: int) -> None:
    """Add adapters with versions, each version with an alias and a base of its own."""
    now = datetime.now(UTC)
    with db.write(engine) as connection:
        for index in range(adapters):
            values = {"namespace": "n", "name": f"a{index:03}", "card": "", "created_at": now}
            row = connection.execute(sa.insert(ADAPTER).values(**values).returning(ADAPTER.c.id))
            adapter_id = row.scalar_one()
            for number in range(1, versions + 1):
                _add_version(connection, adapter_id, number, f"{index}-{number}")


def _add_version(connection: sa.Connection, adapter_id: int, number: int, base: str) -> None:
    now = datetime.now(UTC)
    level = digests.of_bytes(base.encode())
    values = {"name": base, "struct": level, "source": "", "config": {}, "tensors": {}}
    row = connection.execute(
        sa.insert(BASE).values(**values, created_at=now).returning(BASE.c.id)
    ).scalar_one()
    manifest = _manifest(number)
    statement = sa.insert(VERSION).values(
        adapter_id=adapter_id,
        number=number,
        digest=manifest.digest,
        base_id=row,
        manifest=manifest.canonical().decode(),
        facts=FACTS,
        labels={},
        metrics={},
        created_at=now,
    )
    version_id = connection.execute(statement.returning(VERSION.c.id)).scalar_one()
    file = manifest.files[0].model_dump()
    connection.execute(sa.insert(VERSION_FILE).values(version_id=version_id, **file))
    alias = {"adapter_id": adapter_id, "name": f"alias-{number}", "digest": manifest.digest}
    connection.execute(sa.insert(ALIAS).values(**alias))


READS: dict[str, tuple[int, Callable[[sa.Connection], object]]] = {
    "resolve latest": (2, lambda c: catalogue.resolve(c, VersionRef(NAME, alias="latest"))),
    "resolve alias": (2, lambda c: catalogue.resolve(c, VersionRef(NAME, alias="alias-1"))),
    "resolve number": (2, lambda c: catalogue.resolve(c, VersionRef(NAME, number=1))),
    "list": (
        2,
        lambda c: catalogue.list_adapters(c, namespace=None, query="a", limit=200, after=""),
    ),
    "show": (3, lambda c: catalogue.show(c, NAME)),
    "file": (1, lambda c: catalogue.file_digest(c, NAME, _manifest(1).digest, "f")),
    "bases": (1, bases.list_all),
    "base": (1, lambda c: bases.get(c, "0-1")),
}


@pytest.mark.parametrize("read", READS)
def test_the_number_of_statements_does_not_grow(engine: sa.Engine, read: str) -> None:
    expected, run = READS[read]
    for adapters, versions in ((1, 1), (20, 5)):
        with db.write(engine) as connection:
            for table in (ALIAS, VERSION_FILE, VERSION, ADAPTER, BASE):
                connection.execute(sa.delete(table))
        _fill(engine, adapters, versions)
        with counted(engine) as seen, db.read(engine) as connection:
            run(connection)
        assert len(seen) == expected, seen


def test_a_page_is_found_without_reading_the_ones_before(tmp_path: Path) -> None:
    # Only SQLite's planner says so for tables as small as this one.
    engine = db.open_engine(db.sqlite_url(tmp_path / "registry.db"))
    db.upgrade(engine)
    _fill(engine, 30, 1)
    with db.read(engine) as connection:
        with counted(engine) as seen:
            catalogue.list_adapters(connection, namespace=None, query="", limit=5, after="n/a020")
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {seen[0]}", ("n", "a020", 6, 0))
        steps = [row[-1] for row in plan]
    engine.dispose()
    assert any("SEARCH adapter USING" in step and ">" in step for step in steps), steps
