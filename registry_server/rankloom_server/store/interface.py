"""What the service needs from a place that keeps blobs under their digests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from rankloom.registry.wire import PutTarget

URL_SECONDS = 3600
"""How long a URL that a store signed is good for."""


class Store(Protocol):
    """Blobs by digest. A blob is there completely or not at all, and never changes.

    Every method may raise ``RegistryError`` when the store cannot be reached.
    """

    def presign_put(self, digest: str, size: int) -> PutTarget:
        """Return where a client may send this blob, and no other bytes, for a limited time.

        Sending a blob that is there already changes nothing; the store may answer 412 to it.
        """

    def presign_get(self, digest: str) -> str:
        """Return a URL from which the blob can be read for a limited time."""

    def size(self, digest: str) -> int | None:
        """Return the size in bytes of a stored blob, ``None`` if it is not there."""

    def read(self, digest: str) -> Iterator[bytes]:
        """Yield the blob's bytes in chunks, as they are stored (the caller checks the digest).

        Raises:
            NotFoundError: the blob is not there.
        """

    def put(self, digest: str, size: int, chunks: Iterable[bytes]) -> None:
        """Keep a blob; if it is there already, nothing changes.

        Raises:
            UploadCorruptError: the chunks have another size or digest; nothing is kept.
        """

    def delete(self, digest: str) -> None:
        """Remove a blob; it is fine if it is not there."""

    def file(self, digest: str) -> Path | None:
        """Return the blob's file if the store is a folder of this machine and holds it."""


def blob_key(digest: str) -> str:
    """Return the path of a blob in every store: ``blobs/sha256/<aa>/<hex>``."""
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value[:2]}/{value}"
