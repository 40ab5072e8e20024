"""Search: what comes back is what a plain walk over all versions would give."""

import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from safetensors.numpy import save_file

from adapter_folder import base_record, fingerprint, manifest_of, push, send, write_adapter
from rankloom.errors import ForbiddenError, NotFoundError, RefError
from rankloom.ref import AdapterName, VersionRef
from rankloom.registry.protocol import Registry
from rankloom.registry.wire import (
    MAX_LABELS,
    AliasRequest,
    NamespaceRules,
    Probe,
    Remarks,
    UploadRequest,
    Version,
    VersionQuery,
)
from rankloom_server import db, search_keys
from rankloom_server.access import Actor, Grant
from rankloom_server.collect import Collector
from rankloom_server.models import SEARCH_ENTRY
from rankloom_server.service import Service
from rankloom_server.store.local import LocalStore
from statements import counted

MODULES = ("q_proj", "k_proj", "v_proj", "down_proj")
WORDS = ("chinese", "law", "Ärzte", "code")


def write(folder: Path, modules: list[str], rank: int, seed: int) -> Path:
    """Write a LoRA adapter over these modules of one layer."""
    folder.mkdir()
    values = np.random.default_rng(seed)
    tensors = {}
    for module in modules:
        prefix = f"base_model.model.model.layers.0.{module}"
        a, b = values.normal(size=(rank, 8)), values.normal(size=(8, rank))
        tensors[f"{prefix}.lora_A.weight"] = a.astype(np.float32)
        tensors[f"{prefix}.lora_B.weight"] = b.astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": modules}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def service(engine: sa.Engine, tmp_path: Path) -> Service:
    return Service(engine, LocalStore(tmp_path / "blobs"), tmp_path / "scratch")


@pytest.fixture
def filled(service: Service, tmp_path: Path) -> tuple[Service, list[dict[str, Any]]]:
    """A registry of many versions, and what a search should know of each, newest first."""
    chance = random.Random(5)  # noqa: S311
    known: dict[str, dict[str, Any]] = {}
    records: list[dict[str, Any]] = []
    for seed in range(30):
        modules = sorted(chance.sample(MODULES, chance.randint(1, 4)))
        rank, base = chance.choice([2, 4, 8]), chance.choice([None, 0, 1])
        name = f"{chance.choice(['acme', 'other'])}/{chance.choice('abcd')}"
        made_for = None if base is None else fingerprint(base)
        card = " ".join(chance.sample(WORDS, 2))
        actor = Actor(chance.choice(["ann", "bob"]), frozenset(service.actor.grants))
        version = push(
            service.for_actor(actor),
            write(tmp_path / f"f{seed}", modules, rank, seed),
            name,
            made_for=made_for,
            card=card,
        )
        labels = {"task": chance.choice(["qa", "chat"]), "stage": "test"}
        if chance.random() < 0.5:
            service.remark(version.adapter, version.digest, Remarks(labels=labels))
        else:
            labels = {}
        yanked = chance.random() < 0.2
        if yanked:
            service.yank(version.adapter, version.digest, "bad")
        known[name] = {"card": card}
        record = {"version": version, "modules": set(modules), "rank": rank, "base": base}
        records.append(record | {"labels": labels, "yanked": yanked, "creator": actor.name})
    for record in records:
        adapter = record["version"].adapter
        record["card"] = known[f"{adapter.namespace}/{adapter.name}"]["card"]
        rest = [
            other["version"].number
            for other in records
            if other["version"].adapter == adapter and not other["yanked"]
        ]
        record["latest"] = record["version"].number == max(rest, default=0)
    return service, records[::-1]


def matches(record: dict[str, Any], query: VersionQuery) -> bool:
    """Say whether a version should be found; written without any of the search's own code."""
    version: Version = record["version"]
    text = f"{version.namespace} {version.name} {record['card']}".casefold().split()
    levels = [] if record["base"] is None else fingerprint(record["base"]).model_dump().values()
    checks = [
        all(word in text for word in query.text.casefold().split()),
        query.namespace in {None, version.namespace},
        query.base is None or query.base in levels,
        query.rank_min is None or record["rank"] >= query.rank_min,
        query.rank_max is None or record["rank"] <= query.rank_max,
        query.kind in {None, "lora"},
        set(query.contains) <= record["modules"],
        not query.within or record["modules"] <= set(query.within),
        all(label in {f"{k}={v}" for k, v in record["labels"].items()} for label in query.labels),
        query.creator in {None, record["creator"]},
        not query.latest or record["latest"],
        query.yanked or not record["yanked"],
    ]
    return all(checks)


def random_query(chance: random.Random) -> VersionQuery:
    options: dict[str, Any] = {
        "text": " ".join(chance.sample([*WORDS, "ACME", "a"], chance.randint(1, 2))),
        "namespace": chance.choice(["acme", "other", "nowhere"]),
        "base": chance.choice(
            list(filter(None, fingerprint(chance.randint(0, 2)).model_dump().values()))
        ),
        "rank_min": chance.choice([2, 4, 8]),
        "rank_max": chance.choice([2, 4, 8]),
        "kind": chance.choice(["lora", "loha"]),
        "contains": tuple(chance.sample(MODULES, chance.randint(1, 2))),
        "within": tuple(chance.sample([*MODULES, "nothing"], chance.randint(1, 4))),
        "labels": chance.choice([("task=qa",), ("task=chat", "stage=test"), ("none=at-all",)]),
        "creator": chance.choice(["ann", "bob", "carl"]),
    }
    chosen = chance.sample(list(options), chance.randint(0, 3))
    query = {name: options[name] for name in chosen}
    return VersionQuery(**query, latest=chance.random() < 0.3, yanked=chance.random() < 0.5)


def every_page(service: Registry, query: VersionQuery, limit: int) -> Iterator[Version]:
    after = None
    while True:
        page = service.search(query, limit=limit, after=after)
        assert len(page.items) <= limit
        yield from page.items
        if page.next is None:
            return
        assert len(page.items) == limit
        after = page.next


def test_a_search_finds_what_a_walk_over_everything_finds(
    filled: tuple[Service, list[dict[str, Any]]],
) -> None:
    service, records = filled
    chance = random.Random(7)  # noqa: S311
    hits = 0
    for _ in range(150):
        query = random_query(chance)
        expected = [r["version"].pinned for r in records if matches(r, query)]
        found = [item.pinned for item in every_page(service, query, chance.choice([1, 3, 50]))]
        assert found == expected, query
        hits += bool(expected)
    assert hits >= 40, "most queries found nothing, which proves little"


def test_the_lists_are_the_same_when_they_are_made_anew(
    filled: tuple[Service, list[dict[str, Any]]],
) -> None:
    service, _ = filled

    def entries() -> set[tuple[int, ...]]:
        with db.read(service.engine) as connection:
            return {tuple(row) for row in connection.execute(sa.select(SEARCH_ENTRY))}

    before = entries()
    with db.write(service.engine) as connection:
        assert search_keys.reindex(connection) == 30
    assert entries() == before


def test_the_number_of_statements_does_not_grow(
    filled: tuple[Service, list[dict[str, Any]]],
) -> None:
    service, _ = filled
    full = VersionQuery(
        text="law acme",
        base=fingerprint().exact,
        rank_min=1,
        contains=("q_proj", "k_proj"),
        within=MODULES,
        labels=("task=qa",),
        latest=False,
    )
    for query, limit in ((full, 1), (full, 50)):
        with counted(service.engine) as seen:
            service.search(query, limit=limit)
        assert len(seen) == 4, seen  # the keys, their lengths, the versions, their aliases


def test_a_search_shows_only_what_may_be_read(
    filled: tuple[Service, list[dict[str, Any]]],
) -> None:
    service, records = filled
    everything = VersionQuery(latest=False)
    reader = service.for_actor(Actor("r", frozenset([Grant.parse("read:acme")])))
    found = reader.search(everything, limit=200).items
    assert {item.namespace for item in found} == {"acme"}
    assert len(found) == sum(r["version"].namespace == "acme" and not r["yanked"] for r in records)
    service.set_namespace_rules("other", NamespaceRules(anonymous_read=True))
    assert {item.namespace for item in reader.search(everything).items} == {"acme", "other"}
    assert reader.search(VersionQuery(namespace="other")).items


# --- by both doors -----------------------------------------------------------------------------


def test_by_any_door(registry: Registry, tmp_path: Path) -> None:
    registry.add_base(base_record())
    one = push(registry, write_adapter(tmp_path / "a"), base="tiny", made_for=fingerprint())
    other = push(registry, write_adapter(tmp_path / "b", seed=1, rank=2), "acme/b", card="Jura")

    def found(**query: Any) -> list[str]:  # noqa: ANN401
        return [item.digest for item in registry.search(VersionQuery(**query)).items]

    assert found() == [other.digest, one.digest]
    assert found(base="tiny", contains=("q_proj",), within=("q_proj", "x")) == [one.digest]
    assert found(text="JURA", rank_max=2, labels=()) == [other.digest]
    assert found(labels=("a=b",)) == found(text="nothing like it") == []
    with pytest.raises(NotFoundError, match="base"):
        found(base="unknown")
    assert len(found(text=" ")) == 2
    with pytest.raises(RefError, match="no word"):
        found(text="-- %")  # which would otherwise find everything
    for bad in ({"limit": 0}, {"limit": 201}):
        with pytest.raises(RefError):
            registry.search(VersionQuery(), **bad)
    page = registry.search(VersionQuery(), limit=1)
    assert registry.search(VersionQuery(), limit=1, after=page.next).items[0].digest == one.digest


def test_remarks_are_said_beside_the_content(registry: Registry, tmp_path: Path) -> None:
    version = push(registry, write_adapter(tmp_path / "a"))
    said = Remarks(labels={"task": "qa"}, metrics={"f1": 0.75}, deprecated="use v2")
    after = registry.remark(version.adapter, version.digest, said)
    assert (after.labels, after.metrics, after.deprecated) == (
        {"task": "qa"},
        {"f1": 0.75},
        "use v2",
    )
    assert after.digest == version.digest
    assert registry.search(VersionQuery(labels=("task=qa",))).items == (after,)
    registry.remark(version.adapter, version.digest, Remarks(labels={"task": "chat", "of": "x"}))
    assert registry.search(VersionQuery(labels=("task=qa",))).items == ()
    (found,) = registry.search(VersionQuery(labels=("task=chat", "of=x"))).items
    assert (found.metrics, found.deprecated) == ({"f1": 0.75}, "use v2")
    undone = Remarks(labels={"task": None}, metrics={"f1": None, "none": None}, deprecated="")
    after = registry.remark(version.adapter, version.digest, undone)
    assert (after.labels, after.metrics, after.deprecated) == ({"of": "x"}, {}, None)
    assert registry.search(VersionQuery(labels=("task=chat",))).items == ()
    with pytest.raises(NotFoundError):
        registry.remark(version.adapter, "sha256:" + "0" * 64, said)


def test_remarks_made_at_once_are_all_kept(registry: Registry, tmp_path: Path) -> None:
    version = push(registry, write_adapter(tmp_path / "a"))
    others, rounds = 4, 5
    ready = threading.Barrier(others)

    def say(who: int) -> None:
        for at in range(rounds):
            ready.wait(30)
            name = f"n{who}-{at}"
            said = Remarks(labels={name: "x"}, metrics={name: at})
            registry.remark(version.adapter, version.digest, said)

    with ThreadPoolExecutor(others) as pool:
        list(pool.map(say, range(others)))
    after = registry.show(version.adapter).versions[0]
    names = {f"n{who}-{at}" for who in range(others) for at in range(rounds)}
    assert (after.labels.keys(), after.metrics.keys()) == (names, names)
    labels = tuple(f"{name}=x" for name in sorted(names))
    assert len(registry.search(VersionQuery(labels=labels)).items) == 1


def test_a_version_has_only_so_many_labels_however_they_came(
    registry: Registry, tmp_path: Path
) -> None:
    version = push(registry, write_adapter(tmp_path / "a"))
    full = {f"n{at}": "x" for at in range(MAX_LABELS)}
    before = registry.remark(version.adapter, version.digest, Remarks(labels=full))
    with pytest.raises(RefError, match="65 labels, 64 are the most"):
        registry.remark(version.adapter, version.digest, Remarks(labels={"more": "x"}))
    assert registry.show(version.adapter).versions[0] == before
    swapped = Remarks(labels={"n0": None, "more": "x"})
    assert len(registry.remark(version.adapter, version.digest, swapped).labels) == MAX_LABELS


def test_a_probe_is_kept_until_another_is_said(registry: Registry, tmp_path: Path) -> None:
    version = push(registry, write_adapter(tmp_path / "a"))
    where = VersionRef(version.adapter, digest=version.digest)
    assert registry.resolve(where).probe is None
    probe = Probe(
        what="logits", tokens=(3, 1), base=version.digest, top=((7, 0.1), (2, -1e-30)), norm=1.5,
        effect=0.25, tolerance=2.0**-13,
    )  # fmt: skip
    registry.remark(version.adapter, version.digest, Remarks(probe=probe))
    assert registry.resolve(where).probe == probe
    assert push(registry, tmp_path / "a").digest == version.digest
    assert registry.resolve(where).probe == probe
    registry.remark(version.adapter, version.digest, Remarks(labels={"task": "qa"}))
    assert registry.resolve(where).probe == probe
    other = probe.model_copy(update={"norm": 2.5})
    after = registry.remark(version.adapter, version.digest, Remarks(probe=other))
    assert registry.resolve(where).probe == other
    assert after.labels == {"task": "qa"}


def test_a_changed_card_changes_what_is_found(registry: Registry, tmp_path: Path) -> None:
    push(registry, write_adapter(tmp_path / "a"), card="about law")
    push(registry, write_adapter(tmp_path / "b", seed=1), card="about code")

    def found(text: str) -> int:
        return len(registry.search(VersionQuery(text=text, latest=False)).items)

    assert (found("law"), found("code"), found("about zh")) == (0, 2, 2)


def test_a_protected_alias_is_moved_by_who_administers(service: Service, tmp_path: Path) -> None:
    version = push(service, write_adapter(tmp_path / "a"))
    name = AdapterName("default", "zh-lang")
    service.set_namespace_rules("default", NamespaceRules(protected_aliases=("prod",)))
    pusher = service.for_actor(Actor("ci", frozenset([Grant.parse("push")])))
    request = AliasRequest(digest=version.digest)
    with pytest.raises(ForbiddenError, match="prod"):
        pusher.set_alias(name, "prod", request)
    pusher.set_alias(name, "canary", request)
    service.set_alias(name, "prod", request)
    with pytest.raises(ForbiddenError, match="prod"):
        pusher.delete_alias(name, "prod", version.digest)
    service.delete_alias(name, "prod", version.digest)


def test_what_was_purged_is_not_found(service: Service, tmp_path: Path) -> None:
    folders = [write_adapter(tmp_path / f"a{seed}", seed=seed) for seed in range(2)]
    for folder in folders:
        push(service, folder)
    service.set_namespace_rules("default", NamespaceRules(keep_versions=1, keep_days=0))
    assert Collector(service.engine, service.store, service.actor).run().purged
    everything = VersionQuery(latest=False, yanked=True)
    assert [item.number for item in service.search(everything).items] == [2]
    # And found again when its content comes back.
    service.set_namespace_rules("default", NamespaceRules(keep_versions=None))
    upload = service.open_upload(
        AdapterName("default", "zh-lang"), UploadRequest(manifest=manifest_of(folders[0]))
    )
    send(folders[0], upload)
    service.publish(upload.id)
    query = VersionQuery(contains=("q_proj",), latest=False)
    assert [item.number for item in service.search(query).items] == [2, 1]
