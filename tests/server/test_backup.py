"""Backup and restore, between all kinds of database and store, and while others push."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from adapter_folder import base_record, fingerprint, push, write_adapter
from rankloom import digest as digests
from rankloom.errors import ConflictError, NotFoundError, UploadCorruptError
from rankloom.ref import AdapterName
from rankloom.registry.wire import AliasRequest, NamespaceRules, TokenRequest
from rankloom_server import auth, backup, db, fsck
from rankloom_server.service import Service, open_embedded
from rankloom_server.settings import Settings
from rankloom_server.store.local import LocalStore
from rankloom_server.wiring import open_service

NAME = AdapterName("default", "zh-lang")


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


def rows(engine: sa.Engine) -> dict[str, list[tuple[object, ...]]]:
    found = {}
    with db.read(engine) as connection:
        for table in SQLModel.metadata.sorted_tables:
            content = connection.execute(sa.select(table)).all()
            found[table.name] = sorted(map(tuple, content), key=repr)
    return found


def opened(folder: Path) -> Service:
    return open_embedded(folder)


def fill(service: Service, folders: list[Path]) -> str:
    service.add_base(base_record())
    version = push(service, folders[0], base="tiny", made_for=fingerprint(), card="Ä")
    push(service, folders[1], "acme/other")
    service.set_alias(NAME, "prod", AliasRequest(digest=version.digest))
    service.set_namespace_rules("acme", NamespaceRules(keep_versions=3))
    return service.create_token(TokenRequest(name="ci", grants=("read:acme",))).token


def test_a_backup_is_the_same_registry(
    service: Service, folders: list[Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    token = fill(service, folders)
    folder = tmp_path / "backup"
    copied = backup.backup(service.engine, service.store, folder)
    assert (copied.blobs, copied.sent) == (4, 4)  # two namespaces share no blob
    saved = opened(folder)
    assert rows(saved.engine) == rows(service.engine)
    assert fsck.check(saved.engine, saved.store, rehash=True).sound
    assert saved.show(NAME) == service.show(NAME)
    assert auth.identify(saved.engine, token).name == "ci"
    saved.close()
    # And back: into an empty registry of the same kind, where new rows are numbered on.
    again = request.getfixturevalue("empty")
    backup.restore(folder, again.engine, again.store)
    assert fsck.check(again.engine, again.store, rehash=True).sound
    with pytest.raises(ConflictError, match="not empty"):
        backup.restore(folder, again.engine, again.store)
    assert again.show(NAME) == service.show(NAME)
    assert push(again, folders[2]).number == 2
    again.set_namespace_rules("new", NamespaceRules())
    again.create_token(TokenRequest(name="more", grants=("read",)))


@pytest.fixture
def empty(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[Service]:
    if settings.database_url is None:
        made = opened(tmp_path / "again")
    else:
        changed = {"database_url": request.getfixturevalue("postgres").new_database()}
        changed |= request.getfixturevalue("seaweedfs").settings()
        made = open_service(Settings(data_dir=tmp_path / "again", **changed))
    yield made
    made.close()


def test_a_second_backup_copies_only_what_is_new(
    service: Service, folders: list[Path], tmp_path: Path
) -> None:
    push(service, folders[0])
    backup.backup(service.engine, service.store, tmp_path / "backup")
    push(service, folders[1])
    copied = backup.backup(service.engine, service.store, tmp_path / "backup")
    assert (copied.blobs, copied.sent) == (3, 1)
    saved = opened(tmp_path / "backup")
    assert saved.show(NAME) == service.show(NAME)
    saved.close()


def test_a_backup_while_others_push_is_one_moment(service: Service, tmp_path: Path) -> None:
    folders = [write_adapter(tmp_path / f"f{seed}", seed=seed) for seed in range(12)]
    push(service, folders[0])
    ended = threading.Event()

    def pushing() -> None:
        before = None
        for folder in folders[1:]:
            after = push(service, folder).digest
            service.set_alias(NAME, "prod", AliasRequest(digest=after, expected=before))
            before = after
        ended.set()

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(pushing)
        count = 0
        while not ended.is_set() or count == 0:
            count += 1
            backup.backup(service.engine, service.store, tmp_path / f"b{count}")
        assert work.exception() is None
    for index in range(1, count + 1):
        saved = opened(tmp_path / f"b{index}")
        assert fsck.check(saved.engine, saved.store, rehash=True).sound
        versions = saved.show(NAME).versions
        assert [item.number for item in versions] == list(range(len(versions), 0, -1))
        saved.close()


def test_a_damaged_blob_stops_a_backup_and_the_older_one_stays(
    folders: list[Path], tmp_path: Path
) -> None:
    service = opened(tmp_path / "data")
    push(service, folders[0])
    backup.backup(service.engine, service.store, tmp_path / "backup")
    push(service, folders[1])
    assert isinstance(service.store, LocalStore)
    path = service.store.path(digests.of_file(folders[1] / "adapter_model.safetensors"))
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(UploadCorruptError):
        backup.backup(service.engine, service.store, tmp_path / "backup")
    service.close()
    saved = opened(tmp_path / "backup")
    assert [version.number for version in saved.show(NAME).versions] == [1]
    assert fsck.check(saved.engine, saved.store, rehash=True).sound
    saved.close()


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    service = opened(tmp_path / "data")
    with pytest.raises(NotFoundError, match="no backup"):
        backup.restore(tmp_path, service.engine, service.store)
    service.close()
