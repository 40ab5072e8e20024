"""Sending blobs, and parts of large ones, to the places that a registry names."""

from __future__ import annotations

import functools
from typing import IO, TYPE_CHECKING, Final

from rankloom.digest import CHUNK
from rankloom.errors import NotFoundError, RegistryError, UploadCorruptError
from rankloom.files import write_verified
from rankloom.registry import connection, patience
from rankloom.registry.connection import Span
from rankloom.registry.patience import BusyError
from rankloom.registry.tally import Tally

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.registry.wire import PartTarget, PutTarget

_ALREADY_THERE: Final = 412
"""Whether the stored bytes are right is for the registry to verify, as it does for every upload."""

_REFUSED: Final = frozenset([400, 422])
# The URL's time is over, or what it led to has gone.
_STALE: Final = frozenset([401, 403, 404])
_KEY_EXPIRED: Final = "<Code>ExpiredToken</Code>"
"""What S3 says, with status 400, when the time of the key that signed the URL is over."""


class _StaleUrl(Exception):  # noqa: N818 - a state of things, which only this module sees
    """The store does not take this URL, but perhaps another."""


def put(
    source: Path, size: int, target: PutTarget, tally: Tally | None = None
) -> RegistryError | None:
    """Send one file to the place that the registry named; or return why it must be asked again.

    Either the URL is not good any more, or the store stays busy; the file may be there by then.

    Raises:
        UploadCorruptError: the store found other bytes than declared (the file changed meanwhile).
        RegistryError: the store cannot be reached or refuses.
    """
    tally = tally or Tally(size, None)
    if target.url.startswith("file:"):
        _store(source, size, target, tally)
        return None
    return _send(source, Span(0, size), target, tally, there=_ALREADY_THERE)


def put_part(source: Path, span: Span, target: PartTarget, tally: Tally) -> RegistryError | None:
    """Send a span of a file as one part; or return why the registry must be asked, as ``put``.

    Raises:
        UploadCorruptError: the store found other bytes than declared (the file changed meanwhile).
        RegistryError: the store cannot be reached or refuses.
    """
    return _send(source, span, target, tally)


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
    *,
    there: int | None = None,
) -> RegistryError | None:
    """Send bytes of a file, anew if that breaks; ``there`` is a status as good as success."""

    def attempt() -> None:
        with tally.attempt() as count, opened(source) as stream:
            status, text = connection.put(target.url, stream, span, target.headers, count)
            if status in _STALE or (status == 400 and _KEY_EXPIRED in text):
                raise _StaleUrl(_refusal(source, status, text))
            if status in _REFUSED:
                message = _said(source, status, text)
                hint = "did the file change during the push? push again"
                raise UploadCorruptError(message, hint=hint)
            if status >= 300 and status != there:
                raise _refusal(source, status, text)

    try:
        patience.persist(target.url, attempt)
    except _StaleUrl as stale:
        refusal: RegistryError = stale.args[0]
        return refusal
    except RegistryError as error:
        if isinstance(error.__cause__, BusyError):
            return error
        raise
    return None


def _refusal(source: Path, status: int, text: str) -> RegistryError:
    hint = "push again; the registry gives out fresh URLs"
    return RegistryError(_said(source, status, text), hint=hint)


def _said(source: Path, status: int, text: str) -> str:
    excerpt = text[:200].replace("\n", " ")
    return f"the store refused {source.name}: {status} {excerpt}"


def opened(path: Path) -> IO[bytes]:
    """Return a file that shall be sent, open for reading.

    Raises:
        NotFoundError: it was removed.
        DiskError: it cannot be read.
    """
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        message = f"{path} does not exist any more"
        raise NotFoundError(message) from error
    except OSError as error:
        raise connection.unreadable(path, error) from error
