"""Publishes that mean ill, over HTTP on both kinds of server: each is refused with its error."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import urllib3

from adapter_folder import manifest_of, push, send, write_adapter
from rankloom import digest as digests
from rankloom.errors import AdapterError, ConflictError, RankloomError, RefError
from rankloom.ref import AdapterName
from rankloom.registry.http import HttpRegistry
from rankloom.registry.wire import PutTarget, Upload, UploadRequest
from rankloom_server import middleware
from rankloom_server.settings import Settings
from servers import served

NAME = AdapterName("default", "zh-lang")


@dataclass
class World:
    """A served registry, its client, its admin token."""

    url: str
    token: str
    registry: HttpRegistry

    def post(self, path: str, content: bytes, **headers: str) -> httpx.Response:
        given = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        url = f"{self.url}/api/v1{path}"
        return httpx.post(url, content=content, headers={**given, **headers}, timeout=20)


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    with served(settings) as (url, token):
        registry = HttpRegistry(url, token)
        yield World(url, token, registry)
        registry.close()


@pytest.fixture(
    scope="module", params=["local", pytest.param("production", marks=pytest.mark.services)]
)
def standing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """One registry for all tests that only ask for what cannot be."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("standing"))
    if request.param == "production":
        changed = {"database_url": request.getfixturevalue("postgres").new_database()}
        changed |= request.getfixturevalue("seaweedfs").settings()
        settings = Settings(data_dir=settings.data_dir, **changed)
    with served(settings) as (url, token):
        registry = HttpRegistry(url, token)
        yield World(url, token, registry)
        registry.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


def put(target: PutTarget, data: bytes, **headers: str) -> int:
    sent = {**target.headers, "content-length": str(len(data)), **headers}
    return urllib3.request("PUT", target.url, body=data, headers=sent, retries=False).status


def opened(world: World, folder: Path) -> tuple[Upload, dict[str, bytes]]:
    """Begin a push; give also what should be sent, by digest."""
    request = UploadRequest(manifest=manifest_of(folder))
    files = {e.digest: (folder / e.path).read_bytes() for e in request.manifest.files}
    return world.registry.open_upload(NAME, request), files


def assert_nothing_published(world: World, upload: Upload) -> None:
    with pytest.raises(ConflictError, match="did not arrive"):
        world.registry.publish(upload.id)
    assert world.registry.list_adapters().items == ()


# --- bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["wrong", "truncated", "longer", "empty", "reordered"])
def test_other_bytes_than_declared_do_not_enter_the_store(
    world: World, folder: Path, damage: str
) -> None:
    upload, files = opened(world, folder)
    for target in upload.missing:
        data = files[target.digest]
        half = len(data) // 2
        bad = {
            "wrong": data[:-1] + bytes([data[-1] ^ 1]),  # the checksum in the header looks right
            "truncated": data[:-1],
            "longer": data + b"\0",
            "empty": b"",
            "reordered": data[half:] + data[:half],
        }[damage]
        assert 400 <= put(target, bad) < 500
    assert_nothing_published(world, upload)
    send(folder, upload)
    assert world.registry.publish(upload.id).number == 1


def test_swapped_blobs_do_not_enter_the_store(world: World, folder: Path) -> None:
    upload, files = opened(world, folder)
    one, other = upload.missing
    assert 400 <= put(one, files[other.digest]) < 500
    assert 400 <= put(other, files[one.digest]) < 500
    assert_nothing_published(world, upload)


def test_a_url_of_one_blob_takes_no_other(world: World, folder: Path) -> None:
    upload, files = opened(world, folder)
    one, other = upload.missing
    path, query = urlsplit(other.url).path, urlsplit(one.url).query
    crossed = one.model_copy(
        update={"url": urlsplit(one.url)._replace(path=path, query=query).geturl()}
    )
    assert put(crossed, files[other.digest], **other.headers) in {400, 403, 422}
    assert_nothing_published(world, upload)


def test_a_url_of_another_registry_is_refused(world: World, folder: Path, tmp_path: Path) -> None:
    upload, files = opened(world, folder)
    foreign = Settings(data_dir=tmp_path / "foreign")
    with served(foreign) as (url, token):
        stranger = HttpRegistry(url, token)
        theirs = stranger.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
        stranger.close()
    here = urlsplit(upload.missing[0].url)
    for target in theirs.missing:
        moved = urlsplit(target.url)._replace(netloc=here.netloc).geturl()
        assert 400 <= put(target.model_copy(update={"url": moved}), files[target.digest]) < 500
    assert_nothing_published(world, upload)


def test_one_slow_byte_after_another_holds_nobody_up(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty uploads that stall: more than there are threads for requests."""
    monkeypatch.setattr(middleware, "IDLE_SECONDS", 1.5)
    with contextlib.ExitStack() as stack:
        url, token = stack.enter_context(served(Settings(data_dir=tmp_path / "data")))
        registry = HttpRegistry(url, token)
        stack.callback(registry.close)
        upload = registry.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
        place = urlsplit(upload.missing[-1].url)
        size = upload.missing[-1].headers["content-length"]
        head = (
            f"PUT {place.path}?{place.query} HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"
        )
        stalled = []
        for _ in range(50):
            where = (place.hostname or "", place.port or 0)
            connection = stack.enter_context(socket.create_connection(where))
            connection.sendall(head.encode() + b"{")
            connection.settimeout(10)
            stalled.append(connection)
        started = time.monotonic()
        assert registry.list_adapters().items == ()
        # With the slow ones in its way it would take as long as they may pause.
        assert time.monotonic() - started < 1.4
        assert stalled[0].recv(100).startswith(b"HTTP/1.1 422")
        # A message that stalls is given up too.
        request = "POST /api/v1/bases HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"
        stalled[0].close()
        with socket.create_connection((place.hostname or "", place.port or 0)) as slow:
            slow.settimeout(10)
            slow.sendall(request.encode())
            assert slow.recv(100).startswith(b"HTTP/1.1 408")


# --- names -------------------------------------------------------------------------------------

PATHS = [
    "../adapter_config.json",
    "/etc/passwd",
    "a/../../b",
    "./adapter_config.json",
    "a//b",
    "..\\adapter_config.json",
    "C:\\x",
    "adapter_config.json\0.png",
    "adapter_config.json\u202egnp",  # shown from right to left
    "adapter\u200b_config.json",  # a space of no width
    "a\nb",
    "",
    ".",
    "x" * 256,
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_lead_elsewhere_are_refused(standing: World, path: str) -> None:
    file = {"path": path, "size": 1, "digest": digests.of_bytes(b"1")}
    body = json.dumps({"manifest": {"schema": 1, "files": [file]}}).encode()
    answered = standing.post("/adapters/default/x/uploads", body)
    assert answered.status_code == 422
    assert answered.json()["code"] == "invalid-request"


@pytest.mark.parametrize(
    "path", ["adapter_c\u043enfig.json", "\uff41dapter_config.json", "ADAPTER_CONFIG.JSON"]
)
def test_names_that_only_look_alike_are_no_part_of_an_adapter(
    world: World, folder: Path, path: str
) -> None:
    (folder / path).write_bytes(b"{}")
    with pytest.raises((AdapterError, RefError)):
        push(world.registry, folder)
    assert world.registry.list_adapters().items == ()


@pytest.mark.parametrize(
    "name", ["a\u0441me", "\uff41cme", "acme%00", "..", "%2e%2e%2fx", "a\u0660", "nul", "-a", "a-"]
)
def test_names_that_only_look_alike_are_refused(standing: World, folder: Path, name: str) -> None:
    body = UploadRequest(manifest=manifest_of(folder)).model_dump_json(by_alias=True).encode()
    for path in (f"/adapters/{name}/x/uploads", f"/adapters/default/{name}/uploads"):
        assert standing.post(path, body).status_code in {404, 405, 422}


@pytest.mark.parametrize("upload_id", ["%00", "a" * 5000, "../x", "%F0%9F%92%A9", "*"])
def test_uploads_that_cannot_be_are_not_found(standing: World, upload_id: str) -> None:
    assert standing.post(f"/uploads/{upload_id}/publish", b"").status_code in {404, 422}


@pytest.mark.parametrize("query", ["%00", "%ff", "'; DROP TABLE adapter; --", "%", "\\"])
def test_a_search_is_text_and_nothing_else(standing: World, folder: Path, query: str) -> None:
    push(standing.registry, folder, "searched/x")
    given = {"Authorization": f"Bearer {standing.token}"}
    url = f"{standing.url}/api/v1/adapters?query={query}"
    assert httpx.get(url, headers=given).status_code in {200, 422}
    assert len(standing.registry.list_adapters(namespace="searched").items) == 1


# --- repetitions -------------------------------------------------------------------------------


def test_a_replayed_publish_changes_nothing(world: World, folder: Path, tmp_path: Path) -> None:
    request = UploadRequest(manifest=manifest_of(folder), card="old")
    upload = world.registry.open_upload(NAME, request)
    send(folder, upload)
    first = world.registry.publish(upload.id)
    push(world.registry, write_adapter(tmp_path / "b", seed=1), card="new")
    before = (world.registry.show(NAME), world.registry.audit_log())
    assert world.registry.publish(upload.id) == first
    assert (world.registry.show(NAME), world.registry.audit_log()) == before
    assert before[0].card == "new"


def test_of_many_pushes_of_one_content_exactly_one_makes_the_version(
    world: World, folder: Path
) -> None:
    upload, _ = opened(world, folder)
    send(folder, upload)
    start = threading.Barrier(8)
    found: list[object] = []

    def publish() -> None:
        client = HttpRegistry(world.url, world.token)
        start.wait()
        try:
            found.append(client.publish(upload.id))
        except RankloomError as error:
            found.append(error)
        client.close()

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(item == found[0] for item in found), found
    published = [line for line in world.registry.audit_log().items if line.action[:8] == "version."]
    assert len(published) == 1


def test_a_body_without_a_length_is_limited_too(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * (1 << 20)

    given = {"Authorization": f"Bearer {world.token}", "Content-Type": "application/json"}
    with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # it hangs up on us
        answered = httpx.post(
            f"{world.url}/api/v1/bases", content=endless(), headers=given, timeout=30
        )
        assert answered.status_code == 413
    assert world.registry.list_bases() == ()
