"""Reading every byte of the cache again, as a disk may lose some."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rankloom import digest as digests
from rankloom.files import on_disk
from rankloom.manifest import RECORD
from rankloom.registry.cache import holds, layout
from rankloom.registry.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in the cache that is not what its name says.

    Attributes:
        path: the file or folder.
        digest: what it should be.
        found: what it is, or what is wrong with it.
        removed: it is gone now.
    """

    path: Path
    digest: str
    found: str
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found.

    Attributes:
        blobs: how many blobs were hashed.
        versions: how many folders of versions were compared with their manifests.
        nbytes: bytes that were hashed.
        damaged: what is not as it should be.
    """

    blobs: int
    versions: int
    nbytes: int
    damaged: tuple[Damage, ...]


def verify(
    cache: Path,
    *,
    repair: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Hash every blob, and compare every version's folder with its manifest.

    Args:
        cache: the cache folder.
        repair: remove what is damaged, so that the next pull fetches it again; not what a process
            uses which is alive, and of what a pull has mended meanwhile nothing is said.
        progress: called with (bytes hashed, bytes in all).

    Raises:
        DiskError: something cannot be read or removed.
    """
    with on_disk(cache):
        blobs = [
            (digest, path, known.st_size)
            for digest, path in layout.blobs(cache)
            if (known := layout.stat(path))
        ]
        tally = Tally(sum(size for _, _, size in blobs), progress)
        damaged: list[Damage] = []
        for digest, path, size in blobs:
            if found := _other(path, digest):
                damaged.append(Damage(path, digest, found))
            tally.add(size)
        bad = {one.digest for one in damaged}
        versions = list(layout.versions(cache))
        for digest, folder in versions:
            fault = _fault(cache, digest, folder, bad)
            if fault and folder.is_dir():  # else a prune was faster
                damaged.append(Damage(folder, digest, fault))
        if repair:
            damaged = _repaired(cache, damaged)
    return Checked(len(blobs), len(versions), sum(size for *_, size in blobs), tuple(damaged))


def _fault(cache: Path, digest: str, folder: Path, bad: set[str]) -> str:
    """Say what is wrong with a version's folder, if something is; a link is as good as its blob."""
    manifest = layout.manifest(folder)
    if manifest is None or manifest.digest != digest:
        return f"no {RECORD} of this version"
    for entry in manifest.files:
        path = folder / entry.path
        here, blob = layout.stat(path), layout.stat(layout.blob(cache, entry.digest))
        if here is None:
            return f"no {entry.path}"
        if blob and os.path.samestat(here, blob):
            if entry.digest in bad:
                return f"{entry.path} is the damaged blob"
        elif found := _other(path, entry.digest):
            return f"{entry.path} is {found}"
    return ""


def _other(path: Path, digest: str) -> str:
    """Return the digest of a file if it is another than expected."""
    try:
        found = digests.of_file(path)
    except FileNotFoundError:  # a prune was faster: what is gone is not damaged
        return ""
    return "" if found == digest else found


def _repaired(cache: Path, damaged: list[Damage]) -> list[Damage]:
    """Remove what is still damaged and not in use; return what was, blobs before folders."""
    done: list[Damage] = []
    bad: set[str] = set()
    for one in damaged:
        # Nobody begins to use it now, and who began before may be mending it: it is left to him.
        with holds.guarded(cache):
            if one.path.is_dir():
                found = _fault(cache, one.digest, one.path, bad)
            else:
                found = _other(one.path, one.digest)
            if not found:
                continue
            removed = one.digest not in holds.held(cache)
            if removed:
                layout.remove(one.path)
            else:
                bad.add(one.digest)
        done.append(replace(one, found=found, removed=removed))
    return done
