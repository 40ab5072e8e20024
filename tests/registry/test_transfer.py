"""Blobs over real sockets: right bytes arrive, wrong ones leave nothing behind."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rankloom.errors import IntegrityError, NotFoundError, RegistryError, UploadCorruptError
from rankloom.registry import sending, transfer
from rankloom.registry.tally import Tally
from rankloom.registry.wire import PutTarget

DATA = bytes(range(256)) * 4096
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()

Answer = Callable[[BaseHTTPRequestHandler], None]


def body(data: bytes, *, status: int = 200, promised: int | None = None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
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
    site.answers = [body(DATA[:1000], promised=len(DATA))] * 4
    with pytest.raises(RegistryError, match="cannot be reached"):
        get(site.url, tmp_path / "blob")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_busy_is_asked_again_and_then_reported(site: Site, tmp_path: Path) -> None:
    site.answers = [body(b"", status=503), body(b"", status=429), body(DATA)]
    get(site.url, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == DATA
    (tmp_path / "blob").unlink()
    site.answers = [body(b"", status=503)] * 4
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


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (412, None),
        (409, None),
        (400, UploadCorruptError),
        (403, RegistryError),
        (500, RegistryError),
    ],
)
def test_what_a_store_says_to_a_put(
    site: Site, tmp_path: Path, status: int, error: type[Exception] | None
) -> None:
    (tmp_path / "blob").write_bytes(DATA)
    site.answers = [body(b"why", status=status)]
    target = PutTarget(digest=DIGEST, url=site.url)
    if error is None:
        sending.put(tmp_path / "blob", len(DATA), target)
    else:
        with pytest.raises(error, match="why"):
            sending.put(tmp_path / "blob", len(DATA), target)


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
