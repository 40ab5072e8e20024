"""Transfers that are killed, cut or run out of room go on where they were, or leave nothing."""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rankloom import digest as digests
from rankloom.errors import DiskError, IntegrityError, RegistryError
from rankloom.registry import transfer
from rankloom.registry.tally import Tally

SIZE = (48 << 20) + 12345  # several spans, and a block that is not full
BLOB = os.urandom(SIZE)
DIGEST = digests.of_bytes(BLOB)


class RangeServer:
    """Gives out ranges of one blob, slower or falser as a test wants, and counts its bytes."""

    def __init__(self) -> None:  # noqa: C901 - a handler's methods are inside
        self.sent = 0
        self.blob = BLOB
        self.pause = 0.0
        self.cut_after: int | None = None
        self.refuse = 0
        self.resets = 0
        self.shift = 0
        lock = threading.Lock()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if site.refuse:
                    self.send_response(site.refuse)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
                assert found
                begin, end = int(found[1]), int(found[2]) + 1
                self.send_response(206)
                self.send_header("Content-Length", str(end - begin))
                given = f"{begin + site.shift}-{end - 1 + site.shift}"
                self.send_header("Content-Range", f"bytes {given}/{len(site.blob)}")
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.give(begin, end)

            def give(self, begin: int, end: int) -> None:
                for at in range(begin, end, 1 << 18):
                    with lock:
                        if site.cut_after is not None and site.sent >= site.cut_after:
                            self.close_connection = True
                            self.connection.shutdown(socket.SHUT_RDWR)
                            raise ConnectionResetError
                        if site.resets and at > begin + (4 << 20):
                            site.resets -= 1
                            self.reset()
                    data = site.blob[at : min(at + (1 << 18), end)]
                    self.wfile.write(data)
                    with lock:
                        site.sent += len(data)
                    time.sleep(site.pause)

            def reset(self) -> None:
                """Hang up as a machine does that knows nothing of the connection any more."""
                option = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
                os.close(self.connection.detach())
                self.close_connection = True
                raise ConnectionResetError

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.url = f"http://127.0.0.1:{self.server.server_port}/blob"


@pytest.fixture
def store() -> Iterator[RangeServer]:
    made = RangeServer()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def get(store: RangeServer, target: Path, report: Callable[[int, int], None] | None = None) -> None:
    transfer.get(store.url, target, digest=DIGEST, size=SIZE, tally=Tally(SIZE, report))


def start(store: RangeServer, target: Path) -> subprocess.Popen[bytes]:
    """Fetch the blob in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from rankloom.registry import transfer;"
        "transfer.get(sys.argv[1], Path(sys.argv[2]), digest=sys.argv[3], size=int(sys.argv[4]))"
    )
    command = [sys.executable, "-c", code, store.url, str(target), DIGEST, str(SIZE)]
    return subprocess.Popen(command)


def wait_until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_ranges_make_the_blob_and_are_counted_once(store: RangeServer, tmp_path: Path) -> None:
    counted: list[int] = []
    get(store, tmp_path / "blob", lambda done, _: counted.append(done))
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert [path.name for path in tmp_path.iterdir()] == ["blob"]
    assert counted == sorted(counted)
    assert counted[-1] == SIZE == store.sent


def test_a_killed_process_costs_at_most_sixteen_mebibytes(
    store: RangeServer, tmp_path: Path
) -> None:
    target = tmp_path / "blob"
    store.pause = 0.02
    with start(store, target) as running:
        wait_until(lambda: store.sent > SIZE // 2)
        running.send_signal(signal.SIGKILL)
    assert not target.exists()
    store.pause = 0
    with start(store, target) as running:
        assert running.wait(60) == 0
    assert target.read_bytes() == BLOB
    # What socket buffers held when the process died counts as sent as well.
    assert store.sent - SIZE <= 16 << 20


def test_two_processes_fetch_a_blob_once(store: RangeServer, tmp_path: Path) -> None:
    store.pause = 0.005
    with start(store, tmp_path / "blob") as one, start(store, tmp_path / "blob") as two:
        assert (one.wait(60), two.wait(60)) == (0, 0)
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert store.sent == SIZE
    assert [path.name for path in tmp_path.iterdir()] == ["blob"]


def test_a_network_that_is_gone_is_reported_and_the_rest_is_fetched_later(
    store: RangeServer, tmp_path: Path
) -> None:
    store.cut_after = SIZE // 2
    with pytest.raises(RegistryError, match="cannot be reached"):
        get(store, tmp_path / "blob")
    assert not (tmp_path / "blob").exists()
    store.cut_after = None
    before = store.sent
    get(store, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert store.sent - before < SIZE * 3 // 4


def test_connections_that_are_reset_are_made_again(store: RangeServer, tmp_path: Path) -> None:
    store.resets = 3
    get(store, tmp_path / "blob")
    assert store.resets == 0
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert store.sent < SIZE * 2  # each goes on where it was, and not from the start


def test_another_range_than_was_asked_for_is_refused(store: RangeServer, tmp_path: Path) -> None:
    store.shift = 1
    with pytest.raises(IntegrityError, match="REG002"):
        get(store, tmp_path / "blob")
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_bit_leaves_nothing(store: RangeServer, tmp_path: Path) -> None:
    store.blob = BLOB[:-1] + bytes([BLOB[-1] ^ 1])
    with pytest.raises(IntegrityError, match="REG002"):
        get(store, tmp_path / "blob")
    assert list(tmp_path.iterdir()) == []


def test_a_blob_of_another_size_is_refused(store: RangeServer, tmp_path: Path) -> None:
    store.blob = BLOB + b"x"
    with pytest.raises(IntegrityError, match="REG002"):
        get(store, tmp_path / "blob")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "error"), [(404, IntegrityError), (403, RegistryError)])
def test_a_refusal_leaves_nothing(
    store: RangeServer, tmp_path: Path, status: int, error: type[Exception]
) -> None:
    store.refuse = status
    with pytest.raises(error):
        get(store, tmp_path / "blob")
    assert list(tmp_path.iterdir()) == []


def test_a_lie_in_what_was_kept_is_found(store: RangeServer, tmp_path: Path) -> None:
    store.cut_after = SIZE // 2
    with pytest.raises(RegistryError):
        get(store, tmp_path / "blob")
    (kept,) = (path for path in tmp_path.iterdir() if path.suffix != ".note")
    with kept.open("r+b") as stream:
        stream.write(b"rotten")
    store.cut_after = None
    with pytest.raises(IntegrityError):
        get(store, tmp_path / "blob")
    get(store, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB


def test_a_full_disk_is_said_before_a_byte_is_fetched(
    store: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskError, match="No space left"):
        get(store, tmp_path / "blob")
    assert store.sent == 0
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_on_the_way_keeps_what_it_has(
    store: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, room = os.pwrite, SIZE // 2

    def fill(handle: int, data: bytes, offset: int) -> int:
        nonlocal room
        room -= len(data)
        if room < 0:
            raise OSError(28, "No space left on device")
        return write(handle, data, offset)

    monkeypatch.setattr(os, "pwrite", fill)
    with pytest.raises(DiskError, match="No space left"):
        get(store, tmp_path / "blob")
    room = SIZE
    assert not (tmp_path / "blob").exists()
    before = store.sent
    get(store, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert store.sent - before < SIZE * 3 // 4
