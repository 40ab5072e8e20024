"""Garbage collection: what goes, what stays, and who wins when a push wants it back."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
import sqlalchemy as sa

from adapter_folder import manifest_of, push, send, write_adapter
from rankloom import digest as digests
from rankloom.errors import NotFoundError, RankloomError, RegistryError, UploadCorruptError
from rankloom.ref import AdapterName, VersionRef
from rankloom.registry.wire import AliasRequest, NamespaceRules, UploadRequest
from rankloom_server import db, fsck, retention
from rankloom_server.access import LOCAL
from rankloom_server.collect import GRACE, STUCK, Collected, Collector
from rankloom_server.models import BLOB, UPLOAD, VERSION
from rankloom_server.publish import claims
from rankloom_server.service import Service
from rankloom_server.settings import Settings
from rankloom_server.store.interface import Store
from rankloom_server.store.local import LocalStore
from rankloom_server.wiring import open_service

NAME = AdapterName("default", "zh-lang")
DAY = timedelta(days=1)


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    """SQLite and a folder, or PostgreSQL and S3."""
    made = open_service(settings)
    if isinstance(made.store, LocalStore):  # nobody serves its URLs here
        made = replace(made, store=LocalStore(made.store.root))
    yield made
    made.close()


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [write_adapter(tmp_path / f"adapter-{seed}", seed=seed) for seed in range(4)]


def collect(service: Service, *, later: timedelta = 10 * DAY, dry: bool = False) -> Collected:
    """Collect as if ``later`` had passed."""
    clock = lambda: datetime.now(UTC) + later  # noqa: E731
    return Collector(service.engine, service.store, LOCAL, clock=clock).run(dry=dry)


def weights(folder: Path) -> str:
    return digests.of_file(folder / "adapter_model.safetensors")


def stored(service: Service) -> set[str]:
    return {blob.digest for blob in service.store.list_all()}


def abandoned(service: Service, folder: Path) -> None:
    """Begin a push and never publish it."""
    send(folder, service.open_upload(NAME, UploadRequest(manifest=manifest_of(folder))))


# --- blobs -------------------------------------------------------------------------------------


def test_two_passes_remove_what_nobody_names_and_nothing_else(
    service: Service, folders: list[Path]
) -> None:
    version = push(service, folders[0])
    abandoned(service, folders[1])  # both folders have the same config file
    first = collect(service)
    assert first.condemned == [f"default/{weights(folders[1])}"]
    assert first.deleted == []
    assert weights(folders[1]) in stored(service)
    second = collect(service, later=20 * DAY)
    assert second.deleted == first.condemned
    assert second.nbytes == (folders[1] / "adapter_model.safetensors").stat().st_size
    assert stored(service) == {entry.digest for entry in manifest_of(folders[0]).files}
    assert service.resolve(VersionRef(NAME, alias="latest")).version == version
    assert collect(service, later=30 * DAY) == Collected()


@pytest.mark.parametrize("later", [timedelta(0), GRACE - timedelta(minutes=1)])
def test_a_lease_and_the_time_of_grace_protect(
    service: Service, folders: list[Path], later: timedelta
) -> None:
    abandoned(service, folders[0])
    assert collect(service, later=later) == Collected()
    assert collect(service).condemned
    assert collect(service, later=10 * DAY + later).deleted == []
    assert push(service, folders[0]).number == 1


def test_a_lease_protects_however_long_it_is(service: Service, folders: list[Path]) -> None:
    abandoned(service, folders[0])
    with db.write(service.engine) as connection:
        far = datetime.now(UTC) + 100 * DAY
        connection.execute(sa.update(UPLOAD).values(lease_until=far))
    assert collect(service) == Collected()


def test_a_condemned_blob_that_is_wanted_comes_back(service: Service, folders: list[Path]) -> None:
    abandoned(service, folders[0])
    assert len(collect(service).condemned) == 2
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folders[0])))
    assert upload.missing == (), "it is still there, and nothing need be sent"
    assert collect(service, later=timedelta(hours=23)).deleted == []
    service.publish(upload.id)
    for days in (20, 30):
        assert collect(service, later=days * DAY).deleted == []
    assert fsck.check(service.engine, service.store, rehash=True).sound


def test_publishing_after_the_lease_claims_again(service: Service, folders: list[Path]) -> None:
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folders[0])))
    send(folders[0], upload)
    # The journal's row is still there, its lease is over, and the blobs are condemned.
    with db.write(service.engine) as connection:
        long_ago = datetime.now(UTC) - 2 * DAY
        connection.execute(sa.update(BLOB).values(wanted_at=long_ago))
        over = datetime.now(UTC) - timedelta(minutes=1)
        connection.execute(sa.update(UPLOAD).values(lease_until=over))
    assert len(collect(service, later=timedelta(0)).condemned) == 2
    assert service.publish(upload.id).number == 1
    assert collect(service, later=20 * DAY).deleted == []


def test_a_dry_run_foretells_and_changes_nothing(service: Service, folders: list[Path]) -> None:
    abandoned(service, folders[0])
    foretold = collect(service, dry=True)
    assert foretold.condemned == collect(service, dry=True).condemned
    assert foretold.condemned == collect(service).condemned
    foretold = collect(service, later=20 * DAY, dry=True)
    assert foretold.deleted
    real = collect(service, later=20 * DAY)
    assert (foretold.deleted, foretold.nbytes) == (real.deleted, real.nbytes)


class Failing(LocalStore):
    """A store that deletes, but whose answer is lost."""

    def delete(self, digest: str) -> None:
        super().delete(digest)
        message = "the blob store failed"
        raise RegistryError(message)

    def inside(self, namespace: str) -> "Failing":
        return Failing(self.root, self.signer, namespace)


@pytest.fixture
def local(engine: sa.Engine, tmp_path: Path) -> Service:
    return Service(engine, LocalStore(tmp_path / "blobs"), tmp_path / "scratch")


def test_a_deletion_whose_answer_was_lost_is_done_again(
    local: Service, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned(local, folders[0])
    both = collect(local).condemned
    failing = replace(local, store=Failing(local.store.root))  # type: ignore[attr-defined]
    with pytest.raises(RegistryError):
        collect(failing, later=20 * DAY)
    # The store may still act on it, so nobody may build on the blob.
    monkeypatch.setattr(claims, "_PATIENCE_SECONDS", 0.1)
    with pytest.raises(RegistryError, match="deleting blob"):
        local.open_upload(NAME, UploadRequest(manifest=manifest_of(folders[0])))
    assert collect(local, later=20 * DAY).deleted == [max(both)]
    assert len(collect(local, later=20 * DAY + STUCK).deleted) == 1
    assert push(local, folders[0]).number == 1


@dataclass(frozen=True)
class Held(LocalStore):
    """A store in which a deletion waits until it is let go."""

    begun: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)

    def delete(self, digest: str) -> None:
        self.begun.set()
        assert self.let_go.wait(20)
        super().delete(digest)

    def inside(self, namespace: str) -> "Held":
        assert namespace == "default"
        return self


def test_a_late_deletion_takes_nothing_that_was_pushed_anew(
    engine: sa.Engine, tmp_path: Path, folders: list[Path]
) -> None:
    """Two servers collect at once; the store is slow to delete for one of them."""
    store = LocalStore(tmp_path / "blobs")
    service = Service(engine, store, tmp_path / "scratch")
    held = Held(store.root)
    abandoned(service, folders[0])
    collect(service)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(collect, replace(service, store=held), later=20 * DAY)
        assert held.begun.wait(20)
        try:
            # The other one leaves alone what is being deleted.
            assert len(collect(service, later=20 * DAY).deleted) == 1
            assert len(collect(service, later=20 * DAY + STUCK / 2).deleted) == 0
        finally:
            held.let_go.set()
        assert len(late.result().deleted) == 1
    assert push(service, folders[0]).number == 1
    assert fsck.check(engine, store, rehash=True).sound


def test_a_push_waits_while_its_blob_is_deleted(local: Service, folders: list[Path]) -> None:
    abandoned(local, folders[0])
    with db.write(local.engine) as connection:
        stuck = {"state": "deleting", "changed_at": datetime.now(UTC) - STUCK}
        connection.execute(sa.update(BLOB).values(**stuck))
        connection.execute(sa.update(UPLOAD).values(lease_until=datetime.now(UTC) - DAY))

    def finish() -> None:
        time.sleep(0.3)
        collect(local, later=timedelta(0))  # a later one would end the push's lease too

    thread = Thread(target=finish)
    thread.start()
    assert push(local, folders[0]).number == 1
    thread.join()
    assert fsck.check(local.engine, local.store, rehash=True).sound


def test_partial_files_are_swept(local: Service, folders: list[Path]) -> None:
    push(local, folders[0])
    assert isinstance(local.store, LocalStore)
    part = local.store.path(weights(folders[0])).with_name(".part-broken")
    part.write_bytes(b"half")
    assert collect(local, later=timedelta(0)).partial == 0
    assert collect(local).partial == 1
    assert not part.exists()


def _push_unless_collected(service: Service, folder: Path, name: str) -> None:
    try:
        push(service, folder, name)
    except RankloomError as error:
        # What was collected between sending and publishing is asked for again.
        if "did not arrive" not in error.message and "purged" not in error.message:
            raise


def test_whatever_happens_at_once_every_version_is_whole(service: Service, tmp_path: Path) -> None:
    """Pushers and collectors without any grace; retention lets most versions go at once."""
    folders = [write_adapter(tmp_path / f"f{seed}", seed=seed) for seed in range(3)]
    rules = NamespaceRules(keep_versions=1, keep_days=0)
    service.set_namespace_rules("default", rules)
    ended = threading.Event()

    def pushing(index: int) -> None:
        for step in range(8):
            _push_unless_collected(service, folders[(index + step) % 3], f"a{index % 2}")

    def collecting() -> None:
        while not ended.is_set():
            Collector(service.engine, service.store, LOCAL, grace=timedelta(0)).run()

    with ThreadPoolExecutor(5) as pool:
        collectors = [pool.submit(collecting) for _ in range(2)]
        pushers = [pool.submit(pushing, index) for index in range(3)]
        problems = [pusher.exception() for pusher in pushers]
        ended.set()
        problems += [collector.exception() for collector in collectors]
    assert problems == [None] * 5
    checked = fsck.check(service.engine, service.store, rehash=True)
    assert (checked.missing, checked.damaged) == ([], [])
    assert checked.rehashed >= 2
    for name in ("a0", "a1"):
        assert service.resolve(VersionRef(AdapterName("default", name), alias="latest"))


# --- versions ----------------------------------------------------------------------------------


def kept(service: Service) -> list[int]:
    return [version.number for version in service.show(NAME).versions if not version.purged_at]


def test_retention_keeps_the_newest_and_whatever_is_in_use(
    service: Service, folders: list[Path]
) -> None:
    versions = [push(service, folder) for folder in folders]
    service.set_alias(NAME, "prod", AliasRequest(digest=versions[0].digest))
    service.set_namespace_rules("default", NamespaceRules(keep_versions=2, keep_days=5))
    assert collect(service, later=4 * DAY).purged == []
    assert collect(service).purged == ["zh-lang@v2"]
    assert kept(service) == [4, 3, 1]
    service.yank(NAME, versions[3].digest, "bad")
    service.yank(NAME, versions[2].digest, "bad")
    service.set_namespace_rules("default", NamespaceRules(keep_versions=None, purge_yanked_days=5))
    # The latest is v1 now; nothing else stands in the way of the yanked ones.
    assert collect(service).purged == ["zh-lang@v3", "zh-lang@v4"]
    assert kept(service) == [1]


def test_a_part_of_a_composition_is_kept_as_long_as_that_is(
    service: Service, folders: list[Path]
) -> None:
    part = push(service, folders[0])
    push(service, folders[1])
    lock = {
        "schema": 1,
        "algorithm": "exact/1",
        "parts": [{"digest": part.digest, "weight": 1.0}],
        "parameters": {},
    }
    whole = AdapterName("other", "whole")
    manifest = manifest_of(folders[2]).model_copy(update={"lock": lock})
    upload = service.open_upload(whole, UploadRequest(manifest=manifest))
    send(folders[2], upload)
    service.publish(upload.id)
    service.set_namespace_rules("default", NamespaceRules(keep_versions=1, keep_days=0))
    assert collect(service).purged == []
    service.set_namespace_rules("other", NamespaceRules(keep_versions=1, keep_days=0))
    push(service, folders[3], "other/whole")
    assert collect(service).purged == ["other/whole@v1"]
    assert collect(service).purged == ["zh-lang@v1"]


def test_a_purged_version_keeps_its_number_and_comes_back_with_its_content(
    service: Service, folders: list[Path]
) -> None:
    versions = [push(service, folder) for folder in folders[:2]]
    service.yank(NAME, versions[1].digest, "bad")
    service.set_namespace_rules("default", NamespaceRules(purge_yanked_days=0))
    assert collect(service).purged == ["zh-lang@v2"]
    for ref in (VersionRef(NAME, number=2), VersionRef(NAME, digest=versions[1].digest)):
        with pytest.raises(NotFoundError, match="was purged on"):
            service.resolve(ref)
    with pytest.raises(NotFoundError, match="purged"):
        service.set_alias(NAME, "prod", AliasRequest(digest=versions[1].digest))
    with pytest.raises(NotFoundError, match="no file"):
        service.blob_url(NAME, versions[1].digest, "adapter_config.json")
    collect(service, later=20 * DAY)
    assert collect(service, later=30 * DAY).deleted == []
    assert weights(folders[1]) not in stored(service)
    assert push(service, folders[2]).number == 3, "a number never means two things"
    service.set_namespace_rules("default", NamespaceRules())
    back = push(service, folders[1])
    assert (back.number, back.digest, back.purged_at) == (2, versions[1].digest, None)
    assert fsck.check(service.engine, service.store, rehash=True).sound


def test_what_an_alias_names_meanwhile_is_not_purged(service: Service, folders: list[Path]) -> None:
    old = push(service, folders[0])
    push(service, folders[1])
    service.set_namespace_rules("default", NamespaceRules(keep_versions=1, keep_days=0))
    now = datetime.now(UTC) + DAY
    with db.read(service.engine) as connection:
        (found,) = retention.find(connection, now)
    service.set_alias(NAME, "prod", AliasRequest(digest=old.digest))
    with db.write(service.engine) as connection:
        assert not retention.purge(connection, LOCAL, found, now)
    assert kept(service) == [2, 1]


# --- checking ----------------------------------------------------------------------------------


def damage(store: Store, digest: str, data: bytes) -> None:
    """Put other bytes under a digest, as a broken disk would."""
    if isinstance(store, LocalStore):
        store.path(digest).write_bytes(data)
        return
    store.client.put_object(  # type: ignore[attr-defined]
        Bucket=store.bucket,  # type: ignore[attr-defined]
        Key=store._key(digest),  # type: ignore[attr-defined]
        Body=data,
    )


def test_both_directions_are_checked(service: Service, folders: list[Path]) -> None:
    push(service, folders[0])
    push(service, folders[1])
    push(service, folders[2])
    check = lambda rehash=False: fsck.check(service.engine, service.store, rehash=rehash)  # noqa: E731
    sound = check(rehash=True)
    assert sound.sound
    assert (sound.versions, sound.blobs, sound.rehashed, sound.unknown) == (3, 4, 4, [])
    service.store.delete(weights(folders[0]))
    size = (folders[1] / "adapter_model.safetensors").stat().st_size
    damage(service.store, weights(folders[1]), b"short")
    damage(service.store, weights(folders[2]), b"x" * size)
    stranger = digests.of_bytes(b"stranger")
    service.store.inside("nowhere").put(stranger, 8, [b"stranger"])
    found = check()
    assert not found.sound
    place = "default/zh-lang@v{} adapter_model.safetensors {}"
    assert found.missing == [place.format(1, weights(folders[0]))]
    assert found.damaged == [f"{place.format(2, weights(folders[1]))}: 5 of {size} bytes"]
    assert found.unknown == [f"nowhere/{stranger}"]
    found = check(rehash=True)
    assert len(found.damaged) == 2
    fsck.adopt(service.engine, LOCAL, found)
    assert check().unknown == []
    collect(service)
    assert f"nowhere/{stranger}" in collect(service, later=20 * DAY).deleted


def test_what_was_found_damaged_is_brought_anew_by_the_next_push(
    service: Service, folders: list[Path]
) -> None:
    push(service, folders[0])
    size = (folders[0] / "adapter_model.safetensors").stat().st_size
    damage(service.store, weights(folders[0]), b"x" * size)
    # Of the right size, so that only reading it tells: by a push to another name, or by a check.
    with pytest.raises(UploadCorruptError, match="REG001"):
        push(service, folders[0], "other")
    assert push(service, folders[0]).number == 1
    assert fsck.check(service.engine, service.store, rehash=True).sound
    damage(service.store, weights(folders[0]), b"x" * size)
    found = fsck.check(service.engine, service.store, rehash=True)
    fsck.note_damage(service.engine, LOCAL, found)
    assert push(service, folders[0]).number == 1
    assert fsck.check(service.engine, service.store, rehash=True).sound
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folders[0])))
    assert upload.missing == ()


def test_a_number_of_versions_is_counted_not_named(service: Service, folders: list[Path]) -> None:
    for folder, name in itertools.product(folders[:2], ("a", "b")):
        push(service, folder, name)
    service.set_namespace_rules("default", NamespaceRules(keep_versions=1, keep_days=0))
    assert collect(service).purged == ["a@v1", "b@v1"]
    with db.read(service.engine) as connection:
        left = connection.execute(sa.select(sa.func.count()).where(VERSION.c.purged_at.is_(None)))
        assert left.scalar_one() == 2
