"""A registry as rows meet it: in the command's own process, or over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rankloom.registry.embedded import open_registry
from rankloom.registry.http import HttpRegistry
from rankloom_server.settings import Settings
from rankloom_server.store.interface import blob_key
from servers import served

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rankloom.registry.protocol import Registry
    from rankloom.registry.wire import Version

EMBEDDED, HTTP = "embedded", "http"


@dataclass(frozen=True)
class Door:
    """A registry.

    Attributes:
        kind: :data:`EMBEDDED` or :data:`HTTP`.
        registry: the registry, as its administrator.
        data_dir: where it keeps everything.
        env: by which a command finds it.
    """

    kind: str
    registry: Registry
    data_dir: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def stored(self, version: Version, path: str) -> Path:
        """Return where the bytes of one file of a version lie."""
        url = self.registry.blob_url(version.adapter, version.digest, path)
        digest = f"sha256:{urlsplit(url).path.rpartition('/')[2]}"
        return self.data_dir / blob_key(version.namespace, digest)


@contextlib.contextmanager
def opened(kind: str, place: Path) -> Iterator[Door]:
    """Open a fresh registry, of which ``place`` is the working directory of commands."""
    if kind == EMBEDDED:
        data_dir = place / "home/registry"
        registry = open_registry(data_dir)
        yield Door(kind, registry, data_dir)
        registry.close()
        return
    data_dir = place / "server"
    with served(Settings(data_dir=data_dir)) as (url, token):
        client = HttpRegistry(url, token)
        yield Door(kind, client, data_dir, {"RANKLOOM_URL": url, "RANKLOOM_TOKEN": token})
        client.close()


class Liar(ThreadingHTTPServer):
    """What stands between a client and a registry over HTTP, and lies about ranges of blobs."""

    daemon_threads = True

    def __init__(self, url: str, lie: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(url).netloc
        self.lie = lie


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Liar

    def do_GET(self) -> None:
        there = http.client.HTTPConnection(self.server.target)
        there.request("GET", self.path, headers=dict(self.headers))
        answer = there.getresponse()
        body, given = answer.read(), answer.getheader("Content-Range", "")
        there.close()
        if given:
            given, body = _false(self.server.lie, given, body)
        self.send_response(answer.status)
        self.send_header("Content-Range", given)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # whoever sees the lie may hang up
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _false(lie: str, given: str, body: bytes) -> tuple[str, bytes]:
    """Return another ``Content-Range`` or body than the true ones."""
    match lie:
        case "another range":
            return given.replace("bytes ", "bytes 1", 1), body
        case "another size":
            return f"{given.partition('/')[0]}/99999999", body
        case "bytes of another range":
            return given, body[1:] + body[:1]
    raise AssertionError(lie)


@contextlib.contextmanager
def lying(url: str, lie: str) -> Iterator[str]:
    """Run a liar before a registry; give its address."""
    liar = Liar(url, lie)
    thread = threading.Thread(target=liar.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{liar.server_port}"
    finally:
        liar.shutdown()
        liar.server_close()
        thread.join()
