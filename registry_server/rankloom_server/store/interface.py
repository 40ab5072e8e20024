"""What the service needs from a place that keeps blobs under their digests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from rankloom.registry.wire import PartTarget, PutTarget

URL_SECONDS = 3600
"""How long a URL that a store signed is good for."""


@dataclass(frozen=True, slots=True, order=True)
class StoredBlob:
    """What the store says that it holds; ``size`` is in bytes."""

    namespace: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Parting:
    """How large blobs are sent.

    Attributes:
        beyond: larger blobs come in parts; this and less is sent again whole if it breaks.
        size: bytes of every part but the last, of which nothing is sent twice that has arrived.
    """

    beyond: int = 64 << 20
    size: int = 5 << 20

    def of(self, nbytes: int) -> int | None:
        """Return the size of a blob's parts, ``None`` if it is sent whole."""
        return self.size if nbytes > self.beyond else None


PARTING = Parting()


@dataclass(frozen=True, slots=True)
class Assembly:
    """A blob whose parts arrive one by one.

    Attributes:
        namespace: whose blob it is.
        digest: the blob's.
        id: the store's own name for it; two of one blob are possible.
        since: when it was begun, or last got a part.
    """

    namespace: str
    digest: str
    id: str
    since: datetime


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

    def part_bytes(self, size: int) -> int | None:
        """Return the size of the parts in which a blob is sent, ``None``: it is sent whole."""

    def assemble(
        self, digest: str, size: int, parts: Sequence[str], *, replace: bool = False
    ) -> tuple[PartTarget, ...]:
        """Put a blob together from its parts, given by digest, or say which have not arrived.

        Each target takes that part and no other bytes, for a limited time. Parts stay until the
        blob is there or its assembly is abandoned, so this may be called again, by any process.
        Whether the parts make the blob, only who reads it knows. ``replace`` as in ``presign_put``.
        """

    def assemblies(self) -> Iterator[Assembly]:
        """Yield what was begun and not put together, of every namespace."""

    def abandon(self, assembly: Assembly) -> None:
        """Remove an assembly's parts; it is fine if it is not there."""

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


def blob_key(namespace: str, digest: str, root: str = "blobs") -> str:
    """Return the path of a blob in every store: ``blobs/<namespace>/sha256/<aa>/<hex>``."""
    algorithm, _, value = digest.partition(":")
    return f"{root}/{namespace}/{algorithm}/{value[:2]}/{value}"


def part_key(namespace: str, digest: str, part: str) -> str:
    """Return the path of a part of a blob: ``parts/<namespace>/sha256/<aa>/<hex>/<part's hex>``."""
    return f"{blob_key(namespace, digest, 'parts')}/{part.removeprefix('sha256:')}"


def parse_key(key: str, root: str = "blobs") -> tuple[str, str] | None:
    """Return namespace and digest of a blob's path, ``None`` if it is no blob's."""
    parts = key.split("/")
    if len(parts) != 5:
        return None
    namespace, digest = parts[1], f"{parts[2]}:{parts[4]}"
    return (namespace, digest) if blob_key(namespace, digest, root) == key else None
