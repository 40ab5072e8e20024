"""What lies in the cache, as values."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rankloom.registry.cache import layout, resolved

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.manifest import Manifest
    from rankloom.registry.cache.resolved import Resolution


@dataclass(frozen=True, slots=True)
class CachedVersion:
    """A version of which blobs are here.

    Attributes:
        digest: its digest.
        known_as: the refs that were resolved to it, and when; the latest first.
        nbytes: bytes of its blobs that are here; versions may share blobs.
        missing: bytes of those that are not.
        used_at: when it was pulled last.
        blobs: digests of all its blobs.
    """

    digest: str
    known_as: tuple[Resolution, ...]
    nbytes: int
    missing: int
    used_at: datetime
    blobs: frozenset[str]

    @property
    def refs(self) -> tuple[str, ...]:
        """The refs as texts, those of any registry."""
        return tuple(dict.fromkeys(said.ref for said in self.known_as))


@dataclass(frozen=True, slots=True)
class Survey:
    """What lies in a cache.

    Attributes:
        versions: the versions, the one used last first.
        blobs: size and time of the last use of every blob, by digest.
        nbytes: bytes on the disk of everything; a blob that versions share counts once.
    """

    versions: tuple[CachedVersion, ...]
    blobs: dict[str, tuple[int, datetime]]
    nbytes: int

    @property
    def strays(self) -> frozenset[str]:
        """Digests of blobs that belong to no version that is known."""
        named = {digest for version in self.versions for digest in version.blobs}
        return frozenset(self.blobs) - named


def survey(cache: Path) -> Survey:
    """Look at a cache, which others may be using; nothing is read but names and manifests."""
    blobs = {}
    for digest, path in layout.blobs(cache):
        if found := layout.stat(path):
            blobs[digest] = (found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))
    said: dict[str, list[Resolution]] = defaultdict(list)
    manifests: dict[str, Manifest] = {}
    for one in resolved.kept(cache):
        said[one.answer.version.digest].append(one)
        manifests[one.answer.version.digest] = one.answer.manifest
    for digest, folder in layout.versions(cache):
        if digest not in manifests and (manifest := layout.manifest(folder)):
            manifests[digest] = manifest
    versions = [
        version
        for digest, manifest in manifests.items()
        if (version := _version(digest, manifest, said[digest], blobs))
    ]
    versions.sort(key=lambda version: (version.used_at, version.digest), reverse=True)
    return Survey(tuple(versions), blobs, _nbytes(cache))


def _version(
    digest: str,
    manifest: Manifest,
    said: list[Resolution],
    blobs: dict[str, tuple[int, datetime]],
) -> CachedVersion | None:
    sizes = {entry.digest: entry.size for entry in manifest.files}
    here = sizes.keys() & blobs.keys()
    if not here:
        return None
    nbytes = sum(sizes[blob] for blob in here)
    # A pull touches every blob of its version, so the one not touched longest tells of this one.
    used_at = min(blobs[blob][1] for blob in here)
    known_as = tuple(sorted(said, key=lambda one: one.at, reverse=True))
    missing = sum(sizes.values()) - nbytes
    return CachedVersion(digest, known_as, nbytes, missing, used_at, frozenset(sizes))


def _nbytes(cache: Path) -> int:
    """Return the bytes of all files; the links of one file count once."""
    sizes = {
        (found.st_dev, found.st_ino): found.st_size
        for room in ("blobs", "versions", "resolved")
        for _, found in layout.files(cache / room)
    }
    return sum(sizes.values())
