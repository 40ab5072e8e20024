"""Searching by what engines do: as validation says, by the present tables of engines only."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
import sqlalchemy as sa
from alembic import command

from adapter_folder import base_record, fingerprint, push, with_its_fingerprint, write_adapter
from rankloom import digest as digests
from rankloom import engine_tables
from rankloom.adapter.folder import TENSORS
from rankloom.adapter.reader import Adapter
from rankloom.errors import RefError, UnknownEngineError
from rankloom.ref import VersionRef
from rankloom.registry.protocol import Registry
from rankloom.registry.wire import EngineVerdict, NamespaceRules, Remarks, Version, VersionQuery
from rankloom.validate import validate
from rankloom.validate.engines import Verdict, engines
from rankloom_server import db, index, judged, retention, search_keys
from rankloom_server.access import LOCAL, Actor, Grant
from rankloom_server.models import SEARCH_ENTRY, SEARCH_KEY, VERSION, VERSION_TENSOR
from rankloom_server.publish import facts
from rankloom_server.service import Service
from rankloom_server.store.local import LocalStore
from statements import counted

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "wide": {"r": 32},
    "scaled": {"use_rslora": True},
    "pissa": {"init_lora_weights": "pissa"},
}


def write(folder: Path, name: str) -> Path:
    """Write one of those adapters."""
    seed = list(CONFIGS).index(name)
    write_adapter(folder, seed=seed, rank=CONFIGS[name].get("r", 8), width=64)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **CONFIGS[name]}))
    return folder


def push_all(registry: Registry, tmp_path: Path) -> dict[str, Version]:
    return {name: push(registry, write(tmp_path / name, name), name) for name in CONFIGS}


def names(registry: Registry, **query: Any) -> set[str]:  # noqa: ANN401
    return {item.name for item in registry.search(VersionQuery(**query)).items}


@pytest.fixture
def service(engine: sa.Engine, tmp_path: Path) -> Service:
    return Service(engine, LocalStore(tmp_path / "blobs"), tmp_path / "scratch")


def test_by_any_door(registry: Registry, tmp_path: Path) -> None:
    pushed = push_all(registry, tmp_path)
    # As read in the engines themselves (docs/engines.md).
    assert names(registry, engine="vllm==0.33") == {"plain", "scaled"}
    assert names(registry, engine="vllm", verdict="reject") == {"wide", "pissa"}
    assert names(registry, engine="vllm", verdict="reject", rank_max=8) == {"pissa"}
    assert "scaled" in names(registry, engine="ollama", verdict="silent-wrong")
    assert "plain" not in names(registry, engine="ollama", verdict="silent-wrong")
    for name, version in pushed.items():
        judged = validate(tmp_path / name, engines=[engine.pinned for engine in engines()]).engines
        expected = {found.text: found.verdict for found in judged}
        detail = registry.show(version.adapter)
        assert detail.verdicts == {version.digest: expected}
        for engine, verdict in expected.items():
            assert name in names(registry, engine=engine, verdict=verdict)
    assert not registry.search(VersionQuery(engine="vllm")).incomplete
    with pytest.raises(UnknownEngineError, match=r"vllm 0\.1"):
        registry.search(VersionQuery(engine="vllm==0.1"))
    with pytest.raises(RefError, match="no engine"):
        registry.search(VersionQuery(engine="vllmm"))
    with pytest.raises(RefError, match="by default"):
        registry.search(VersionQuery(engine="vllm==0.33,max_lora_rank=64"))
    with pytest.raises(RefError, match="no engine"):
        registry.search(VersionQuery(verdict="reject"))


def test_a_recorded_base_is_looked_at(service: Service, tmp_path: Path) -> None:
    """The base is known to be of another model type: what fills up q, k, v unevenly shows there."""
    folder = write_adapter(tmp_path / "a")
    alone = push(service, folder, "alone")
    record = base_record()
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 8}
    uneven = record.model_copy(update={"config": {**record.config, **heads}})
    uneven = with_its_fingerprint(uneven)
    service.add_base(uneven)
    named = push(service, folder, "named", base="tiny", made_for=uneven.fingerprint)
    same = push(service, folder, "same", made_for=uneven.fingerprint)  # nobody named it
    assert same.base == "tiny"
    found = [service.show(one.adapter).verdicts[one.digest] for one in (alone, named, same)]
    assert found[1] == found[2] != found[0]
    before = _kept(service.engine)
    _forget(service.engine)
    assert index.run(service).judged == 3
    assert _kept(service.engine) == before


def test_a_version_that_comes_back_is_of_the_base_that_it_is_judged_beside(
    service: Service, tmp_path: Path
) -> None:
    folder, newer = write_adapter(tmp_path / "a"), write_adapter(tmp_path / "b", seed=1)
    old = push(service, folder, made_for=fingerprint())
    push(service, newer)
    service.yank(old.adapter, old.digest, "bad")
    service.set_namespace_rules("default", NamespaceRules(purge_yanked_days=0))
    with db.read(service.engine) as connection:
        found = retention.find(connection, datetime.now(UTC))
    with db.write(service.engine) as connection:
        assert all(retention.purge(connection, LOCAL, one, datetime.now(UTC)) for one in found)
    service.set_namespace_rules("default", NamespaceRules())
    service.add_base(base_record())
    back = push(service, folder, made_for=fingerprint())
    assert (old.base, back.number, back.base) == (None, 1, "tiny")


def test_a_fault_in_judging_loses_no_push(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as faulty:
        faulty.setattr(facts, "judge", lambda *_: 1 // 0)
        pushed = push_all(service, tmp_path)
        assert service.show(pushed["plain"].adapter).verdicts == {}
        assert service.search(VersionQuery(engine="vllm")).incomplete
        done = index.run(service)
        assert (done.judged, done.left, len(done.failed)) == (0, 4, 4)
        assert "plain@v1: a fault of rankloom: ZeroDivisionError" in done.failed[0]
    assert names(service, text="plain") == {"plain"}
    done = index.run(service)
    assert (done.judged, done.read, done.left) == (4, 0, 0)
    assert not service.search(VersionQuery(engine="vllm")).incomplete


def test_verdicts_are_old_once_any_code_changed_that_they_come_from() -> None:
    """The code of the rooms is hashed; what else judging imports holds values and no rule."""
    code = (
        "import sys, rankloom.adapter.reader, rankloom.validate.verdicts;"
        "import rankloom.registry.base_record;"
        "print(*(m for m in sys.modules if m.startswith('rankloom.')))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rooms = {"adapter", "base", "tensorfile", "validate"}
    plain = "digest errors finding fingerprint manifest message ref registry semantic signing"
    loaded = {name.split(".")[1] for name in found.stdout.split()}
    assert rooms < loaded <= rooms | set(plain.split())


def test_the_digest_of_the_tables_moves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copied = tmp_path / "rankloom"
    shutil.copytree(Path(engine_tables.__file__).parent, copied)
    monkeypatch.setattr(engine_tables, "_PACKAGE", copied)
    unchanged = engine_tables.digest.__wrapped__()
    seen = {unchanged}
    changed = ("validate/fit.py", "validate/engines/data/vllm-0.33.toml", "adapter/reader.py",
               "base/fused.py", "tensorfile/header.py", "registry/base_record.py")  # fmt: skip
    for name in changed:
        before = (copied / name).read_bytes()
        (copied / name).write_bytes(before + b"\n")
        seen.add(engine_tables.digest.__wrapped__())
        (copied / name).write_bytes(before)
    assert len(seen) == 1 + len(changed)
    (copied / "base" / "__pycache__").mkdir(exist_ok=True)
    (copied / "base" / "__pycache__" / "model.cpython-311.pyc.140234").touch()  # for a moment
    assert engine_tables.digest.__wrapped__() == unchanged


def test_the_wire_knows_every_verdict() -> None:
    assert set(get_args(EngineVerdict)) == set(Verdict)


# --- other tables, and none ---------------------------------------------------------------------


def test_what_came_back_meanwhile_keeps_its_verdicts(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_all(service, tmp_path)
    before = _kept(service.engine)
    judge_otherwise(service, monkeypatch)
    derive, done = facts.derive, list[index.Indexed]()

    def overtaken(*given: Any) -> Any:  # noqa: ANN401
        monkeypatch.setattr(facts, "derive", derive)
        done.append(index.run(service))
        return derive(*given)

    monkeypatch.setattr(facts, "derive", overtaken)
    assert index.run(service).judged == 0, "another run was faster"
    assert done[0].judged == 4
    assert _kept(service.engine) == before


class Counting(LocalStore):
    """A store that is in no folder of this machine, and counts the bytes that were read."""

    nbytes = 0

    def file(self, digest: str) -> None:
        """Have no file."""

    def read(self, digest: str) -> Iterator[bytes]:
        """Yield small chunks."""
        for chunk in super().read(digest):
            for start in range(0, len(chunk), 700):
                Counting.nbytes += len(chunk[start : start + 700])
                yield chunk[start : start + 700]


def judge_otherwise(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other tables say of every version that vLLM refuses it."""
    with monkeypatch.context() as patch:
        patch.setattr(engine_tables, "digest", lambda: "0123456789abcdef")
        with db.write(service.engine) as connection:
            for version_id in connection.execute(sa.select(VERSION.c.id)).scalars().all():
                search_keys.judge(connection, version_id, {"vllm==0.33.0": "reject"})
        assert len(service.search(VersionQuery(engine="vllm", verdict="reject")).items) == 4


def test_what_other_tables_said_is_not_found_until_it_is_judged_anew(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = push_all(service, tmp_path)
    before = _kept(service.engine)
    judge_otherwise(service, monkeypatch)
    for verdict in ("accept", "reject"):
        page = service.search(VersionQuery(engine="vllm", verdict=verdict))
        assert (page.items, page.incomplete) == ((), True)
    assert service.show(pushed["plain"].adapter).verdicts == {}
    assert not service.search(VersionQuery()).incomplete, "it says nothing of engines"
    far = Service(service.engine, Counting(tmp_path / "blobs"), service.scratch)
    done = index.run(far, limit=1)
    assert (done.judged, done.read, done.left, done.failed) == (1, 0, 3, [])
    assert names(service, engine="vllm") == {"plain"}
    done = index.run(far)
    assert (done.judged, done.left) == (3, 0)
    sizes = sum(file.stat().st_size for name in CONFIGS for file in (tmp_path / name).iterdir())
    assert 0 < Counting.nbytes < sizes / 4, "only configs and headers are read"
    assert _kept(service.engine) == before
    assert not service.search(VersionQuery(engine="vllm")).incomplete
    assert index.run(service).judged == 0


def test_what_is_lacking_in_namespaces_of_others_is_not_told(
    service: Service, tmp_path: Path
) -> None:
    push(service, write_adapter(tmp_path / "a"), "secret/old")
    _forget(service.engine)
    new = VersionRef(push(service, tmp_path / "a", "acme/new").adapter, number=1)

    def told(*namespaces: str) -> tuple[bool, bool]:
        grants = frozenset(Grant.parse(f"read:{name}") for name in namespaces)
        reader = service.for_actor(Actor("r", grants))
        found = reader.search(VersionQuery(engine="vllm"))
        return found.incomplete, reader.related(new).incomplete

    assert told("acme") == (False, False)
    assert told("acme", "secret") == (True, True)
    service.set_namespace_rules("secret", NamespaceRules(anonymous_read=True))
    assert told("acme") == (True, True)


def test_old_verdicts_are_looked_for_among_what_is_kept_only(engine: sa.Engine) -> None:
    """A registry may have purged more versions than it has; none of them is in the index."""
    with counted(engine) as seen, db.read(engine) as connection:
        assert not judged.is_any_other(connection, None)
    with db.read(engine) as connection:
        explain, limits = "EXPLAIN QUERY PLAN ", tuple[object, ...]((1, 0, 1, 0))
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SET LOCAL enable_seqscan = off"))  # it is empty
            explain, limits = "EXPLAIN ", (1, 1)
        text = re.sub(r"%\(\w+\)s", "%s", seen[0])
        plan = [str(row[-1]) for row in connection.exec_driver_sql(explain + text, limits)]
        [index] = [one for one in sa.inspect(connection).get_indexes("version")
                   if one["column_names"] == ["judged_by"]]  # fmt: skip
    assert sum("ix_version_judged_by" in step for step in plan) == 2, plan
    assert not any("Sort" in step or "B-TREE" in step for step in plan), plan
    kept = index["dialect_options"][f"{engine.dialect.name}_where"]
    assert "purged_at IS NULL" in str(kept)


def change(store: LocalStore, digest: str, before: bytes, after: bytes) -> None:
    """Change a stored blob, as a disk or a hand may."""
    file = store.path(digest)
    file.chmod(0o600)
    file.write_bytes(file.read_bytes().replace(before, after))


def test_what_is_broken_does_not_hold_up_the_rest(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = push_all(service, tmp_path)
    judge_otherwise(service, monkeypatch)
    inside = LocalStore(tmp_path / "blobs").inside("default")
    weights = digests.of_file(tmp_path / "plain" / "adapter_model.safetensors")
    inside.delete(weights)
    config = digests.of_file(tmp_path / "wide" / "adapter_config.json")
    change(inside, config, b"32", b"16")
    header = digests.of_file(tmp_path / "pissa" / "adapter_model.safetensors")
    change(inside, header, b"q_proj", b"o_proj")
    done = index.run(service, limit=1)
    assert (done.judged, done.left) == (1, 3), "failures do not use up the limit"
    far = Service(service.engine, Counting(tmp_path / "blobs"), service.scratch)
    for store in (service, far):
        done = index.run(store)
        assert (done.judged, done.left) == (0, 3)
        said = dict(line.split(": ", 1) for line in done.failed)
        assert said.keys() == {f"default/{name}@v1" for name in ("plain", "wide", "pissa")}
        assert said["default/plain@v1"].startswith(f"the store has lost {TENSORS} ({weights})")
        assert "adapter_config.json is corrupt in the store" in said["default/wide@v1"]
        assert f"{TENSORS} is corrupt in the store" in said["default/pissa@v1"]
    assert names(service, engine="vllm") == {"scaled"}
    assert service.search(VersionQuery(engine="vllm")).incomplete
    assert service.show(pushed["wide"].adapter).verdicts == {}


def test_versions_of_an_older_registry_are_read_when_asked_to(
    service: Service, tmp_path: Path
) -> None:
    pushed = push_all(service, tmp_path)
    before = _kept(service.engine)
    _forget(service.engine)
    old = VersionRef(pushed["plain"].adapter, number=1)
    page = service.search(VersionQuery(engine="vllm"))
    assert (page.items, page.incomplete) == ((), True)
    with pytest.raises(RefError, match="before the registry") as caught:
        service.related(old)
    assert "loractl admin index" in caught.value.hint
    new = push(service, tmp_path / "plain", "new")
    page = service.related(VersionRef(new.adapter, number=1))
    assert (page.items, page.incomplete) == ((), True), "its twin is not known yet"
    assert index.run(service, limit=3).read == 3
    assert service.related(old).incomplete
    assert index.run(service).left == 0
    (found,) = service.related(old).items
    assert (found.version.name, found.is_same) == ("new", True)
    assert all(ours <= theirs for ours, theirs in zip(before, _kept(service.engine), strict=True))


DERIVED = (
    *("id", "judged_by", "tensor_count", "verdicts", "facts", "rank", "module_count"),
    "header_digest",
)


def test_a_header_of_which_no_digest_was_kept_is_read_with_its_file(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_all(service, tmp_path)
    before = _kept(service.engine)
    judge_otherwise(service, monkeypatch)
    _forget(service.engine, "0014")
    inside = LocalStore(tmp_path / "blobs").inside("default")
    header = digests.of_file(tmp_path / "pissa" / TENSORS)
    right = inside.path(header).read_bytes()
    change(inside, header, b"q_proj", b"o_proj")
    done = index.run(service)
    assert (done.judged, done.read, done.left) == (3, 3, 1)
    assert "corrupt in the store" in done.failed[0]
    inside.path(header).write_bytes(right)
    assert index.run(service).read == 1
    assert _kept(service.engine) == before


def test_what_older_code_read_of_an_adapter_is_read_anew(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(engine_tables, "digest", lambda: "0123456789abcdef")
        older.setattr(Adapter, "ranks", ())  # as it was for convolutions
        pushed = push_all(service, tmp_path)
    label = Remarks(labels={"task": "qa"})
    service.remark(pushed["plain"].adapter, pushed["plain"].digest, label)
    assert names(service, rank_min=1) == set()
    assert index.run(service).judged == 4
    assert names(service, rank_min=1) == {"plain", "scaled", "wide"}, "pissa has no two factors"
    assert names(service, rank_min=1, rank_max=8, labels=("task=qa",), text="plain") == {"plain"}
    assert names(service, rank_min=9) == {"wide"}
    assert names(service, rank_max=0) == {"pissa"}
    lists = _kept(service.engine)[2]
    with db.write(service.engine) as connection:
        search_keys.reindex(connection)
    assert _kept(service.engine)[2] == lists, "nothing of before is left in a list"
    assert service.resolve(VersionRef(pushed["wide"].adapter, number=1)).version.facts.ranks == (
        32,
    )


def _kept(engine: sa.Engine) -> tuple[set[Any], ...]:
    """Return what is derived of versions: rows, tensors, lists."""
    columns = [VERSION.c[name] for name in DERIVED]
    entry = SEARCH_ENTRY.c.version_id, SEARCH_ENTRY.c.rank
    lists = sa.select(SEARCH_KEY.c.text, *entry).join(SEARCH_KEY)
    with db.read(engine) as connection:
        return tuple(
            {json.dumps(list(row), default=bytes.hex, sort_keys=True) for row in found}
            for found in (
                connection.execute(sa.select(*columns)).all(),
                connection.execute(sa.select(VERSION_TENSOR)).all(),
                connection.execute(lists).all(),
            )
        )


def _forget(engine: sa.Engine, revision: str = "0013") -> None:
    """Bring the database to what it was, e.g. before engines were judged, and to the present."""
    with db.write(engine) as connection:
        command.downgrade(db.alembic_config(connection), revision)
    db.upgrade(engine)
