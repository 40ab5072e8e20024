"""A TCP proxy that counts the bytes of requests and takes its time, so that one can be killed."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator


class CountingProxy(socketserver.ThreadingTCPServer):
    """Forwards to ``target``; ``sent`` is how many bytes clients have sent through it."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.target = target
        self.pause = 0.0
        self.sent = 0
        self.counting = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Connection(socketserver.BaseRequestHandler):
    server: CountingProxy

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as onwards:
            back = threading.Thread(target=_pump, args=(onwards, self.request), daemon=True)
            back.start()
            for data in _read(self.request):
                with self.server.counting:
                    self.server.sent += len(data)
                time.sleep(self.server.pause)
                with contextlib.suppress(OSError):
                    onwards.sendall(data)
            with contextlib.suppress(OSError):
                onwards.shutdown(socket.SHUT_RDWR)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        for data in _read(source):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _read(source: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            yield data


@contextlib.contextmanager
def counting(target: tuple[str, int]) -> Iterator[CountingProxy]:
    """Run a proxy until the block ends."""
    with CountingProxy(target) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
