"""Where things lie in the cache folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom.errors import AdapterError
from rankloom.files import PART
from rankloom.manifest import read_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.manifest import Manifest


def blob(cache: Path, digest: str) -> Path:
    """Return where a blob lies, or would lie."""
    algorithm, _, text = digest.partition(":")
    return cache / "blobs" / algorithm / text[:2] / text


def blobs(cache: Path) -> Iterator[tuple[str, Path]]:
    """Yield digest and place of every blob."""
    for path in sorted((cache / "blobs").glob("*/*/*")):
        if not path.name.startswith("."):
            yield f"{path.parents[1].name}:{path.name}", path


def version(cache: Path, digest: str) -> Path:
    """Return the folder of a version, whether it is there or not."""
    return cache / "versions" / digest.replace(":", "-")


def versions(cache: Path) -> Iterator[tuple[str, Path]]:
    """Yield digest and folder of every version."""
    for path in sorted((cache / "versions").glob("*-*")):
        if not path.name.startswith("."):
            yield path.name.replace("-", ":", 1), path


def leftovers(cache: Path) -> Iterator[Path]:
    """Yield files and folders that are not complete: being made, or left by who was killed."""
    yield from sorted((cache / "blobs").glob(f"*/*/{PART}*"))
    yield from sorted((cache / "versions").glob(".*"))
    yield from sorted((cache / "resolved").glob(f"*/*/*/{PART}*"))


def remove(path: Path) -> None:
    """Remove a file or folder; of a folder nobody ever sees a part."""
    if path.is_dir():
        away = path.with_name(f".{path.name.lstrip('.')}-removed")
        path.replace(away)
        shutil.rmtree(away)
    else:
        path.unlink(missing_ok=True)


def manifest(folder: Path) -> Manifest | None:
    """Return the manifest in a version's folder, if it is there and sound."""
    try:
        return read_record(folder)
    except (AdapterError, FileNotFoundError):
        return None


def stat(path: Path) -> os.stat_result | None:
    """Return what the system knows of a file, which another process may just have removed."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every file in a folder, also while others add some and remove some."""
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where) / name
            if found := stat(path):
                yield path, found
