"""Which versions have tensors of another one: what a comparison of all their values gives."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from safetensors.numpy import load_file, save_file

from adapter_folder import manifest_of, push, send, write_adapter
from rankloom.errors import NotFoundError, RefError
from rankloom.ref import AdapterName, VersionRef
from rankloom.registry.protocol import Registry
from rankloom.registry.wire import NamespaceRules, RelatedVersion, UploadRequest, Version
from rankloom_server import db
from rankloom_server.access import Actor, Grant
from rankloom_server.collect import Collector
from rankloom_server.models import SEARCH_ENTRY, VERSION, VERSION_TENSOR
from rankloom_server.service import Service
from rankloom_server.store.local import LocalStore
from statements import counted

MODULES = ("q_proj", "k_proj", "v_proj")


@pytest.fixture
def service(engine: sa.Engine, tmp_path: Path) -> Service:
    return Service(engine, LocalStore(tmp_path / "blobs"), tmp_path / "scratch")


def write(folder: Path, chance: random.Random, pool: list[np.ndarray[Any, Any]]) -> Path:
    """Write an adapter whose factors are of a small pool, and some of zeros."""
    tensors = {}
    for module in MODULES:
        prefix = f"base_model.model.model.layers.0.{module}.lora_"
        tensors[f"{prefix}A.weight"] = chance.choice(pool)
        b = chance.choice(pool).T.copy()
        tensors[f"{prefix}B.weight"] = b if chance.random() < 0.6 else np.zeros_like(b)
    tensors[f"{prefix}B.weight"] = b  # not all are zeros, or it would have no effect
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": list(MODULES)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def contents(folder: Path) -> set[tuple[Any, ...]]:
    """Return dtype, shape and bytes of every tensor that has two different values."""
    values = load_file(folder / "adapter_model.safetensors").values()
    return {(v.dtype, v.shape, v.tobytes()) for v in values if len(np.unique(v)) > 1}


def every_page(registry: Registry, ref: VersionRef, limit: int) -> Iterator[RelatedVersion]:
    after = None
    while True:
        page = registry.related(ref, limit=limit, after=after)
        assert (page.digest, page.incomplete) == (ref.digest, False)
        yield from page.items
        if page.next is None:
            return
        assert len(page.items) == limit
        after = page.next


def by_digest(version: Version) -> VersionRef:
    return VersionRef(version.adapter, digest=version.digest)


def test_it_is_what_a_comparison_of_all_values_gives(service: Service, tmp_path: Path) -> None:
    chance = random.Random(3)  # noqa: S311
    values = np.random.default_rng(4)
    pool = [values.normal(size=(2, 8)).astype(np.float32) for _ in range(5)]
    folders = [write(tmp_path / f"f{at}", chance, pool) for at in range(14)]
    pushed = [
        (push(service, folder, f"{chance.choice(['acme', 'other'])}/a{at}"), contents(folder))
        for at, folder in enumerate([*folders, folders[0], folders[3]])
    ]
    reader = service.for_actor(Actor("r", frozenset([Grant.parse("read:acme")])))
    copies = 0
    for version, mine in pushed:
        others = [
            (len(mine & its), len(its), one)
            for one, its in reversed(pushed)
            if mine & its and one != version
        ]
        others.sort(key=lambda item: (-item[0], item[1]))  # the newest first among equals
        expected = [(one.pinned, shared, len(mine), its) for shared, its, one in others]
        for seen_by, limit in ((service, 200), (service, 3), (reader, 2)):
            found = [
                (item.version.pinned, item.shared, item.of, item.tensors)
                for item in every_page(seen_by, by_digest(version), limit)
            ]
            shown = [row for row in expected if seen_by is service or row[0].startswith("acme/")]
            assert found == shown
        copies += sum(item.is_same for item in every_page(service, by_digest(version), 50))
    assert copies == sum(mine == its for _, mine in pushed for _, its in pushed) - len(pushed)
    assert copies >= 4


def test_by_any_door(registry: Registry, tmp_path: Path) -> None:
    one = push(registry, write_adapter(tmp_path / "a"))
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    write_adapter(tmp_path / "b")
    (tmp_path / "b" / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 16}))
    two = push(registry, tmp_path / "b", "acme/rescaled")
    push(registry, write_adapter(tmp_path / "c", seed=1), "acme/another")
    (found,) = registry.related(VersionRef(one.adapter, alias="latest", bare=True)).items
    assert (found.version, found.shared, found.of, found.tensors) == (two, 4, 4, 4)
    for last in ("2147483647", "9999999999"):  # ids have ten digits in the end
        assert registry.related(by_digest(one), after=f"4.4.{last}").items == (found,)
    for bad in ({"limit": 0}, {"limit": 201}, {"after": "4.4"}, {"after": "4.4.x"}):
        with pytest.raises(RefError):
            registry.related(by_digest(one), **bad)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        registry.related(VersionRef(AdapterName("acme", "nothing"), alias="latest"))
    with pytest.raises(NotFoundError):
        registry.related(VersionRef(one.adapter, number=7))


def test_the_number_of_statements_does_not_grow(service: Service, tmp_path: Path) -> None:
    versions = [push(service, write_adapter(tmp_path / "a"), f"acme/a{at}") for at in range(9)]
    for limit in (1, 50):
        with counted(service.engine) as seen:
            assert service.related(by_digest(versions[0]), limit=limit).items
        assert len(seen) == 4, seen  # the version, the others, their aliases, what is not known


def test_what_was_purged_has_no_tensors_until_it_comes_back(
    service: Service, tmp_path: Path
) -> None:
    def rows(of: sa.FromClause = VERSION_TENSOR) -> int:
        with db.read(service.engine) as connection:
            count = sa.select(sa.func.count()).select_from(of)
            return connection.execute(count).scalar_one()

    first = push(service, write_adapter(tmp_path / "a"))
    push(service, write_adapter(tmp_path / "b", seed=1))
    copy = push(service, tmp_path / "a", "acme/copy")
    assert rows() == 12
    service.set_namespace_rules("default", NamespaceRules(keep_versions=1, keep_days=0))
    assert Collector(service.engine, service.store, service.actor).run().purged
    assert (rows(), service.related(by_digest(copy)).items) == (8, ())
    purged = VERSION.c.purged_at.is_not(None) & (VERSION.c.id == SEARCH_ENTRY.c.version_id)
    assert rows(VERSION.join(SEARCH_ENTRY, purged)) == 0, "it is in no list, of no engine either"
    with pytest.raises(NotFoundError, match="purged"):
        service.related(by_digest(first))
    upload = service.open_upload(first.adapter, UploadRequest(manifest=manifest_of(tmp_path / "a")))
    send(tmp_path / "a", upload)
    service.publish(upload.id)
    (back,) = service.related(by_digest(copy)).items
    assert (rows(), back.version.digest, back.is_same) == (12, first.digest, True)
