"""Fetching blobs from a store, by the URLs that a registry gives out."""

from __future__ import annotations

import functools
import http.client
from typing import IO, TYPE_CHECKING, Final

from rankloom.digest import CHUNK
from rankloom.errors import IntegrityError, RegistryError
from rankloom.files import write_verified
from rankloom.registry import connection, crew
from rankloom.registry.partial import BLOCK, Partial
from rankloom.registry.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPAN: Final = 16 << 20
"""Bytes that are asked for at once; smaller blobs come whole, and are sent again from the start."""

_NOT_FOUND: Final = 404


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

    connection.persist(url, fetch)


def _chunks(url: str, digest: str) -> Iterator[memoryview]:
    if url.startswith("file:"):
        path = connection.local_path(url)
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

    connection.persist(url, fetch, lambda: at)


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


def _read(stream: IO[bytes] | http.client.HTTPResponse) -> Iterator[memoryview]:
    """Yield the bytes in chunks; each is good until the next is asked for."""
    buffer = memoryview(bytearray(CHUNK))
    while count := stream.readinto(buffer):  # type: ignore[union-attr]
        yield buffer[:count]
    if isinstance(stream, http.client.HTTPResponse) and stream.length:
        raise http.client.IncompleteRead(b"", stream.length)
