"""Push: declare the content, send what is missing, publish."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from rankloom.errors import RegistryError
from rankloom.registry import crew, parts, sending
from rankloom.registry.tally import Tally
from rankloom.registry.wire import AliasRequest, UploadRequest, Version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rankloom.manifest import Manifest
    from rankloom.ref import AdapterName
    from rankloom.registry.protocol import Registry
    from rankloom.registry.wire import AdapterDetail, PutTarget, Upload


def push(
    registry: Registry,
    folder: Path,
    adapter: AdapterName,
    manifest: Manifest,
    *,
    base: str | None = None,
    card: str | None = None,
    semver: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Version:
    """Make ``folder`` a version of ``adapter``; the same content again is the same version.

    ``progress`` is called with (bytes arrived, bytes that were missing).

    Raises:
        RegistryError: the registry published it without the semantic version that was asked for.
    """
    request = UploadRequest(manifest=manifest, base=base, card=card, semver=semver)
    upload = registry.open_upload(adapter, request)
    send(registry, folder, manifest, upload, progress)
    version = registry.publish(upload.id)
    if semver is not None and version.semver != semver:
        message = f"{adapter}@v{version.number} was to be {semver}, the registry made it "
        message += version.semver or "without a semantic version"
        raise RegistryError(message, hint="push it again; if it stays so, update the registry")
    return version


def send(
    registry: Registry,
    folder: Path,
    manifest: Manifest,
    upload: Upload,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Send the blobs that an upload misses; nothing is sent that the store holds."""
    files = {entry.digest: entry for entry in manifest.files}
    lacking = [target.digest for target in upload.missing] + [blob.digest for blob in upload.large]
    tally = Tally(sum(files[digest].size for digest in lacking), progress)

    def put(target: PutTarget) -> None:
        entry = files[target.digest]
        sending.put(folder / entry.path, entry.size, target, tally)

    # Small blobs share the connections; a large one has them all to itself.
    crew.run([functools.partial(put, target) for target in upload.missing])
    for blob in upload.large:
        entry = files[blob.digest]
        parts.send(registry, upload.id, folder / entry.path, entry.size, blob, tally)


def move_alias(registry: Registry, version: Version, alias: str) -> None:
    """Let ``alias`` name ``version``, whatever it names now (if nobody moves it meanwhile)."""
    before = alias_digest(registry.show(version.adapter), alias)
    registry.set_alias(version.adapter, alias, AliasRequest(digest=version.digest, expected=before))


def alias_digest(detail: AdapterDetail, alias: str) -> str | None:
    """Return the digest of the version that an alias names, or ``None``."""
    return next((item.digest for item in detail.versions if alias in item.aliases), None)
