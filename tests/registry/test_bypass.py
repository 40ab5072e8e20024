"""On S3 the weights go between client and store; what passes the API is counted at its socket."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from safetensors.numpy import load_file

from rankloom.client import Client
from rankloom_server.settings import Settings
from servers import S3Server, served


class Tap:
    """Forwards connections to an address and keeps every byte that passes, either way."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.passed: list[bytes] = []
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._target)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.passed.append(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@contextlib.contextmanager
def tapped(url: str) -> Iterator[Tap]:
    place = urlsplit(url)
    tap = Tap((place.hostname or "", place.port or 0))
    try:
        yield tap
    finally:
        tap.close()


@pytest.mark.services
def test_no_weight_byte_passes_the_api(
    seaweedfs: S3Server, adapter: Path, base: Path, tmp_path: Path
) -> None:
    weights = adapter / "adapter_model.safetensors"
    values = [tensor.tobytes() for tensor in load_file(weights).values()]
    settings = Settings(data_dir=tmp_path / "served", **seaweedfs.settings())
    with served(settings) as (url, token), tapped(url) as tap:
        with Client(tap.url, token) as client:
            client.push(adapter, "zh", base=base)
            pulled = client.pull("zh", tmp_path / "copy")
        seen = b"".join(tap.passed)
    assert (pulled / weights.name).read_bytes() == weights.read_bytes()
    assert b"/publish" in seen  # the tap did see the push
    for tensor in values:
        assert all(tensor[at : at + 16] not in seen for at in range(0, len(tensor), 16))
