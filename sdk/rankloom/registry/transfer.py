"""Fetching blobs from a store, by the URLs that a registry gives out."""

from __future__ import annotations

import functools
import http.client
from typing import IO, TYPE_CHECKING, Final

from rankloom.digest import CHUNK
from rankloom.errors import IntegrityError, RegistryError
from rankloom.files import write_verified
from rankloom.registry import connection, crew, patience
from rankloom.registry.address import Address
from rankloom.registry.partial import BLOCK, Partial
from rankloom.registry.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SPAN: Final = 16 << 20
"""Bytes that are asked for at once; smaller blobs come whole, and are sent again from the start."""

_NOT_FOUND: Final = 404
# What stores say to a URL whose time is over (S3: 403, or 400 where its key's own time is).
_STALE: Final = frozenset([400, 401, 403])


class _StaleUrlError(Exception):
    """The store refuses the URL; :func:`_persist` asks for another, or says so."""


def get(
    url: str,
    target: Path,
    *,
    digest: str,
    size: int,
    tally: Tally | None = None,
    renew: Callable[[], str] | None = None,
) -> None:
    """Fetch one blob to ``target``; it gets that name only when size and digest are right.

    A blob larger than ``SPAN`` comes in ranges over several connections; what has arrived of it is
    kept beside ``target`` when the transfer breaks, and the next one fetches the rest.

    Args:
        url: where it is.
        target: the file that it becomes.
        digest: what it must be.
        size: its bytes.
        tally: counts what arrives.
        renew: gives a fresh URL when the store refuses the old one, whose time may be over.

    Raises:
        IntegrityError: the store holds or sends other bytes; nothing of them is kept.
        DiskError: there is no room.
        RegistryError: the store cannot be reached or refuses.
    """
    tally = tally or Tally(size, None)
    address = Address(url, renew)
    if size > SPAN and not url.startswith("file:"):
        _get_ranges(address, target, digest, size, tally)
    else:
        _get_whole(address, target, digest, size, tally)


def _get_whole(address: Address, target: Path, digest: str, size: int, tally: Tally) -> None:
    def fetch(url: str) -> None:
        with tally.attempt() as count:
            chunks = _chunks(url, digest)
            write_verified(chunks, target, digest=digest, size=size, progress=count)

    _persist(address, digest, fetch, lambda: 0)


def _persist(
    address: Address, digest: str, fetch: Callable[[str], None], position: Callable[[], int]
) -> None:
    """Fetch until all is here; a fresh URL that is refused at the same position is refused.

    Raises:
        RegistryError: the store refuses, or cannot be reached.
    """
    renewed_at: int | None = None
    while True:
        url = address.url
        try:
            patience.persist(url, functools.partial(fetch, url), position)
        except _StaleUrlError as refusal:
            if renewed_at == position() or not address.is_renewed(url):
                message = f"the store answered {refusal} for blob {digest}"
                hint = "pull again; the registry gives out fresh URLs"
                raise RegistryError(message, hint=hint) from None
            renewed_at = position()
        else:
            return


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


def _get_ranges(address: Address, target: Path, digest: str, size: int, tally: Tally) -> None:
    with Partial.open(target, size) as partial:
        if partial is None:  # another process was faster
            tally.add(size)
            return
        tally.add(partial.arrived)
        jobs = [
            functools.partial(_get_range, address, partial, begin, end, digest, tally)
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


def _get_range(
    address: Address, partial: Partial, begin: int, end: int, digest: str, tally: Tally
) -> None:
    buffer = memoryview(bytearray(BLOCK))
    at = begin

    def fetch(url: str) -> None:
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

    _persist(address, digest, fetch, lambda: at)


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
    if response.status in _STALE:
        raise _StaleUrlError(response.status)
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
