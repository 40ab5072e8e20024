"""Making room in the cache: what was not used for long goes, what a process uses stays."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from rankloom.files import on_disk
from rankloom.registry.cache import holds, layout, resolved
from rankloom.registry.cache.survey import survey

if TYPE_CHECKING:
    from collections.abc import Iterator, Set
    from pathlib import Path

    from rankloom.registry.cache.survey import CachedVersion, Survey

RESUMABLE: Final = timedelta(hours=1)
"""How long what was left by a pull that broke is kept, for the next one goes on with it."""

_DIGEST = re.compile(r"(sha256)?-([0-9a-f]{64})(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        versions: versions that are not here any more.
        in_use: versions that would have gone, but that a process uses.
        blobs: how many blobs went.
        leftovers: how many files and folders of pulls that never ended went.
        nbytes: bytes that are free now.
    """

    versions: tuple[CachedVersion, ...]
    in_use: tuple[CachedVersion, ...]
    blobs: int
    leftovers: int
    nbytes: int


def prune(
    cache: Path,
    *,
    older_than: timedelta | None = None,
    max_bytes: int | None = None,
    dry: bool = False,
) -> Pruned:
    """Remove versions, those first that were used least lately, and leftovers of broken pulls.

    Without limits only leftovers go: what a pull left that broke an hour ago or longer, and blobs
    of no known version. Nothing goes that a process uses which is alive.

    Args:
        cache: the cache folder.
        older_than: versions that were not used for this long go.
        max_bytes: versions go until the cache holds no more than this.
        dry: change nothing, tell what would be done now.

    Raises:
        DiskError: something cannot be removed.
    """
    now = datetime.now(UTC)
    with on_disk(cache), holds.guarded(cache):
        held = holds.held(cache)
        found = survey(cache)
        old = list(_leftovers(cache, held, now - RESUMABLE))
        nbytes = sum(_nbytes(path) for path in old)
        victims = _Victims(cache, found, held)
        victims.take(blob for blob in found.strays if found.blobs[blob][1] < now - RESUMABLE)
        for version in reversed(found.versions):
            left = found.nbytes - nbytes - victims.nbytes
            is_old = older_than is not None and version.used_at < now - older_than
            if is_old or (max_bytes is not None and left > max_bytes):
                victims.add(version)
        if not dry:
            for path in old:
                layout.remove(path)
            victims.remove()
    return Pruned(
        tuple(victims.versions),
        tuple(victims.in_use),
        len(victims.blobs),
        len(old),
        nbytes + victims.nbytes,
    )


class _Victims:
    """Versions that go, and the blobs that nobody needs without them."""

    def __init__(self, cache: Path, found: Survey, held: Set[str]) -> None:
        self._cache, self._found, self._held = cache, found, held
        self._needed = Counter(blob for version in found.versions for blob in version.blobs)
        self.versions: list[CachedVersion] = []
        self.in_use: list[CachedVersion] = []
        self.blobs: set[str] = set()
        self.nbytes = 0

    def take(self, blobs: Iterator[str]) -> None:
        """Let blobs go that no process uses."""
        for blob in set(blobs) - self._held - self.blobs:
            self.blobs.add(blob)
            self.nbytes += self._found.blobs[blob][0]

    def add(self, version: CachedVersion) -> None:
        """Let a version go, unless it is in use."""
        if version.digest in self._held:
            self.in_use.append(version)
            return
        self.versions.append(version)
        self.nbytes += _nbytes(layout.version(self._cache, version.digest))
        self._needed.subtract(version.blobs)
        self.take(
            blob for blob in version.blobs & self._found.blobs.keys() if not self._needed[blob]
        )

    def remove(self) -> None:
        """Remove all that was let go."""
        for version in self.versions:
            layout.remove(layout.version(self._cache, version.digest))
        resolved.forget(self._cache, {version.digest for version in self.versions})
        for blob in self.blobs:
            layout.remove(layout.blob(self._cache, blob))


def _leftovers(cache: Path, held: Set[str], before: datetime) -> Iterator[Path]:
    """Yield what broken pulls left and none goes on with: their process would hold its digest."""
    for path in layout.leftovers(cache):
        named = _DIGEST.search(path.name)
        is_held = named is not None and f"sha256:{named[2]}" in held
        found = layout.stat(path)
        if found and not is_held and found.st_mtime < before.timestamp():
            yield path


def _nbytes(path: Path) -> int:
    """Return the bytes of a file, or of those in a folder that are no links to others."""
    if path.is_file():
        return path.stat().st_size
    return sum(found.st_size for _, found in layout.files(path) if found.st_nlink == 1)
