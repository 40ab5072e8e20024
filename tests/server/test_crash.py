"""The server is killed at each step of a push; the next attempt ends in the same version.

The steps are those of docs/registry.md: 1 the journal, 2 the bytes, 3 verification, 4 the
transaction that names the version, 5 the answer.
"""

import os
import signal
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from adapter_folder import manifest_of, push, write_adapter
from rankloom.errors import ConflictError, NotFoundError, RegistryError
from rankloom.ref import AdapterName
from rankloom.registry.http import HttpRegistry
from rankloom.registry.wire import PutTarget, UploadRequest
from rankloom_server import fsck
from rankloom_server.collect import Collector
from rankloom_server.settings import Settings
from rankloom_server.wiring import open_service
from servers import answers, free_ports, process, served

NAME = AdapterName("default", "zh-lang")

# Where the power goes out: after this function has done its work, but before its caller goes on.
POINTS = {
    "1 in the journal's transaction": "publish.journal:_add_blobs",
    "1 before the journal is answered": "service:Service.open_upload",
    "3 while blobs are read": "publish.materialise:_place",
    "3 after the verification": "publish.facts:examine",
    "4 in the transaction": "publish.publish:_write_files",
    "5 before the answer": "service:Service.publish",
}
# The same for blobs in parts; on S3 the bytes do not come through this server.
POINTS_OF_PARTS = {
    "2 before the missing parts are named": ("service:Service.assemble",) * 2,
    "2 while the first part comes": (
        "store.local:LocalStore.put_part",
        "store.multipart:Multipart._begin",
    ),
    "2 when the blob is put together": (
        "store.local:LocalStore._join",
        "store.multipart:Multipart._complete",
    ),
}
_SENT = "store.local:LocalStore.put"  # only a folder's bytes come through this server

_SERVER = """
import functools, importlib, os, signal, sys
module, _, path = sys.argv[1].partition(":")
owner = importlib.import_module("rankloom_server." + module)
*classes, name = path.split(".")
for part in classes:
    owner = getattr(owner, part)
real = getattr(owner, name)

@functools.wraps(real)
def last(*arguments, **options):
    real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, last)
from rankloom_server import auth
from rankloom_server.__main__ import main
main(["serve"])
"""


def _environment(settings: Settings, port: int) -> dict[str, str]:
    given = {"data_dir": str(settings.data_dir), "port": str(port)}
    for name in ("database_url", "store", "s3_endpoint", "s3_access_key"):
        if (value := getattr(settings, name)) is not None:
            given[name] = value
    if settings.s3_secret_key:
        given["s3_secret_key"] = settings.s3_secret_key.get_secret_value()
    return {f"RANKLOOM_SERVER_{name.upper()}": value for name, value in given.items()}


def _push_until_killed(settings: Settings, point: str, folder: Path) -> str:
    """Push to a server that kills itself at a point; return its admin token."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    settings.data_dir.mkdir()
    log = settings.data_dir / "server.log"
    command = [sys.executable, "-c", _SERVER, point]
    env = {**os.environ, **_environment(settings, port)}
    with process(command, log, lambda: answers(f"{url}/healthz"), env=env) as running:
        token = log.read_text().partition("(shown once): ")[2].split("\n", maxsplit=1)[0]
        registry = HttpRegistry(url, token)
        with pytest.raises(RegistryError, match="cannot be reached"):
            push(registry, folder)
        registry.close()
        assert running.wait(10) == -signal.SIGKILL
    return token


@pytest.mark.parametrize("point", POINTS)
def test_after_a_crash_the_next_push_ends_in_the_same_version(
    settings: Settings, point: str, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "adapter")
    _crash_and_push_again(settings, POINTS[point], folder, published=point[0] == "5")


def test_after_a_crash_at_step_2_the_next_push_ends_in_the_same_version(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    _crash_and_push_again(settings, _SENT, write_adapter(tmp_path / "adapter"), published=False)


@pytest.mark.parametrize("point", POINTS_OF_PARTS)
def test_after_a_crash_between_parts_the_next_push_ends_in_the_same_version(
    settings: Settings, point: str, large_adapter: Path
) -> None:
    chosen = POINTS_OF_PARTS[point][settings.store != "local"]
    _crash_and_push_again(settings, chosen, large_adapter, published=False)


def _crash_and_push_again(settings: Settings, point: str, folder: Path, *, published: bool) -> None:
    token = _push_until_killed(settings, point, folder)
    with served(settings) as (url, first):
        assert first == "", "the token that was shown is kept"
        registry = HttpRegistry(url, token)
        try:
            before = registry.show(NAME).versions
        except NotFoundError:
            before = ()
        assert bool(before) == published, "there is a version only when all is done"
        version = push(registry, folder)
        assert registry.show(NAME).versions == (version,)
        lines = registry.audit_log(namespace="default").items
        registry.close()
    assert (version.number, version.digest) == (1, manifest_of(folder).digest)
    assert before in {(), (version,)}
    assert [line.action for line in lines] == ["version.publish"]
    service = open_service(settings)
    checked = fsck.check(service.engine, service.store, rehash=True)
    assert checked.sound
    assert (checked.rehashed, checked.unknown) == (2, [])
    assert list(service.store.assemblies()) == []
    assert Collector(service.engine, service.store, service.actor).run().deleted == []
    service.close()


def test_a_client_that_breaks_off_leaves_nothing_half(settings: Settings, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter")
    with served(settings) as (url, token):
        registry = HttpRegistry(url, token)
        request = UploadRequest(manifest=manifest_of(folder))
        sizes = {entry.digest: entry.size for entry in request.manifest.files}
        for target in registry.open_upload(NAME, request).missing:
            _send_half(target, sizes[target.digest])
        with pytest.raises(ConflictError, match="did not arrive"):
            registry.publish(registry.open_upload(NAME, request).id)
        assert push(registry, folder).number == 1
        registry.close()
    service = open_service(settings)
    assert fsck.check(service.engine, service.store, rehash=True).sound
    service.close()


def _send_half(target: PutTarget, size: int) -> None:
    place = urlsplit(target.url)
    headers = {"host": place.netloc, **target.headers, "content-length": str(size)}
    lines = [f"PUT {place.path}?{place.query} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection((place.hostname or "", place.port or 0)) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + bytes(size // 2))
