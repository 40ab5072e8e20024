"""Blobs over real sockets: right bytes arrive, wrong ones leave nothing behind."""

import errno
import hashlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import signing_keys
from rankloom.errors import (
    DiskError,
    IntegrityError,
    NotFoundError,
    RegistryError,
    UploadCorruptError,
)
from rankloom.registry import connection, patience, sending, transfer
from rankloom.registry.connection import Span
from rankloom.registry.tally import Tally
from rankloom.registry.wire import PartTarget, PutTarget

DATA = bytes(range(256)) * 4096
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()

Answer = Callable[[BaseHTTPRequestHandler], None]


def body(
    data: bytes, *, status: int = 200, promised: int | None = None, retry_after: str | None = None
) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        if retry_after is not None:
            handler.send_header("Retry-After", retry_after)
        handler.send_header("Content-Length", str(len(data) if promised is None else promised))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


class Site:
    """An HTTP server that gives the prepared answers, one for each request."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, bytes, dict[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                request = (self.command, self.rfile.read(length), dict(self.headers))
                site.requests.append(request)
                site.answers.pop(0)(self)

            do_GET = do_PUT = handle_one  # noqa: N815 - the names that http.server calls

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/blob"


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def get(url: str, target: Path) -> None:
    transfer.get(url, target, digest=DIGEST, size=len(DATA))


def test_the_right_bytes_arrive_and_are_counted(site: Site, tmp_path: Path) -> None:
    site.answers = [body(DATA)]
    counted: list[int] = []
    transfer.get(
        site.url,
        tmp_path / "blob",
        digest=DIGEST,
        size=len(DATA),
        tally=Tally(len(DATA), lambda done, _: counted.append(done)),
    )
    assert (tmp_path / "blob").read_bytes() == DATA
    assert counted[-1] == len(DATA)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (body(DATA[:-1]), IntegrityError),
        (body(DATA + b"x"), IntegrityError),
        (body(DATA[:-1] + b"x"), IntegrityError),
        (body(b"", status=404), IntegrityError),
        (body(b"", status=403), RegistryError),
        (body(b"", status=302), RegistryError),
    ],
    ids=["short", "long", "changed", "lost", "forbidden", "redirect"],
)
def test_wrong_answers_are_refused_and_leave_nothing(
    site: Site, tmp_path: Path, answer: Answer, error: type[Exception]
) -> None:
    site.answers = [answer]
    with pytest.raises(error):
        get(site.url, tmp_path / "blob")
    assert list(tmp_path.iterdir()) == []


def test_a_cut_connection_is_tried_again(site: Site, tmp_path: Path) -> None:
    site.answers = [body(DATA[:1000], promised=len(DATA)), body(DATA)]
    get(site.url, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == DATA


def test_a_connection_that_is_always_cut_is_reported(site: Site, tmp_path: Path) -> None:
    site.answers = [body(DATA[:1000], promised=len(DATA))] * 5
    with pytest.raises(RegistryError, match="cannot be reached"):
        get(site.url, tmp_path / "blob")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_busy_is_asked_again_and_then_reported(site: Site, tmp_path: Path) -> None:
    busy = [body(b"", status=status, retry_after="0") for status in (503, 429)]
    site.answers = [*busy, body(DATA)]
    get(site.url, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == DATA
    (tmp_path / "blob").unlink()
    site.answers = busy[:1] * 5
    with pytest.raises(RegistryError, match="503"):
        get(site.url, tmp_path / "blob")
    assert (list(tmp_path.iterdir()), site.answers) == ([], [])


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_url_is_asked_for_anew_but_not_for_ever(
    site: Site, tmp_path: Path, status: int
) -> None:
    asked: list[str] = []

    def renew() -> str:
        asked.append(f"{site.url}?{len(asked)}")
        return asked[-1]

    def fetch() -> None:
        target = tmp_path / "blob"
        transfer.get(site.url, target, digest=DIGEST, size=len(DATA), renew=renew)

    site.answers = [body(b"", status=status), body(DATA)]
    fetch()
    assert (tmp_path / "blob").read_bytes() == DATA
    assert len(asked) == 1
    (tmp_path / "blob").unlink()
    site.answers = [body(b"", status=status)] * 2
    with pytest.raises(RegistryError, match=str(status)):
        fetch()
    assert (list(tmp_path.iterdir()), site.answers, len(asked)) == ([], [], 2)


def test_a_store_that_is_not_there_is_reported(site: Site, tmp_path: Path) -> None:
    site.server.server_close()
    with pytest.raises(RegistryError, match="cannot be reached"):
        get(site.url, tmp_path / "blob")
    assert list(tmp_path.iterdir()) == []


def test_a_put_sends_the_signed_headers_and_every_byte(site: Site, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(DATA)
    site.answers = [body(b"", status=200)]
    target = PutTarget(digest=DIGEST, url=site.url, headers={"If-None-Match": "*"})
    sending.put(tmp_path / "blob", len(DATA), target)
    method, sent, headers = site.requests[0]
    assert (method, sent) == ("PUT", DATA)
    assert headers["If-None-Match"] == "*"
    assert headers["Content-Length"] == str(len(DATA))
    assert "Transfer-Encoding" not in headers


def test_a_part_goes_over_tls_as_it_is(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = signing_keys.authority(tmp_path, "store")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    site.server.socket = served.wrap_socket(site.server.socket, server_side=True)
    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.check_hostname = False
    monkeypatch.setattr(connection, "_tls", lambda: trusting)
    (tmp_path / "blob").write_bytes(DATA)
    site.answers = [body(b"")]
    part = PartTarget(number=2, url=site.url.replace("http:", "https:"))
    counted: list[int] = []
    tally = Tally(len(DATA) - 1000, lambda done, _: counted.append(done))
    assert sending.put_part(tmp_path / "blob", Span(1000, len(DATA) - 1000), part, tally) is None
    assert site.requests[0][1] == DATA[1000:]
    assert counted[-1] == len(DATA) - 1000


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (412, None),
        (400, UploadCorruptError),
        (405, RegistryError),
    ],
)
def test_what_a_store_says_to_a_put(
    site: Site, tmp_path: Path, status: int, error: type[Exception] | None
) -> None:
    (tmp_path / "blob").write_bytes(DATA)
    site.answers = [body(b"why", status=status)]
    target = PutTarget(digest=DIGEST, url=site.url)
    if error is None:
        assert sending.put(tmp_path / "blob", len(DATA), target) is None
    else:
        with pytest.raises(error, match="why"):
            sending.put(tmp_path / "blob", len(DATA), target)


EXPIRED = b"<Error><Code>ExpiredToken</Code></Error>"


@pytest.mark.parametrize(("status", "said"), [(401, b""), (403, b""), (404, b""), (400, EXPIRED)])
def test_a_put_says_that_it_needs_a_fresh_url(
    site: Site, tmp_path: Path, status: int, said: bytes
) -> None:
    (tmp_path / "blob").write_bytes(DATA)
    site.answers = [body(said, status=status)]
    refusal = sending.put(tmp_path / "blob", len(DATA), PutTarget(digest=DIGEST, url=site.url))
    assert isinstance(refusal, RegistryError)
    assert f"refused blob: {status}" in str(refusal)


SILENT = b"<Error><Code>RequestTimeout</Code></Error>"
BUSY = [(code, b"SlowDown") for code in (408, 409, 429, 500, 502, 503, 504)] + [(400, SILENT)]


@pytest.fixture
def puts(site: Site, tmp_path: Path) -> dict[str, Callable[[Tally], object]]:
    """Both ways to send: a blob, and all of it but its first bytes as a part."""
    source = tmp_path / "blob"
    source.write_bytes(DATA)
    part, span = PartTarget(number=2, url=site.url), Span(1000, len(DATA) - 1000)
    return {
        "blob": lambda tally: sending.put(
            source, len(DATA), PutTarget(digest=DIGEST, url=site.url), tally
        ),
        "part": lambda tally: sending.put_part(source, span, part, tally),
    }


@pytest.mark.parametrize("kind", ["blob", "part"])
def test_a_put_to_a_busy_store_is_tried_again(
    site: Site, puts: dict[str, Callable[[Tally], object]], kind: str
) -> None:
    put, data = puts[kind], DATA if kind == "blob" else DATA[1000:]
    counted: list[int] = []
    for status, said in BUSY:
        site.requests.clear()
        site.answers = [body(said, status=status, retry_after="0")] * 4 + [body(b"")]
        assert put(Tally(len(data), lambda done, _: counted.append(done))) is None
        assert [sent for _, sent, _ in site.requests] == [data] * 5
        assert counted[-1] == max(counted) == len(data)
    site.answers = [body(b"SlowDown", status=503, retry_after="0")] * 5
    doubt = put(Tally(len(data), lambda done, _: counted.append(done)))
    assert "is busy: it answered 503 SlowDown" in str(doubt)
    assert (counted[-1], site.answers) == (0, [])


def test_what_a_failing_store_kept_is_not_an_error(
    site: Site, puts: dict[str, Callable[[Tally], object]]
) -> None:
    failed = body(b"InternalError", status=500, retry_after="0")
    site.answers = [failed, body(b"", status=412)]
    assert puts["blob"](Tally(len(DATA), None)) is None
    site.answers = [failed, body(b"", status=412)]
    with pytest.raises(RegistryError, match="412"):  # nobody asked for that of a part
        puts["part"](Tally(len(DATA), None))


def test_a_store_is_left_alone_as_long_as_it_asks(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(patience, "sleep", pauses.append)
    asked = ["7", "99999", None, "Wed, 21 Oct 2026 07:28:00 GMT"]
    site.answers = [body(b"", status=503, retry_after=given) for given in asked] + [body(DATA)]
    get(site.url, tmp_path / "blob")
    assert 7 <= pauses[0] < 11
    assert pauses[1] == patience.LONGEST_PAUSE
    assert 1 <= pauses[2] < pauses[3] < 4, "each wait is longer than the one before"


def test_connections_that_the_store_closed_while_idle_fail_no_transfer(
    site: Site, tmp_path: Path
) -> None:
    place = site.url.removesuffix("/blob")
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        for _ in range(6):
            idle = http.client.HTTPConnection(*elsewhere.getsockname())
            idle.connect()
            elsewhere.accept()[0].close()
            connection._idle.append((place, idle))
    site.answers = [body(DATA)]
    get(site.url, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == DATA


def test_a_file_that_cannot_be_read_is_no_fault_of_the_store(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    target = PutTarget(digest=DIGEST, url=site.url, headers={})
    itself, source = tmp_path / "itself", tmp_path / "source"
    itself.symlink_to(itself)
    source.write_bytes(DATA)
    with pytest.raises(DiskError, match=f"{itself} cannot be read"):
        sending.put(itself, len(DATA), target)
    assert site.requests == []
    monkeypatch.setattr(connection, "_send_some", broken)
    site.answers = [body(b"")]
    with pytest.raises(DiskError, match=f"{source} cannot be read"):
        sending.put(source, len(DATA), target)


def test_what_counts_as_sent_is_not_only_in_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow line megabytes in the kernel are minutes, in which an answer cannot come."""
    monkeypatch.setattr(connection, "_SECONDS", 0.3)
    with (tmp_path / "blob").open("w+b") as source, socket.socket() as listening:
        source.truncate(8 << 20)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/blob"
        with pytest.raises(TimeoutError):
            connection.put(url, source, Span(0, 8 << 20), {}, lambda _: None)
        peer, _ = listening.accept()
        with peer:
            arrived = sum(map(len, iter(lambda: peer.recv(1 << 20), b"")))
    assert arrived < 1 << 20


def test_file_urls_are_verified_as_well(tmp_path: Path) -> None:
    source, stored, back = tmp_path / "a", tmp_path / "s p", tmp_path / "back"
    source.write_bytes(DATA)
    target = PutTarget(digest=DIGEST, url=stored.as_uri())
    sending.put(source, len(DATA), target)
    get(stored.as_uri(), back)
    assert back.read_bytes() == DATA
    source.write_bytes(DATA[:-1])
    stored.unlink()
    with pytest.raises(UploadCorruptError):
        sending.put(source, len(DATA), target)
    with pytest.raises(IntegrityError):
        get(stored.as_uri(), tmp_path / "again")
    source.unlink()
    with pytest.raises(NotFoundError):
        sending.put(source, len(DATA), target)
