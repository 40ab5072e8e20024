"""Moving blobs between this machine and a store, by the URLs that a registry gives out."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from rankloom.digest import CHUNK
from rankloom.errors import (
    IntegrityError,
    NotFoundError,
    RegistryError,
    UploadCorruptError,
)
from rankloom.files import write_verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    import urllib3

    from rankloom.registry.wire import PutTarget

_ATTEMPTS = 3
# A store answers these when the blob is there already (S3: 412, or 409 while two race); whether
# the stored bytes are right is for the registry to verify, as it does for every upload.
_ALREADY_THERE = frozenset([409, 412])
_NOT_FOUND = 404
_REFUSED = frozenset([400, 422])


def put(
    source: Path, size: int, target: PutTarget, progress: Callable[[int], None] | None = None
) -> None:
    """Send one file to the place that the registry named.

    Raises:
        UploadCorruptError: the store found other bytes than declared (the file changed meanwhile).
        RegistryError: the store cannot be reached or refuses.
    """
    if target.url.startswith("file:"):
        chunks = _read(source, progress)
        stored = _local_path(target.url)
        write_verified(chunks, stored, digest=target.digest, size=size, error=UploadCorruptError)
    else:
        _persist(target.url, lambda: _put_http(source, size, target, progress))


def _put_http(
    source: Path, size: int, target: PutTarget, progress: Callable[[int], None] | None
) -> None:
    headers = {**target.headers, "Content-Length": str(size)}
    response = _pool().request(
        "PUT", target.url, body=_read(source, progress), headers=headers, redirect=False
    )
    if response.status < 300 or response.status in _ALREADY_THERE:
        return
    message = f"the store refused {source.name}: {response.status} {_excerpt(response)}"
    if response.status in _REFUSED:
        raise UploadCorruptError(message, hint="did the file change during the push? push again")
    raise RegistryError(message, hint="push again; the registry gives out fresh URLs")


def get(
    url: str,
    target: Path,
    *,
    digest: str,
    size: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Fetch one blob to ``target``; it gets that name only when size and digest are right.

    Raises:
        IntegrityError: the store holds or sends other bytes; nothing of them is kept.
        RegistryError: the store cannot be reached or refuses.
    """

    def fetch() -> None:
        write_verified(_chunks(url, digest), target, digest=digest, size=size, progress=progress)

    _persist(url, fetch)


def _persist(url: str, transfer: Callable[[], None]) -> None:
    """Run a transfer again from its start when the connection breaks."""
    from urllib3.exceptions import HTTPError

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            transfer()
        except HTTPError as error:
            if attempt == _ATTEMPTS:
                raise _unreachable(url, error) from error
        else:
            return


def _chunks(url: str, digest: str) -> Iterator[bytes]:
    if url.startswith("file:"):
        path = _local_path(url)
        if not path.is_file():
            message = f"REG002 the store has lost blob {digest}"
            raise IntegrityError(message, hint="push the adapter again to restore it")
        yield from _read(path)
        return
    response = _pool().request("GET", url, preload_content=False, redirect=False)
    try:
        if response.status == _NOT_FOUND:
            message = f"REG002 the store has lost blob {digest}"
            raise IntegrityError(message, hint="push the adapter again to restore it")
        if response.status != 200:
            message = f"the store answered {response.status} for blob {digest}"
            raise RegistryError(message, hint="pull again; the registry gives out fresh URLs")
        yield from response.stream(CHUNK)
    finally:
        response.release_conn()


def _read(path: Path, progress: Callable[[int], None] | None = None) -> Iterator[bytes]:
    stream: IO[bytes]
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        message = f"{path} does not exist any more"
        raise NotFoundError(message) from error
    with stream:
        while chunk := stream.read(CHUNK):
            yield chunk
            if progress:
                progress(len(chunk))


def _local_path(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


@functools.cache
def _pool() -> urllib3.PoolManager:
    import urllib3

    # Our own loop repeats a whole blob; urllib3's would repeat with a body half consumed.
    return urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=10, read=60))


def _unreachable(url: str, error: Exception) -> RegistryError:
    host = urlsplit(url).netloc
    message = f"the store at {host} cannot be reached: {error}"
    return RegistryError(message, hint="check the network and try again; nothing was lost")


def _excerpt(response: urllib3.BaseHTTPResponse) -> str:
    return response.data[:200].decode("utf-8", "replace").replace("\n", " ")
