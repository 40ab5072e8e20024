"""Moving blobs between this machine and a store, by the URLs that a registry gives out."""

from __future__ import annotations

import functools
import http.client
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from rankloom.digest import CHUNK
from rankloom.errors import IntegrityError, NotFoundError, RegistryError, UploadCorruptError
from rankloom.files import write_verified
from rankloom.registry import connection, crew
from rankloom.registry.partial import BLOCK, Partial
from rankloom.registry.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rankloom.registry.wire import PutTarget

SPAN: Final = 16 << 20
"""Bytes that are asked for at once; smaller blobs come whole, and are sent again from the start."""

_ATTEMPTS: Final = 4
_PAUSE_SECONDS: Final = 0.1
# A store answers these when the blob is there already (S3: 412, or 409 while two race); whether
# the stored bytes are right is for the registry to verify, as it does for every upload.
_ALREADY_THERE: Final = frozenset([409, 412])
_NOT_FOUND: Final = 404
_REFUSED: Final = frozenset([400, 422])


def put(source: Path, size: int, target: PutTarget, tally: Tally | None = None) -> None:
    """Send one file to the place that the registry named.

    Raises:
        UploadCorruptError: the store found other bytes than declared (the file changed meanwhile).
        RegistryError: the store cannot be reached or refuses.
    """
    tally = tally or Tally(size, None)
    if target.url.startswith("file:"):
        _store(source, size, target, tally)
    else:
        _persist(target.url, lambda: _send(source, size, target, tally))


def _store(source: Path, size: int, target: PutTarget, tally: Tally) -> None:
    with tally.attempt() as count, _open(source) as stream:
        chunks = _read(stream)
        place, error = _local_path(target.url), UploadCorruptError
        write_verified(chunks, place, digest=target.digest, size=size, error=error, progress=count)


def _send(source: Path, size: int, target: PutTarget, tally: Tally) -> None:
    with tally.attempt() as count, _open(source) as stream:
        status, text = connection.put(target.url, stream, size, target.headers, count)
        if status >= 300 and status not in _ALREADY_THERE:
            raise _refusal(source, status, text)


def _refusal(source: Path, status: int, text: str) -> RegistryError | UploadCorruptError:
    excerpt = text[:200].replace("\n", " ")
    message = f"the store refused {source.name}: {status} {excerpt}"
    if status in _REFUSED:
        return UploadCorruptError(message, hint="did the file change during the push? push again")
    return RegistryError(message, hint="push again; the registry gives out fresh URLs")


def get(url: str, target: Path, *, digest: str, size: int, tally: Tally | None = None) -> None:
    """Fetch one blob to ``target``; it gets that name only when size and digest are right.

    A blob larger than ``SPAN`` comes in ranges over several connections; what has arrived of it is
    kept beside ``target`` when the transfer breaks, and the next one fetches the rest.

    Raises:
        IntegrityError: the store holds or sends other bytes; nothing of them is kept.
        DiskError: there is no room.
        RegistryError: the store cannot be reached or refuses.
    """
    tally = tally or Tally(size, None)
    if size > SPAN and not url.startswith("file:"):
        _get_ranges(url, target, digest, size, tally)
    else:
        _get_whole(url, target, digest, size, tally)


def _get_whole(url: str, target: Path, digest: str, size: int, tally: Tally) -> None:
    def fetch() -> None:
        with tally.attempt() as count:
            chunks = _chunks(url, digest)
            write_verified(chunks, target, digest=digest, size=size, progress=count)

    _persist(url, fetch)


def _chunks(url: str, digest: str) -> Iterator[memoryview]:
    if url.startswith("file:"):
        path = _local_path(url)
        if not path.is_file():
            raise _lost(digest)
        with path.open("rb") as stream:
            yield from _read(stream)
        return
    with connection.get(url) as response:
        _check(response, 200, digest)
        yield from _read(response)


def _get_ranges(url: str, target: Path, digest: str, size: int, tally: Tally) -> None:
    with Partial.open(target, size) as partial:
        if partial is None:  # another process was faster
            tally.add(size)
            return
        tally.add(partial.arrived)
        jobs = [
            functools.partial(_get_range, url, partial, begin, end, digest, tally)
            for begin, end in partial.missing(SPAN)
        ]
        with crew.beside(partial.hash) as hashed:
            try:
                crew.run(jobs)
            except BaseException:
                partial.stop()
                if not partial.arrived:
                    partial.discard()
                raise
        partial.finish(digest, hashed.result())


def _get_range(url: str, partial: Partial, begin: int, end: int, digest: str, tally: Tally) -> None:
    buffer = memoryview(bytearray(BLOCK))
    at = begin

    def fetch() -> None:
        nonlocal at
        with connection.get(url, {"Range": f"bytes={at}-{end - 1}"}) as response:
            _check(response, 206, digest)
            _check_range(response, at, end, partial.size, digest)
            while at < end:
                block = buffer[: min(BLOCK, end - at)]
                _fill(response, block)
                partial.write(at, block)
                at += len(block)
                tally.add(len(block))

    _persist(url, fetch, lambda: at)


def _fill(response: http.client.HTTPResponse, block: memoryview) -> None:
    filled = 0
    while filled < len(block):
        count = response.readinto(block[filled:])
        if not count:
            raise http.client.IncompleteRead(b"", len(block) - filled)
        filled += count


def _check(response: http.client.HTTPResponse, expected: int, digest: str) -> None:
    if response.status == _NOT_FOUND:
        raise _lost(digest)
    if response.status not in {expected, 200}:
        message = f"the store answered {response.status} for blob {digest}"
        raise RegistryError(message, hint="pull again; the registry gives out fresh URLs")


def _check_range(
    response: http.client.HTTPResponse, begin: int, end: int, size: int, digest: str
) -> None:
    """Refuse an answer that is not about this range of a blob of this size."""
    given = response.getheader("Content-Range")
    if response.status != 206:
        given = f"bytes 0-{size - 1}/{response.getheader('Content-Length')}" if not begin else None
        end = size
    if given != f"bytes {begin}-{end - 1}/{size}":
        message = f"REG002 the store holds something else than {digest} of {size} bytes: {given}"
        raise IntegrityError(message, hint="push the adapter again to restore it")


def _lost(digest: str) -> IntegrityError:
    message = f"REG002 the store has lost blob {digest}"
    return IntegrityError(message, hint="push the adapter again to restore it")


def _persist(
    url: str, transfer: Callable[[], None], position: Callable[[], int] = lambda: 0
) -> None:
    """Repeat a transfer when the connection breaks; what advances may break as often as it likes.

    Raises:
        RegistryError: it broke several times at the same position.
    """
    failed, reached = 0, position()
    while True:
        try:
            transfer()
        except connection.BROKEN as error:
            failed = failed + 1 if position() == reached else 1
            reached = position()
            if failed == _ATTEMPTS:
                raise _unreachable(url, error) from error
            time.sleep(_PAUSE_SECONDS * (failed - 1))  # a connection may just have been idle long
        else:
            return


def _read(stream: IO[bytes] | http.client.HTTPResponse) -> Iterator[memoryview]:
    """Yield the bytes in chunks; each is good until the next is asked for."""
    buffer = memoryview(bytearray(CHUNK))
    while count := stream.readinto(buffer):  # type: ignore[union-attr]
        yield buffer[:count]
    if isinstance(stream, http.client.HTTPResponse) and stream.length:
        raise http.client.IncompleteRead(b"", stream.length)


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        message = f"{path} does not exist any more"
        raise NotFoundError(message) from error


def _local_path(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def _unreachable(url: str, error: Exception) -> RegistryError:
    host = urlsplit(url).netloc
    why = str(error) or type(error).__name__
    message = f"the store at {host} cannot be reached: {why}"
    hint = "check the network and try again; it goes on where it was"
    return RegistryError(message, hint=hint)
