"""Publishing when something goes wrong: nothing half-done, and the next attempt succeeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Barrier, Thread
from typing import Self

import pytest
import sqlalchemy as sa

from adapter_folder import base_record, manifest_of, push, send, write_adapter
from rankloom import digest as digests
from rankloom.errors import ConflictError, NotFoundError, RegistryError, UploadCorruptError
from rankloom.ref import AdapterName
from rankloom.registry.wire import PartTarget, PutTarget, UploadRequest
from rankloom_server import db
from rankloom_server.models import UPLOAD, VERSION
from rankloom_server.publish import journal
from rankloom_server.service import Service
from rankloom_server.settings import Settings
from rankloom_server.store.interface import Assembly, Store, StoredBlob, blob_key
from rankloom_server.store.local import LocalStore
from rankloom_server.wiring import open_service
from servers import BUCKET, S3Server

NAME = AdapterName("default", "zh-lang")


@dataclass
class Flaky:
    """A store whose n-th request fails, as a network does."""

    inner: Store
    failing: int = -1
    asked: int = 0

    def _ask(self) -> None:
        self.asked += 1
        if self.asked == self.failing:
            message = "the blob store failed"
            raise RegistryError(message)

    def presign_put(self, digest: str, size: int, *, replace: bool = False) -> PutTarget:
        self._ask()
        return self.inner.presign_put(digest, size, replace=replace)

    def part_bytes(self, size: int) -> int | None:
        return self.inner.part_bytes(size)

    def assemble(
        self, digest: str, size: int, parts: Sequence[str], *, replace: bool = False
    ) -> tuple[PartTarget, ...]:
        return self.inner.assemble(digest, size, parts, replace=replace)

    def assemblies(self) -> Iterator[Assembly]:
        return self.inner.assemblies()

    def abandon(self, assembly: Assembly) -> None:
        self.inner.abandon(assembly)

    def presign_get(self, digest: str) -> str:
        return self.inner.presign_get(digest)

    def size(self, digest: str) -> int | None:
        self._ask()
        return self.inner.size(digest)

    def read(self, digest: str) -> Iterator[bytes]:
        self._ask()
        yield from self.inner.read(digest)

    def put(self, digest: str, size: int, chunks: Iterator[bytes]) -> None:
        self.inner.put(digest, size, chunks)

    def delete(self, digest: str) -> None:
        self.inner.delete(digest)

    def inside(self, namespace: str) -> Self:
        assert namespace == NAME.namespace
        return self

    def list_all(self) -> Iterator[StoredBlob]:
        return self.inner.list_all()

    def sweep(self, before: datetime) -> int:
        return self.inner.sweep(before)

    def file(self, digest: str) -> Path | None:
        return None  # so that blobs are read, as from a store elsewhere


@dataclass
class Distant(Flaky):
    """A store that says of no blob how large it is before it is asked of two."""

    both: Barrier = field(default_factory=lambda: Barrier(2, timeout=10))

    def size(self, digest: str) -> int | None:
        self.both.wait()
        return super().size(digest)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


@pytest.fixture
def service(engine: sa.Engine, tmp_path: Path) -> Service:
    return Service(engine, LocalStore(tmp_path / "blobs"), tmp_path / "scratch")


def test_a_store_is_asked_of_several_blobs_at_a_time(
    engine: sa.Engine, folder: Path, tmp_path: Path
) -> None:
    service = Service(engine, Distant(LocalStore(tmp_path / "blobs")), tmp_path / "scratch")
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    assert len(upload.missing) == 2


def _rows(engine: sa.Engine, table: sa.Table) -> int:
    with db.read(engine) as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
    return int(count)


def _state(engine: sa.Engine, upload_id: str) -> str:
    with db.read(engine) as connection:
        return str(journal.get(connection, upload_id)["state"])


def test_after_a_failure_at_any_request_the_next_push_succeeds(
    service: Service, folder: Path
) -> None:
    store = Flaky(service.store)
    failures = 0
    while True:
        store.asked, store.failing = 0, failures + 1
        flaky = Service(service.engine, store, service.scratch)
        try:
            version = push(flaky, folder)
        except RegistryError:
            failures += 1
            assert _rows(service.engine, VERSION) == 0
            assert list(service.scratch.glob("*")) == []
        else:
            break
    assert failures >= 6  # both sizes twice, both blobs, once each at least
    assert version.number == 1
    assert _rows(service.engine, VERSION) == 1


def test_a_commit_that_fails_leaves_no_version(service: Service, folder: Path) -> None:
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    send(folder, upload)

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO version_file"):
            message = "the power went out"
            raise RuntimeError(message)

    sa.event.listen(service.engine, "before_cursor_execute", fail)
    with pytest.raises(RuntimeError):
        service.publish(upload.id)
    sa.event.remove(service.engine, "before_cursor_execute", fail)
    with pytest.raises(NotFoundError):
        service.show(NAME)
    assert service.publish(upload.id).number == 1


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "read"])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow"])
def test_bytes_that_changed_in_the_store_do_not_become_a_version(
    service: Service, folder: Path, damage: str, linked: bool
) -> None:
    store = service.store if linked else Flaky(service.store)
    service = Service(service.engine, store, service.scratch)
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    send(folder, upload)
    inner = store.inner if isinstance(store, Flaky) else store
    assert isinstance(inner, LocalStore)
    path = inner.path(digests.of_file(folder / "adapter_model.safetensors"))
    data = path.read_bytes()
    changed = {"flip": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-1], "grow": data + b"\0"}
    path.write_bytes(changed[damage])
    with pytest.raises(UploadCorruptError, match=r"REG001 adapter_model\.safetensors"):
        service.publish(upload.id)
    assert _rows(service.engine, VERSION) == 0
    assert _state(service.engine, upload.id) == "failed"
    assert list(service.scratch.glob("*")) == []
    # The local store takes good bytes in their place.
    assert push(service, folder).number == 1


def test_a_store_that_believes_everything_is_not_believed(
    moto: S3Server, folder: Path, tmp_path: Path
) -> None:
    import boto3

    settings = Settings(data_dir=tmp_path / "data", **moto.settings())
    service = open_service(settings)
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    send(folder, upload)
    digest = digests.of_file(folder / "adapter_config.json")
    client = boto3.client(
        "s3",
        endpoint_url=moto.endpoint,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    key = f"{settings.store.removeprefix(f's3://{BUCKET}/')}/{blob_key(NAME.namespace, digest)}"
    size = (folder / "adapter_config.json").stat().st_size
    client.put_object(Bucket=BUCKET, Key=key, Body=b"{" + b" " * (size - 2) + b"}")
    client.close()
    with pytest.raises(UploadCorruptError, match=r"REG001 adapter_config\.json"):
        service.publish(upload.id)
    service.close()


def test_a_published_blob_is_not_the_scratch_file(service: Service, folder: Path) -> None:
    push(service, folder)
    assert list(service.scratch.glob("*")) == []
    for entry in manifest_of(folder).files:
        stored = service.store.file(entry.digest)
        assert stored is not None
        assert stored.stat().st_nlink == 1
        assert digests.of_file(stored) == entry.digest


def test_a_lost_blob_is_asked_for_again(service: Service, folder: Path) -> None:
    version = push(service, folder)
    lost = manifest_of(folder).files[0].digest
    service.store.delete(lost)
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    assert [target.digest for target in upload.missing] == [lost]
    send(folder, upload)
    assert service.publish(upload.id) == version
    assert service.store.size(lost)


def test_the_same_push_is_one_open_upload_with_a_fresh_lease(
    service: Service, folder: Path
) -> None:
    request = UploadRequest(manifest=manifest_of(folder))
    first = service.open_upload(NAME, request)
    with db.write(service.engine) as connection:
        before = journal.get(connection, first.id)["lease_until"]
        earlier = sa.update(UPLOAD).values(lease_until=before - journal.LEASE)
        connection.execute(earlier)
    assert service.open_upload(NAME, request).id == first.id
    assert service.open_upload(AdapterName("default", "other"), request).id != first.id
    with db.read(service.engine) as connection:
        assert journal.get(connection, first.id)["lease_until"] >= before


def test_a_base_may_be_named_after_an_upload_was_opened(service: Service, folder: Path) -> None:
    record = base_record()
    manifest = manifest_of(folder, record.fingerprint)
    service.open_upload(NAME, UploadRequest(manifest=manifest))
    service.add_base(record)
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest, base="tiny"))
    send(folder, upload)
    assert service.publish(upload.id).base == "tiny"


def test_files_in_folders_of_their_own_are_placed_there(service: Service, folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "notes.md").write_text("notes")
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    send(folder, upload)
    with pytest.raises(Exception, match=r"sub|part of an adapter"):
        service.publish(upload.id)


def test_two_files_of_one_content_are_one_blob(service: Service, folder: Path) -> None:
    (folder / "README.md").write_text("the same")
    (folder / "LICENSE").write_text("the same")
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    assert len(upload.missing) == 3
    send(folder, upload)
    assert service.publish(upload.id).number == 1


def test_every_published_version_is_whole_while_many_push(service: Service, tmp_path: Path) -> None:
    """Several writers, overlapping contents and numbers: each result is read back and hashed."""
    folders = [write_adapter(tmp_path / f"f{seed}", seed=seed) for seed in range(4)]
    start = Barrier(4)
    problems: list[BaseException] = []

    def work(index: int) -> None:
        start.wait()
        try:
            for step in range(4):
                push(service, folders[(index + step) % 4])
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            problems.append(error)

    threads = [Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    versions = service.show(NAME).versions
    assert [version.number for version in versions] == [4, 3, 2, 1]
    for folder in folders:
        for entry in manifest_of(folder).files:
            assert digests.of_bytes(b"".join(service.store.read(entry.digest))) == entry.digest


def test_a_missing_blob_leaves_the_upload_open(service: Service, folder: Path) -> None:
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    with pytest.raises(ConflictError, match=r"adapter_config\.json, adapter_model\.safetensors"):
        service.publish(upload.id)
    assert _state(service.engine, upload.id) == "open"
