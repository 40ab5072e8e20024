"""HTTP as bulk transfers need it: bytes go straight between socket and the caller's buffer.

The standard library's client reads into a buffer that is used again and sends a file without
copying it; clients built for convenience spend more time on copies than the line needs.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import http.client
import os
import select
import socket
import ssl
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from rankloom.errors import DiskError, UploadCorruptError
from rankloom.registry.patience import BROKEN, check_busy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from urllib.parse import SplitResult

_SECONDS: Final = 60.0
"""How long a connection may be silent."""

_SLICE: Final = 4 << 20
"""Bytes sent between two counts of progress."""

_TLS_BLOCK: Final = 64 << 10
"""Bytes that are encrypted at once."""

_UNSENT: Final = 256 << 10
"""Bytes that wait in the kernel for the line. It would take megabytes, which a slow line carries
in minutes: silent ones, for who waits for the answer."""

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
        BusyError: the store cannot serve now.
        OSError: the connection broke (or an ``HTTPException``).
    """
    place = urlsplit(url)
    with _connection(place) as connection:
        connection.request("GET", _target(place), headers=dict(headers or {}))
        with connection.getresponse() as response:
            check_busy(response.status, response.headers["Retry-After"])
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
        BusyError: the store cannot take them now.
        DiskError: the file cannot be read.
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
        answer = _send_and_hear(connection, source, span, count)
        check_busy(answer.status, answer.retry_after, answer.text)
        return answer.status, answer.text


class _Answer(NamedTuple):
    status: int
    text: str
    retry_after: str | None


def _send_and_hear(
    connection: http.client.HTTPConnection,
    source: IO[bytes],
    span: Span,
    count: Callable[[int], None],
) -> _Answer:
    try:
        _send(connection, source, span, count)
    except ConnectionError:
        # A store that refuses says why before it hangs up; without that, it is broken.
        with contextlib.suppress(*BROKEN):
            return _hear(connection)
        raise
    return _hear(connection)


def _send(
    connection: http.client.HTTPConnection,
    source: IO[bytes],
    span: Span,
    count: Callable[[int], None],
) -> None:
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
    offset, end = span.begin, span.begin + span.size
    while offset < end:
        wanted = min(_SLICE, end - offset)
        try:
            sent = _send_some(connection.sock, source, offset, wanted)
        except OSError as error:
            if error.errno == errno.EIO:  # sockets have other errors
                raise unreadable(source.name, error) from error
            raise
        if sent == 0:
            connection.close()
            message = f"REG001 {source.name} became shorter during the push"
            raise UploadCorruptError(message, hint="push again when nobody writes to it")
        offset += sent
        count(sent)


def _send_some(sock: socket.socket, source: IO[bytes], offset: int, most: int) -> int:
    if not isinstance(sock, ssl.SSLSocket):
        return sock.sendfile(source, offset, most)
    # Its own sendfile encrypts 8 KiB at a time, which takes twice as long as more at once.
    block = os.pread(source.fileno(), min(most, _TLS_BLOCK), offset)
    sock.sendall(block)
    return len(block)


def _hear(connection: http.client.HTTPConnection) -> _Answer:
    with connection.getresponse() as response:
        text = response.read(1 << 16).decode("utf-8", "replace")
        if not response.isclosed():
            connection.close()
        return _Answer(response.status, text, response.headers["Retry-After"])


def unreadable(name: str | Path, error: OSError) -> DiskError:
    """Return the error of a file that was to be sent: no other attempt betters it."""
    hint = "look after the file and its disk, then push again"
    return DiskError(f"{name} cannot be read: {error.strerror}", hint=hint)


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
    while True:
        with _lock:
            found = next((index for index, (place, _) in enumerate(_idle) if place == key), None)
            if found is None:
                return None
            _, connection = _idle.pop(found)
        if not _has_ended(connection):
            return connection
        connection.close()


def _has_ended(connection: http.client.HTTPConnection) -> bool:
    """Say whether an idle connection has something to read: nobody asked, so it is its end."""
    if connection.sock is None:  # it opens anew when it is used
        return False
    looked = select.poll()
    looked.register(connection.sock, select.POLLIN)
    return bool(looked.poll(0))


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
