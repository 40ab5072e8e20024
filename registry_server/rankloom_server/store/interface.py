"""What the service needs from a place that keeps blobs under their digests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from rankloom.registry.wire import PutTarget

URL_SECONDS = 3600
"""How long a URL that a store signed is good for."""


@dataclass(frozen=True, slots=True, order=True)
class StoredBlob:
    """What the store says that it holds; ``size`` is in bytes."""

    namespace: str
    digest: str
    size: int


class Store(Protocol):
    """Blobs of one namespace by digest; each is there completely or not at all, and never changes.

    Namespaces share no blob, or the store's answers would tell one what another has.
    Every method may raise ``RegistryError`` when the store cannot be reached.
    """

    def inside(self, namespace: str) -> Self:
        """Return the same store as another namespace uses it."""

    def list_all(self) -> Iterator[StoredBlob]:
        """Yield every blob of every namespace, in no particular order."""

    def sweep(self, before: datetime) -> int:
        """Remove what broken transfers that began before a time have left; return how much."""

    def presign_put(self, digest: str, size: int, *, replace: bool = False) -> PutTarget:
        """Return where a client may send this blob, and no other bytes, for a limited time.

        Sending a blob that is there already changes nothing, and the store may answer 412 to it;
        with ``replace`` the stored bytes, which are known to be damaged, give way.
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


def blob_key(namespace: str, digest: str) -> str:
    """Return the path of a blob in every store: ``blobs/<namespace>/sha256/<aa>/<hex>``."""
    algorithm, _, value = digest.partition(":")
    return f"blobs/{namespace}/{algorithm}/{value[:2]}/{value}"


def parse_key(key: str) -> tuple[str, str] | None:
    """Return namespace and digest of a blob's path, ``None`` if it is no blob's."""
    parts = key.split("/")
    if len(parts) != 5:
        return None
    namespace, digest = parts[1], f"{parts[2]}:{parts[4]}"
    return (namespace, digest) if blob_key(namespace, digest) == key else None
