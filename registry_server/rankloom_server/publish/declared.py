"""What a client declares when it begins to push, checked before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.errors import IncompatibleError, RefError
from rankloom.finding import Finding
from rankloom.manifest import RECORD

if TYPE_CHECKING:
    from rankloom.manifest import Manifest
    from rankloom.registry.wire import BaseRecord, UploadRequest

MAX_VERSION_BYTES = 8 << 30
"""All files of one version: one full PUT and room beside it; the largest adapters have 1-2 GB."""


def check(request: UploadRequest) -> None:
    """Refuse a manifest that cannot become a version.

    Raises:
        RefError: it is too large, not hashable, or its paths collide.
    """
    manifest = request.manifest
    total = sum(entry.size for entry in manifest.files)
    if total > MAX_VERSION_BYTES:
        message = f"the version has {total} bytes, the registry takes {MAX_VERSION_BYTES}"
        raise RefError(message, hint="leave out files that are no part of the adapter")
    _check_paths([entry.path for entry in manifest.files])
    _check_sizes(manifest)


def digest_of(manifest: Manifest) -> str:
    """Return the manifest's digest.

    Raises:
        RefError: the lock holds a value that JSON cannot carry.
    """
    try:
        return manifest.digest
    except ValueError as error:
        message = f"the manifest's lock is no JSON: {error}"
        raise RefError(message, hint="a lock holds finite numbers and valid text only") from error


def _check_paths(paths: list[str]) -> None:
    # Folders of other systems do not tell A from a, so such a version could not be pulled there.
    folded = {path.casefold() for path in paths}
    prefixes = {folder for path in folded for folder in _folders(path)}
    if len(folded) < len(paths) or prefixes & folded:
        message = "SEC004 two paths of the manifest are the same file, or a file and a folder"
        raise RefError(message, hint="every path must be there once, whatever its case")
    if RECORD in folded:
        message = f"SEC004 {RECORD} is no part of a version"
        raise RefError(message, hint="leave it out; a pull writes it anew")


def _folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _check_sizes(manifest: Manifest) -> None:
    sizes: dict[str, int] = {}
    for entry in manifest.files:
        if sizes.setdefault(entry.digest, entry.size) != entry.size:
            message = f"REG001 {entry.path} and another file have one digest but two sizes"
            raise RefError(message, hint="compute the manifest from the files again")


def check_base(manifest: Manifest, base: BaseRecord) -> None:
    """Refuse a base that is not the one whose fingerprint the manifest carries.

    Raises:
        IncompatibleError: (BASE003) the fingerprints differ, or the manifest has none.
    """
    if manifest.base is not None and manifest.base.match(base.fingerprint) is not None:
        return
    message = (
        f"BASE003 the manifest carries another fingerprint than base {base.name}"
        if manifest.base
        else f"BASE003 the manifest carries no fingerprint to compare with base {base.name}"
    )
    hint = "name the base that the adapter was trained on"
    finding = Finding(rule="BASE003", message=message[8:], where=base.name, fix=hint)
    raise IncompatibleError(message, hint=hint, findings=[finding])
