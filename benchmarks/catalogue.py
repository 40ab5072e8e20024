"""The catalogue with a million versions: resolve, filtered search, pages far down.

Versions are made up: bases and words by Zipf's law, ranks and modules as adapters have them. The
rows are written straight into the tables; what is measured are the service's own functions, and
for ``resolve`` the statement alone as well. Before anything is timed, answers are compared with
a walk over the made-up versions.

::

    python benchmarks/catalogue.py [--versions 1000000] [--database sqlite|postgresql]
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report
from rankloom import digest as digests
from rankloom.fingerprint import Fingerprint
from rankloom.manifest import FileEntry, Manifest
from rankloom.ref import AdapterName, VersionRef
from rankloom.registry.wire import VersionQuery
from rankloom_server import catalogue, db, search, search_keys
from rankloom_server.models import ADAPTER, SEARCH_ENTRY, SEARCH_KEY, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy as sa

BASES = 400
WORDS = 30_000
MODULE_SETS = (
    (40, ("q_proj", "v_proj")),
    (30, ("k_proj", "o_proj", "q_proj", "v_proj")),
    (25, ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")),
    (5, ("lm_head", "q_proj", "v_proj")),
)
RANKS = ((8, 30), (16, 35), (32, 18), (64, 15), (256, 2))
_BATCH = 10_000


def _zipf(count: int) -> list[float]:
    return [1 / place for place in range(1, count + 1)]


class Made:
    """The made-up versions, and how they are written."""

    def __init__(self, count: int) -> None:
        self.count = count
        chance = random.Random(1)  # noqa: S311
        self.base = chance.choices(range(BASES), _zipf(BASES), k=count)
        ranks, how_often = zip(*RANKS, strict=True)
        self.rank = chance.choices(ranks, how_often, k=count)
        self.modules = chance.choices(range(4), [often for often, _ in MODULE_SETS], k=count)
        # Each adapter has ten versions, and the words of its card are those of all of them.
        words = chance.choices(range(WORDS), _zipf(WORDS), k=3 * (count // 10 + 1))
        self.words = [words[3 * n : 3 * n + 3] for n in range(count // 10 + 1)]

    def digest(self, index: int) -> str:
        """Return the digest of a version."""
        return digests.of_bytes(b"version %d" % index)

    @staticmethod
    def base_digest(number: int) -> str:
        """Return the digest of a base."""
        return digests.of_bytes(b"base %d" % number)

    def keys(self) -> dict[str, int]:
        """Return every key, with its row id."""
        texts = ["kind:lora", "in:default", "creator:ci", search_keys.LATEST]
        texts += [f"module:{name}" for name in sorted({m for _, s in MODULE_SETS for m in s})]
        texts += [f"base:{self.base_digest(number)}" for number in range(BASES)]
        texts += [f"word:w{number}" for number in range(WORDS)]
        return {text: number for number, text in enumerate(texts, start=1)}

    def entries(self, keys: dict[str, int]) -> Iterator[tuple[int, int, int]]:
        """Yield (key, version, rank), by version."""
        fixed = [keys["kind:lora"], keys["in:default"], keys["creator:ci"]]
        sets = [[keys[f"module:{name}"] for name in names] for _, names in MODULE_SETS]
        bases = [keys[f"base:{self.base_digest(number)}"] for number in range(BASES)]
        first = keys["word:w0"]
        for index in range(self.count):
            words = {first + word for word in self.words[index // 10]}
            mine = (*fixed, *sets[self.modules[index]], bases[self.base[index]], *words)
            if index % 10 == 9 or index == self.count - 1:
                mine = (*mine, keys[search_keys.LATEST])
            for key in mine:
                yield key, index + 1, self.rank[index]

    def adapters(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of adapters."""
        now = datetime.now(UTC)
        for number, words in enumerate(self.words, start=1):
            card = " ".join(f"w{word}" for word in words)
            yield number, "default", f"a{number - 1}", card, now

    def versions(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of versions, in the order of COLUMNS."""
        now = datetime.now(UTC)
        facts = [
            json.dumps(
                {
                    "kinds": ["lora"],
                    "ranks": [0],
                    "targets": [f"model.layers.0.self_attn.{name}.weight" for name in names],
                    "parameters": 1,
                    "nbytes": 4,
                }
            )
            for _, names in MODULE_SETS
        ]
        for index in range(self.count):
            file = FileEntry(path="adapter_model.safetensors", size=4, digest=self.digest(index))
            base = self.base_digest(self.base[index])
            fingerprint = Fingerprint(struct=base, bf16=base)
            manifest = Manifest.model_construct(
                files=(file,), base=fingerprint, lock=None, schema_=1
            )
            names = MODULE_SETS[self.modules[index]][1]
            text = json.dumps(manifest.model_dump(mode="json", by_alias=True, exclude_none=True))
            yield (
                *(index + 1, index // 10 + 1, index % 10 + 1, self.digest(index), None, text),
                *(facts[self.modules[index]], None, now, None, "ci", None, "{}", "{}"),
                *(self.rank[index], len(names)),
            )


COLUMNS = [
    *("id", "adapter_id", "number", "digest", "base_id", "manifest", "facts", "yanked"),
    *("created_at", "purged_at", "creator", "deprecated", "labels", "metrics", "rank"),
    "module_count",
]


def fill(engine: sa.Engine, made: Made) -> float:
    """Write everything; return the seconds that it took."""
    started = time.perf_counter()
    keys = made.keys()
    tables: list[tuple[sa.Table, list[str], Iterator[tuple[Any, ...]]]] = [
        (ADAPTER, ["id", "namespace", "name", "card", "created_at"], made.adapters()),
        (VERSION, COLUMNS, made.versions()),
        (SEARCH_KEY, ["text", "id"], iter(keys.items())),
        # In the order of the index, for the sake of its size.
        (SEARCH_ENTRY, ["key_id", "version_id", "rank"], iter(sorted(made.entries(keys)))),
    ]
    for table, columns, rows in tables:
        _write(engine, table.name, columns, rows)
        print(f"{table.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        vacuum = "VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE"
        connection.exec_driver_sql(vacuum)
    return time.perf_counter() - started


def _write(
    engine: sa.Engine, table: str, columns: list[str], rows: Iterator[tuple[Any, ...]]
) -> None:
    names = ", ".join(columns)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        raw: Any = connection.connection.driver_connection
        if engine.dialect.name == "postgresql":
            copy = f"COPY {table} ({names}) FROM STDIN"
            with raw.cursor() as cursor, cursor.copy(copy) as stream:
                for row in rows:
                    stream.write_row(row)
            return
        marks = ", ".join("?" * len(columns))
        plain = (tuple(map(_sqlite, row)) for row in rows)
        statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
        while batch := list(itertools.islice(plain, _BATCH)):
            raw.executemany(statement, batch)


def _sqlite(value: object) -> object:
    return value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value


# --- what is measured --------------------------------------------------------------------------


def queries(chance: random.Random) -> dict[str, Callable[[], VersionQuery]]:
    """Return the searches by name; each call is another one of its kind."""

    def some(count: int) -> int:
        return int(count ** chance.random()) - 1  # small numbers are common

    def base() -> str:
        return Made.base_digest(some(BASES))

    def word() -> str:
        return f"w{some(WORDS)}"

    def make(**given: Callable[[], Any]) -> Callable[[], VersionQuery]:
        return lambda: VersionQuery(latest=False, **{name: get() for name, get in given.items()})

    return {
        "newest": make(),
        "base": make(base=base),
        "base, rank 8 to 32": make(base=base, rank_min=lambda: 8, rank_max=lambda: 32),
        "base, rank 256": make(base=base, rank_min=lambda: 256),
        "base, contains lm_head": make(base=base, contains=lambda: ("lm_head",)),
        "base, within q_proj v_proj": make(base=base, within=lambda: ("q_proj", "v_proj")),
        "one word": make(text=word),
        "two words": make(text=lambda: f"{word()} {word()}"),
        "word, base, rank 16, contains k_proj": make(
            text=word,
            base=base,
            rank_min=lambda: 16,
            rank_max=lambda: 16,
            contains=lambda: ("k_proj",),
        ),
        "latest, base": lambda: VersionQuery(base=base()),
    }


def check(engine: sa.Engine, made: Made) -> None:
    """Compare some answers with a walk over everything; a difference ends the run."""
    chance = random.Random(2)  # noqa: S311
    for base, module in ((0, "lm_head"), (7, "k_proj"), (399, "q_proj")):
        expected = [
            index
            for index in range(made.count - 1, -1, -1)
            if made.base[index] == base and module in MODULE_SETS[made.modules[index]][1]
        ][:50]
        query = VersionQuery(base=Made.base_digest(base), contains=(module,), latest=False)
        with db.read(engine) as connection:
            found = search.find(connection, query).items
        _require([item.digest for item in found] == [made.digest(index) for index in expected])
    for index in chance.sample(range(made.count), 20):
        ref = VersionRef(AdapterName("default", f"a{index // 10}"), number=index % 10 + 1)
        with db.read(engine) as connection:
            _require(catalogue.resolve(connection, ref).version.digest == made.digest(index))


def _require(right: bool) -> None:
    if not right:
        sys.exit("an answer is wrong, so nothing is timed")


def timed(calls: int, call: Callable[[], object]) -> dict[str, float]:
    """Return milliseconds: median and 99th percentile."""
    for _ in range(min(20, calls)):
        call()
    seen = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        seen.append(1000 * (time.perf_counter() - started))
    seen.sort()
    return {"p50": round(seen[len(seen) // 2], 3), "p99": round(seen[int(len(seen) * 0.99)], 3)}


RESOLVE = (
    "SELECT v.id, v.number, v.digest, v.manifest FROM version v "
    "JOIN adapter a ON a.id = v.adapter_id "
    "WHERE a.namespace = {0} AND a.name = {0} AND v.number = {0}"
)


def measure(engine: sa.Engine, made: Made, calls: int) -> dict[str, Any]:
    """Time everything over one connection, as one worker of the server has it."""
    chance = random.Random(3)  # noqa: S311
    figures: dict[str, Any] = {}
    with db.read(engine) as connection:
        raw: Any = connection.connection.driver_connection
        postgresql = engine.dialect.name == "postgresql"
        statement = RESOLVE.format("%s" if postgresql else "?")
        options = {"prepare": True} if postgresql else {}

        def resolve_statement() -> None:
            index = chance.randrange(made.count)
            values = ("default", f"a{index // 10}", index % 10 + 1)
            _require(raw.execute(statement, values, **options).fetchone() is not None)

        def resolve() -> None:
            name = AdapterName("default", f"a{chance.randrange(made.count) // 10}")
            catalogue.resolve(connection, VersionRef(name, alias="latest"))

        figures["resolve, the statement"] = timed(5 * calls, resolve_statement)
        figures["resolve, all of it"] = timed(calls, resolve)
        for name, make in queries(chance).items():
            figures[name] = timed(calls, lambda make=make: search.find(connection, make()))  # type: ignore[misc]
        deep = made.count // 2
        everything = VersionQuery(latest=False)
        for name, after in (("first page", None), ("page at half the depth", deep)):
            figures[name] = timed(
                calls,
                lambda after=after: search.find(connection, everything, after=after),  # type: ignore[misc]
            )
    return figures


def run(url: str, versions: int, calls: int) -> dict[str, Any]:
    """Fill a database, check it, measure it."""
    made = Made(versions)
    engine = db.open_engine(url)
    db.upgrade(engine)
    seconds = fill(engine, made)
    check(engine, made)
    figures = measure(engine, made, calls)
    engine.dispose()
    return {"versions": versions, "filled in seconds": round(seconds, 1), "milliseconds": figures}


def main() -> None:
    """Measure the databases that were asked for, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--versions", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    given = parser.parse_args()
    for kind in given.database or ["sqlite", "postgresql"]:
        results = measured(kind, given.versions, given.calls)
        path = report.write(f"catalogue_{kind}", results, ["sqlalchemy", "psycopg", "sqlmodel"])
        print(path.read_text())


def measured(kind: str, versions: int, calls: int) -> dict[str, Any]:
    """Measure a database that is made for it, and is gone afterwards."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            return run(db.sqlite_url(Path(folder) / "registry.db"), versions, calls)
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from servers import running_postgres

    with running_postgres() as server:
        return run(server.new_database(), versions, calls)


if __name__ == "__main__":
    main()
