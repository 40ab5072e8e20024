"""Large blobs through the whole registry: killed, swapped, given up, pushed by two at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from adapter_folder import manifest_of, push
from counting_proxy import CountingProxy, counting
from rankloom import digest as digests
from rankloom.errors import NotFoundError, RefError, UploadCorruptError
from rankloom.ref import AdapterName
from rankloom.registry import sending
from rankloom.registry.connection import Span
from rankloom.registry.http import HttpRegistry
from rankloom.registry.tally import Tally
from rankloom.registry.wire import PartsRequest, PartTarget, Upload, UploadRequest
from rankloom_server import db, fsck
from rankloom_server.access import LOCAL, Actor, Grant
from rankloom_server.collect import Collector
from rankloom_server.models import UPLOAD
from rankloom_server.service import Service, open_embedded
from rankloom_server.settings import Settings
from rankloom_server.store.interface import PARTING
from rankloom_server.store.local import LocalStore
from rankloom_server.wiring import open_service
from servers import S3Server, served

NAME = AdapterName("default", "zh-lang")
WEIGHTS = "adapter_model.safetensors"
PART = PARTING.size
MOST_LOST = 16 << 20
OVERHEAD = 1 << 20  # heads of requests and messages to the registry


@pytest.fixture
def folder(large_adapter: Path) -> Path:
    return large_adapter


@pytest.fixture
def weights(folder: Path) -> bytes:
    return (folder / WEIGHTS).read_bytes()


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    made = open_service(settings)
    yield made
    made.close()


@pytest.fixture
def registry(settings: Settings) -> Iterator[HttpRegistry]:
    with served(settings) as (url, token):
        made = HttpRegistry(url, token)
        yield made
        made.close()


def part_digests(data: bytes) -> tuple[str, ...]:
    return tuple(digests.of_bytes(data[at : at + PART]) for at in range(0, len(data), PART))


def begin(registry: HttpRegistry, folder: Path) -> tuple[Upload, str]:
    """Open an upload and send what goes whole; return it and the large blob's digest."""
    upload = registry.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    for target in upload.missing:
        source = folder / "adapter_config.json"
        assert sending.put(source, source.stat().st_size, target) is None
    (large,) = upload.large
    assert large.part_bytes == PART
    return upload, large.digest


def put(source: Path, part: PartTarget) -> bool:
    at, size = (part.number - 1) * PART, source.stat().st_size
    span = Span(at, min(PART, size - at))
    return sending.put_part(source, span, part, Tally(size, None)) is None


def test_an_embedded_registry_takes_every_blob_whole(folder: Path, tmp_path: Path) -> None:
    service = open_embedded(tmp_path / "data")
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    assert upload.large == ()
    assert push(service, folder).number == 1
    service.close()


def test_a_large_adapter_comes_in_parts_and_out_whole(
    registry: HttpRegistry, service: Service, folder: Path
) -> None:
    assert push(registry, folder).number == 1
    assert fsck.check(service.engine, service.store, rehash=True).rehashed == 2
    assert list(service.store.assemblies()) == []
    upload = registry.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    assert (upload.missing, upload.large) == ((), ())


def test_parts_in_another_order_are_never_published(
    registry: HttpRegistry, folder: Path, weights: bytes, tmp_path: Path
) -> None:
    source = tmp_path / WEIGHTS
    source.write_bytes(weights[PART : 2 * PART] + weights[:PART] + weights[2 * PART :])
    swapped = PartsRequest(parts=part_digests(source.read_bytes()))
    upload, large = begin(registry, folder)
    for part in registry.assemble(upload.id, large, swapped).missing:
        assert put(source, part)

    def finish() -> None:
        # A folder hashes what it puts together; what a bucket has, publishing reads.
        registry.assemble(upload.id, large, swapped)
        registry.publish(upload.id)

    with pytest.raises(UploadCorruptError, match="REG001"):
        finish()
    with pytest.raises(NotFoundError):
        registry.show(NAME)
    assert push(registry, folder).number == 1, "the next push brings the right bytes"


def test_publishing_before_all_parts_are_there_is_refused_and_changes_nothing(
    registry: HttpRegistry, folder: Path, weights: bytes
) -> None:
    upload, large = begin(registry, folder)
    request = PartsRequest(parts=part_digests(weights))
    first, *_ = registry.assemble(upload.id, large, request).missing
    assert put(folder / WEIGHTS, first)
    with pytest.raises(Exception, match=rf"{WEIGHTS} did not arrive"):
        registry.publish(upload.id)
    assert len(registry.assemble(upload.id, large, request).missing) == len(request.parts) - 1
    assert push(registry, folder).number == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda upload, large, parts: (upload[::-1], large, parts), NotFoundError),
        (lambda upload, large, parts: (upload, digests.of_bytes(b""), parts), NotFoundError),
        (lambda upload, large, parts: (upload, "sha256:..", parts), RefError),
        (lambda upload, large, parts: (upload, large, parts[1:]), RefError),
        (lambda upload, large, parts: (upload, large, (*parts, parts[0])), RefError),
    ],
    ids=["another upload", "another blob", "no blob", "too few", "too many"],
)
def test_what_was_not_declared_is_refused(
    registry: HttpRegistry,
    folder: Path,
    weights: bytes,
    change: Callable[..., tuple[str, str, tuple[str, ...]]],
    error: type[Exception],
) -> None:
    upload, large = begin(registry, folder)
    upload_id, digest, parts = change(upload.id, large, part_digests(weights))
    with pytest.raises(error):
        registry.assemble(upload_id, digest, PartsRequest(parts=parts))


def test_only_who_may_push_goes_on_with_an_upload(
    service: Service, folder: Path, weights: bytes
) -> None:
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    large = upload.large[0].digest
    stranger = service.for_actor(Actor("other", frozenset([Grant.parse("push:other")])))
    with pytest.raises(NotFoundError, match="no upload"):
        stranger.assemble(upload.id, large, PartsRequest(parts=part_digests(weights)))
    small = manifest_of(folder).files[0].digest
    with pytest.raises(RefError, match="sent whole"):
        service.assemble(upload.id, small, PartsRequest(parts=(small,)))


def test_parts_are_collected_when_the_lease_is_over(
    service: Service, folder: Path, weights: bytes
) -> None:
    request = PartsRequest(parts=part_digests(weights))
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    (large,) = upload.large
    missing = service.assemble(upload.id, large.digest, request).missing
    if isinstance(service.store, LocalStore):  # nobody serves its URLs here
        service.store.put_part(large.digest, request.parts[0], PART, [weights[:PART]])
    else:
        assert put(folder / WEIGHTS, missing[0])

    def abandoned(days: int) -> int:
        clock = lambda: datetime.now(UTC) + timedelta(days=days)  # noqa: E731
        return Collector(service.engine, service.store, LOCAL, clock=clock).run().abandoned

    def lease_until(days: float) -> None:
        with db.write(service.engine) as connection:
            when = datetime.now(UTC) + timedelta(days=days)
            connection.execute(sa.update(UPLOAD).values(lease_until=when))

    lease_until(-0.5)
    assert abandoned(0) == 0, "its last part is young"
    lease_until(20)
    assert abandoned(10) == 0, "somebody goes on with it"
    assert len(service.assemble(upload.id, large.digest, request).missing) == len(missing) - 1
    assert abandoned(30) == 1
    assert abandoned(31) == 0
    assert list(service.store.assemblies()) == []


def test_two_pushers_of_one_large_blob_end_in_one_version(
    settings: Settings, service: Service, folder: Path
) -> None:
    start = threading.Barrier(2)
    found: list[object] = []

    def work(url: str, token: str) -> None:
        registry = HttpRegistry(url, token)
        start.wait()
        try:
            found.append(push(registry, folder))
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            found.append(error)
        registry.close()

    with served(settings) as at:
        threads = [threading.Thread(target=work, args=at) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found[0] == found[1]
    assert fsck.check(service.engine, service.store, rehash=True).sound


@pytest.mark.services
def test_on_s3_parts_do_not_pass_the_api(seaweedfs: S3Server, folder: Path, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", **seaweedfs.settings())
    with served(settings) as (url, token):
        place = urlsplit(url)
        with counting((place.hostname or "", place.port or 0)) as proxy:
            registry = HttpRegistry(proxy.url, token)
            assert push(registry, folder).number == 1
            registry.close()
            assert 0 < proxy.sent < 20_000, "messages only"


_PUSH = """
import sys
from pathlib import Path
from adapter_folder import push
from rankloom.registry.http import HttpRegistry
registry = HttpRegistry(sys.argv[1], sys.argv[2])
print(push(registry, Path(sys.argv[3])).number)
"""


def test_a_killed_push_costs_at_most_sixteen_mebibytes(
    settings: Settings, service: Service, folder: Path
) -> None:
    store = service.store
    with served(settings) as (url, token):
        aim = settings.s3_endpoint or url
        place = urlsplit(aim)
        with counting((place.hostname or "", place.port or 0)) as proxy:
            if settings.s3_endpoint:
                changed = settings.model_copy(update={"s3_public_endpoint": proxy.url})
                with served(changed) as (through, first):
                    assert first == "", "it is the same registry"
                    _kill_and_push_again(through, token, folder, proxy)
            else:
                _kill_and_push_again(proxy.url, token, folder, proxy)
            lost = proxy.sent - sum(file.stat().st_size for file in folder.iterdir())
    assert 0 <= lost <= MOST_LOST + OVERHEAD
    assert list(store.assemblies()) == []
    assert fsck.check(service.engine, store, rehash=True).sound


def _kill_and_push_again(url: str, token: str, folder: Path, proxy: CountingProxy) -> None:
    half = sum(file.stat().st_size for file in folder.iterdir()) // 2
    command = [sys.executable, "-c", _PUSH, url, token, str(folder)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    proxy.pause = 0.002
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as running:
        end = time.monotonic() + 60
        while proxy.sent < half:
            assert running.poll() is None
            assert time.monotonic() < end
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        running.communicate()
    proxy.pause = 0.0
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
