"""HTTP as bulk transfers need it: bytes go straight between socket and the caller's buffer.

The standard library's client reads into a buffer that is used again and sends a file without
copying it; clients built for convenience spend more time on copies than the line needs.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.client
import ssl
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from rankloom.errors import RegistryError, UploadCorruptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from urllib.parse import SplitResult

_SECONDS: Final = 60.0
"""How long a connection may be silent."""

_SLICE: Final = 4 << 20
"""Bytes sent between two counts of progress."""

BROKEN: Final = (http.client.HTTPException, OSError)
"""What a broken connection raises."""

_ATTEMPTS: Final = 4
_PAUSE_SECONDS: Final = 0.1

_lock = threading.Lock()
_idle: list[tuple[str, http.client.HTTPConnection]] = []
_MOST_IDLE: Final = 16


class Span(NamedTuple):
    """Bytes of a file: the first one's place and how many."""

    begin: int
    size: int


@contextlib.contextmanager
def get(url: str, headers: Mapping[str, str] | None = None) -> Iterator[http.client.HTTPResponse]:
    """Ask for a URL; the answer's body is read inside the block.

    Raises:
        OSError: the connection broke (or an ``HTTPException``).
    """
    place = urlsplit(url)
    with _connection(place) as connection:
        connection.request("GET", _target(place), headers=dict(headers or {}))
        with connection.getresponse() as response:
            yield response
            if not response.isclosed():  # an unread rest would be taken for the next answer
                connection.close()


def put(
    url: str,
    source: IO[bytes],
    span: Span,
    headers: Mapping[str, str],
    count: Callable[[int], None],
) -> tuple[int, str]:
    """Send bytes of a file; return status and text of the answer.

    Raises:
        OSError: the connection broke (or an ``HTTPException``).
        UploadCorruptError: the file is shorter than it was.
    """
    place = urlsplit(url)
    with _connection(place) as connection:
        connection.putrequest("PUT", _target(place))
        for name, value in headers.items():
            if name.lower() != "content-length":
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(span.size))
        connection.endheaders()
        try:
            _send(connection, source, span, count)
        except ConnectionError:
            # A store that refuses says why before it hangs up; without that, it is broken.
            with contextlib.suppress(*BROKEN):
                return _answer(connection)
            raise
        return _answer(connection)


def _send(
    connection: http.client.HTTPConnection,
    source: IO[bytes],
    span: Span,
    count: Callable[[int], None],
) -> None:
    offset, end = span.begin, span.begin + span.size
    while offset < end:
        wanted = min(_SLICE, end - offset)
        sent = connection.sock.sendfile(source, offset, wanted)
        if sent == 0:
            connection.close()
            message = f"REG001 {source.name} became shorter during the push"
            raise UploadCorruptError(message, hint="push again when nobody writes to it")
        offset += sent
        count(sent)


def _answer(connection: http.client.HTTPConnection) -> tuple[int, str]:
    with connection.getresponse() as response:
        text = response.read(1 << 16).decode("utf-8", "replace")
        if not response.isclosed():
            connection.close()
        return response.status, text


def persist(url: str, attempt: Callable[[], None], position: Callable[[], int] = lambda: 0) -> None:
    """Repeat a transfer when the connection breaks; what advances may break as often as it likes.

    Raises:
        RegistryError: it broke several times at the same position.
    """
    failed, reached = 0, position()
    while True:
        try:
            attempt()
        except BROKEN as error:
            failed = failed + 1 if position() == reached else 1
            reached = position()
            if failed == _ATTEMPTS:
                raise _unreachable(url, error) from error
            time.sleep(_PAUSE_SECONDS * (failed - 1))  # a connection may just have been idle long
        else:
            return


def _unreachable(url: str, error: Exception) -> RegistryError:
    host = urlsplit(url).netloc
    why = str(error) or type(error).__name__
    message = f"the store at {host} cannot be reached: {why}"
    hint = "check the network and try again; it goes on where it was"
    return RegistryError(message, hint=hint)


def local_path(url: str) -> Path:
    """Return the path of a ``file:`` URL."""
    return Path(unquote(urlsplit(url).path))


@contextlib.contextmanager
def _connection(place: SplitResult) -> Iterator[http.client.HTTPConnection]:
    """Lend a connection to a host; one that broke is not used again."""
    key = f"{place.scheme}://{place.netloc}"
    connection = _take(key) or _open(place)
    try:
        yield connection
    except BaseException:
        connection.close()
        raise
    _keep(key, connection)


def _take(key: str) -> http.client.HTTPConnection | None:
    with _lock:
        found = next((index for index, (place, _) in enumerate(_idle) if place == key), None)
        return None if found is None else _idle.pop(found)[1]


def _keep(key: str, connection: http.client.HTTPConnection) -> None:
    with _lock:
        _idle.append((key, connection))
        while len(_idle) > _MOST_IDLE:
            _idle.pop(0)[1].close()


@atexit.register
def _close_idle() -> None:
    while _idle:
        _idle.pop()[1].close()


def _open(place: SplitResult) -> http.client.HTTPConnection:
    host = place.hostname or ""
    if place.scheme == "https":
        return http.client.HTTPSConnection(host, place.port, timeout=_SECONDS, context=_tls())
    return http.client.HTTPConnection(host, place.port, timeout=_SECONDS)


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _target(place: SplitResult) -> str:
    return (place.path or "/") + (f"?{place.query}" if place.query else "")
