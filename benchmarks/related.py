"""Versions that have tensors in common: bytes per tensor, and how long a page takes.

Versions are made up: families of ten, each with its own second half of tensors beside a first half
that the whole family has. Half of the rows are there when the timing of writing begins. The first
page of a family is compared with what it must be before anything is timed.

::

    python benchmarks/related.py [--versions 4000] [--tensors 448] [--database sqlite|postgresql]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

import report
from rankloom import digest as digests
from rankloom.ref import AdapterName, VersionRef
from rankloom_server import db, tensors
from rankloom_server.models import ADAPTER, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

FAMILY = 10
_NAME = AdapterName("default", "a")
_FACTS = {"kinds": ["lora"], "ranks": [16], "targets": [], "parameters": 1, "nbytes": 4}


def contents(index: int, count: int) -> Iterator[bytes]:
    """Yield the digests of a version's tensors."""
    for at in range(count):
        who = f"family {index // FAMILY}" if at < count // 2 else f"version {index}"
        yield hashlib.sha256(f"{who} {at}".encode()).digest()[:16]


def fill(engine: sa.Engine, versions: int, count: int) -> list[float]:
    """Write all versions as a publish does; return the milliseconds of each of the second half."""
    now = datetime.now(UTC)
    with db.write(engine) as connection:
        adapter = {"id": 1, "namespace": "default", "name": "a", "card": "", "created_at": now}
        connection.execute(sa.insert(ADAPTER), [adapter])
    seen = []
    for index in range(versions):
        row = {
            "id": index + 1,
            "adapter_id": 1,
            "number": index + 1,
            "digest": digests.of_bytes(b"%d" % index),
            "manifest": "{}",
            "facts": _FACTS,
            "created_at": now,
        }
        mine = list(contents(index, count))
        with db.write(engine) as connection:
            connection.execute(sa.insert(VERSION), [row])
            started = time.perf_counter()
            tensors.enter(connection, index + 1, mine)
            seen.append(1000 * (time.perf_counter() - started))
    return seen[versions // 2 :]


def nbytes(engine: sa.Engine) -> int:
    """Return the bytes of the table of tensors with its indexes."""
    names = "('version_tensor', 'ix_version_tensor_version_id', 'pk_version_tensor')"
    text = f"SELECT sum(pgsize) FROM dbstat WHERE name IN {names}"  # noqa: S608
    if engine.dialect.name == "postgresql":
        text = "SELECT pg_total_relation_size('version_tensor')"
    with db.read(engine) as connection:
        return int(connection.execute(sa.text(text)).scalar_one())


def measure(engine: sa.Engine, versions: int, count: int, calls: int) -> dict[str, float]:
    """Return milliseconds of a first page of nine versions that share half of the tensors."""
    chance = random.Random(3)  # noqa: S311
    seen = []
    for _ in range(calls):
        number = chance.randrange(versions) + 1
        ref = VersionRef(_NAME, number=number)
        with db.read(engine) as connection:
            started = time.perf_counter()
            page = tensors.related(connection, ref, limit=50, after=None, readable=None)
            seen.append(1000 * (time.perf_counter() - started))
        found = {(item.version.number, item.shared, item.tensors) for item in page.items}
        first = (number - 1) // FAMILY * FAMILY + 1
        family = {(one, count // 2, count) for one in range(first, first + FAMILY)}
        if found != family - {(number, count // 2, count)}:
            sys.exit("an answer is wrong, so nothing is reported")
    return _spread(seen)


def _spread(seen: list[float]) -> dict[str, float]:
    seen = sorted(seen)
    return {"p50": round(seen[len(seen) // 2], 2), "p99": round(seen[int(len(seen) * 0.99)], 2)}


def run(url: str, given: argparse.Namespace) -> dict[str, Any]:
    """Fill a database and measure it."""
    engine = db.open_engine(url)
    db.upgrade(engine)
    written = fill(engine, given.versions, given.tensors)
    with db.write(engine) as connection:
        connection.execute(sa.text("ANALYZE"))
    pages = measure(engine, given.versions, given.tensors, given.calls)
    size = nbytes(engine)
    engine.dispose()
    return {
        "versions": given.versions,
        "tensors of each": given.tensors,
        "bytes per tensor": round(size / (given.versions * given.tensors), 1),
        "bytes per version": round(size / given.versions),
        "milliseconds": {"writing a version's tensors": _spread(written), "a page": pages},
    }


def main() -> None:
    """Measure the databases that were asked for, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--versions", type=int, default=4_000)
    parser.add_argument("--tensors", type=int, default=448, help="two for each of 7 x 32 modules")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    given = parser.parse_args()
    for kind in given.database or ["sqlite", "postgresql"]:
        path = report.write(f"related_{kind}", measured(kind, given), ["sqlalchemy", "psycopg"])
        print(json.dumps(json.loads(path.read_text())))


def measured(kind: str, given: argparse.Namespace) -> dict[str, Any]:
    """Measure a database that is made for it, and is gone afterwards."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            return run(db.sqlite_url(Path(folder) / "registry.db"), given)
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from servers import running_postgres

    with running_postgres() as server:
        return run(server.new_database(), given)


if __name__ == "__main__":
    main()
