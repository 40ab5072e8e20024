"""Pulled versions on this machine: blobs under their digest, folders that link to them.

Nothing here is trusted: what is handed out was hashed just before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from rankloom import digest as digests
from rankloom.files import output_folder, write_atomic
from rankloom.manifest import RECORD
from rankloom.registry import transfer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rankloom.manifest import FileEntry, Manifest
    from rankloom.registry.tally import Tally


class Cache:
    """The cache folder of one user."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def blob(self, digest: str) -> Path:
        """Return where the blob lies, or would lie."""
        algorithm, _, text = digest.partition(":")
        return self._folder / "blobs" / algorithm / text[:2] / text

    def fetch(self, entry: FileEntry, url: Callable[[], str], tally: Tally) -> Path:
        """Return a verified blob, from the cache or from the URL that ``url()`` gives.

        Raises:
            IntegrityError: the store's bytes are corrupt; nothing of them is kept.
        """
        path = self.blob(entry.digest)
        if _intact(path, entry):
            os.utime(path)  # what was used lately is pruned last
            tally.add(entry.size)
            return path
        path.unlink(missing_ok=True)  # it was damaged on this disk: fetch it again
        transfer.get(url(), path, digest=entry.digest, size=entry.size, tally=tally)
        return path

    def folder(self, manifest: Manifest) -> Path:
        """Return the folder of a version whose blobs are all here; its files are verified."""
        target = self._folder / "versions" / manifest.digest.replace(":", "-")
        if target.is_dir():
            if all(self._has(target / entry.path, entry) for entry in manifest.files):
                return target
            shutil.rmtree(target)
        self.export(manifest, target, link=True)
        return target

    def export(self, manifest: Manifest, target: Path, *, link: bool = False) -> None:
        """Make a folder of a version: its files and its record.

        Files are copied, so that editing them harms no cache; ``link`` shares the cache's bytes.
        """
        with output_folder(target) as filling:
            for entry in manifest.files:
                place = filling / entry.path
                place.parent.mkdir(parents=True, exist_ok=True)
                _put(self.blob(entry.digest), place, link=link)
            write_atomic(filling / RECORD, manifest.record())

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
