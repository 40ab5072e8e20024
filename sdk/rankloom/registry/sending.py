"""Sending blobs, and parts of large ones, to the places that a registry names."""

from __future__ import annotations

import functools
from typing import IO, TYPE_CHECKING, Final

from rankloom.digest import CHUNK
from rankloom.errors import NotFoundError, RegistryError, UploadCorruptError
from rankloom.files import write_verified
from rankloom.registry import connection
from rankloom.registry.connection import Span
from rankloom.registry.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rankloom.registry.wire import PartTarget, PutTarget

# A store answers these when the blob is there already (S3: 412, or 409 while two race); whether
# the stored bytes are right is for the registry to verify, as it does for every upload.
_ALREADY_THERE: Final = frozenset([409, 412])
_REFUSED: Final = frozenset([400, 422])
# Its time is over, or what it led to has gone: the registry gives out another.
_STALE: Final = frozenset([403, 404])


class _StaleUrl(Exception):  # noqa: N818 - a state of things, which only `put_part` sees
    """The URL's time is over, or what it led to has gone."""


def put(source: Path, size: int, target: PutTarget, tally: Tally | None = None) -> None:
    """Send one file to the place that the registry named.

    Raises:
        UploadCorruptError: the store found other bytes than declared (the file changed meanwhile).
        RegistryError: the store cannot be reached or refuses.
    """
    tally = tally or Tally(size, None)
    if target.url.startswith("file:"):
        _store(source, size, target, tally)
        return

    def check(status: int, text: str) -> None:
        if status >= 300 and status not in _ALREADY_THERE:
            raise _refusal(source, status, text)

    _send(source, Span(0, size), target, tally, check)


def put_part(source: Path, span: Span, target: PartTarget, tally: Tally) -> bool:
    """Send a span of a file as one part; return whether the URL was still good.

    Raises:
        UploadCorruptError: the store found other bytes than declared (the file changed meanwhile).
        RegistryError: the store cannot be reached or refuses.
    """

    def check(status: int, text: str) -> None:
        if status in _STALE:
            raise _StaleUrl
        if status >= 300:
            raise _refusal(source, status, text)

    try:
        _send(source, span, target, tally, check)
    except _StaleUrl:
        return False
    return True


def _store(source: Path, size: int, target: PutTarget, tally: Tally) -> None:
    with tally.attempt() as count, opened(source) as stream:
        chunks = iter(functools.partial(stream.read, CHUNK), b"")
        place, error = connection.local_path(target.url), UploadCorruptError
        write_verified(chunks, place, digest=target.digest, size=size, error=error, progress=count)


def _send(
    source: Path,
    span: Span,
    target: PutTarget | PartTarget,
    tally: Tally,
    check: Callable[[int, str], None],
) -> None:
    """Send bytes of a file, anew if the connection breaks; ``check`` judges the answer."""

    def attempt() -> None:
        with tally.attempt() as count, opened(source) as stream:
            check(*connection.put(target.url, stream, span, target.headers, count))

    connection.persist(target.url, attempt)


def _refusal(source: Path, status: int, text: str) -> RegistryError | UploadCorruptError:
    excerpt = text[:200].replace("\n", " ")
    message = f"the store refused {source.name}: {status} {excerpt}"
    if status in _REFUSED:
        return UploadCorruptError(message, hint="did the file change during the push? push again")
    return RegistryError(message, hint="push again; the registry gives out fresh URLs")


def opened(path: Path) -> IO[bytes]:
    """Return a file that shall be sent, open for reading.

    Raises:
        NotFoundError: it was removed.
    """
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        message = f"{path} does not exist any more"
        raise NotFoundError(message) from error
