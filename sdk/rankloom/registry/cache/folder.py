"""The cache as a pull uses it: verified blobs, and folders of versions that link to them."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from rankloom import digest as digests
from rankloom.errors import ConflictError, DiskError
from rankloom.files import on_disk, output_folder, write_atomic
from rankloom.manifest import RECORD
from rankloom.registry import transfer
from rankloom.registry.cache import layout
from rankloom.registry.cache.holds import Holds
from rankloom.registry.cache.prune import prune
from rankloom.registry.cache.survey import survey
from rankloom.registry.cache.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from pathlib import Path

    from rankloom.manifest import FileEntry, Manifest
    from rankloom.registry.cache.prune import Pruned
    from rankloom.registry.cache.survey import Survey
    from rankloom.registry.cache.verify import Checked
    from rankloom.registry.tally import Tally


class Cache:
    """The cache folder of one user; what was taken from it stays there until :meth:`close`.

    Attributes:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._holds = Holds(folder)

    def hold(self, manifest: Manifest) -> None:
        """Keep a version from being pruned, in any process, while this one uses it."""
        # On a disk that is full or read-only nothing can be noted; what is here can be used still.
        with contextlib.suppress(OSError):
            self._holds.add([manifest.digest, *(entry.digest for entry in manifest.files)])

    def close(self) -> None:
        """Let everything be pruned again."""
        self._holds.close()

    def blob(self, digest: str) -> Path:
        """Return where the blob lies, or would lie."""
        return layout.blob(self.folder, digest)

    def fetch(self, entry: FileEntry, url: Callable[[], str], tally: Tally) -> Path:
        """Return a verified blob, from the cache or from the URL that ``url()`` gives.

        Raises:
            IntegrityError: the store's bytes are corrupt; nothing of them is kept.
        """
        path = self.blob(entry.digest)
        if _intact(path, entry):
            with contextlib.suppress(OSError):  # a cache that is read-only is pruned by nobody
                os.utime(path)  # what was used lately is pruned last
            tally.add(entry.size)
            return path
        with on_disk(path):
            path.unlink(missing_ok=True)  # it was damaged on this disk: fetch it again
        size, digest = entry.size, entry.digest
        transfer.get(url(), path, digest=digest, size=size, tally=tally, renew=url)
        return path

    def version(self, manifest: Manifest) -> Path:
        """Return the folder of a version whose blobs are all here; its files are verified.

        Raises:
            DiskError: it cannot be made.
        """
        target = layout.version(self.folder, manifest.digest)
        if target.is_dir():
            if self._is_whole(target, manifest):
                return target
            shutil.rmtree(target, ignore_errors=True)  # another process may be doing the same
        try:
            self.export(manifest, target, link=True)
        except (ConflictError, DiskError):
            if not self._is_whole(target, manifest):  # else another process was faster
                raise
        return target

    def export(self, manifest: Manifest, target: Path, *, link: bool = False) -> None:
        """Make a folder of a version: its files and its record.

        Files are copied, so that editing them harms no cache; ``link`` shares the cache's bytes.

        Raises:
            ConflictError: ``target`` exists and is not an empty folder.
            DiskError: it cannot be written; nothing is left behind.
        """
        with on_disk(target), output_folder(target) as filling:
            for entry in manifest.files:
                place = filling / entry.path
                place.parent.mkdir(parents=True, exist_ok=True)
                _put(self.blob(entry.digest), place, link=link)
            write_atomic(filling / RECORD, manifest.record())

    def survey(self) -> Survey:
        """Return what lies here; nothing is read but names and manifests."""
        return survey(self.folder)

    def verify(
        self, *, repair: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> Checked:
        """Hash everything again; see :func:`rankloom.registry.cache.verify.verify`."""
        return verify(self.folder, repair=repair, progress=progress)

    def prune(
        self,
        *,
        older_than: timedelta | None = None,
        max_bytes: int | None = None,
        dry: bool = False,
    ) -> Pruned:
        """Make room; see :func:`rankloom.registry.cache.prune.prune`."""
        return prune(self.folder, older_than=older_than, max_bytes=max_bytes, dry=dry)

    def _is_whole(self, target: Path, manifest: Manifest) -> bool:
        """Tell whether a folder holds the version's files and its record."""
        record = target / RECORD
        if not record.is_file() or record.read_bytes() != manifest.record():
            return False
        return all(self._has(target / entry.path, entry) for entry in manifest.files)

    def _has(self, path: Path, entry: FileEntry) -> bool:
        """Tell whether a file is the blob, which was hashed just before, or has its bytes."""
        with contextlib.suppress(FileNotFoundError):
            if path.samefile(self.blob(entry.digest)):
                return True
        return _intact(path, entry)


def _intact(path: Path, entry: FileEntry) -> bool:
    return path.is_file() and digests.of_file(path) == entry.digest


def _put(blob: Path, place: Path, *, link: bool) -> None:
    if link:
        try:
            os.link(blob, place)
        except OSError:  # a file system without hard links
            link = False
    if not link:
        shutil.copyfile(blob, place)
