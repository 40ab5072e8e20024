"""Push: declare the content, send what is missing, publish."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from rankloom.errors import RegistryError
from rankloom.registry import parts, sending
from rankloom.registry.pieces import Pieces, Rounds
from rankloom.registry.tally import Tally
from rankloom.registry.wire import AliasRequest, UploadRequest, Version

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rankloom.manifest import Manifest
    from rankloom.ref import AdapterName
    from rankloom.registry.protocol import Registry
    from rankloom.registry.wire import AdapterDetail, PutTarget

_IDLE: Final = 0
"""Rounds that bring nothing nearer to its end: who refuses fresh URLs as well is believed."""


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
    version = registry.publish(send(registry, folder, adapter, request, progress))
    if semver is not None and version.semver != semver:
        message = f"{adapter}@v{version.number} was to be {semver}, the registry made it "
        message += version.semver or "without a semantic version"
        raise RegistryError(message, hint="push it again; if it stays so, update the registry")
    return version


def send(
    registry: Registry,
    folder: Path,
    adapter: AdapterName,
    request: UploadRequest,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Declare content and send what the store lacks of it; return the id of the upload.

    Raises:
        UploadCorruptError: a file changed meanwhile.
        RegistryError: registry or store cannot be reached or refuse.
    """
    upload = registry.open_upload(adapter, request)
    files = {entry.digest: entry for entry in request.manifest.files}
    lacking = [target.digest for target in upload.missing] + [blob.digest for blob in upload.large]
    tally = Tally(sum(files[digest].size for digest in lacking), progress)

    def put(target: PutTarget) -> RegistryError | None:
        entry = files[target.digest]
        return sending.put(folder / entry.path, entry.size, target, tally)

    def missing() -> tuple[PutTarget, ...]:
        # The same request again is the same upload, with fresh URLs for what has not arrived.
        return registry.open_upload(adapter, request).missing

    # Small blobs share the connections; a large one has them all to itself.
    sizes = {target.digest: files[target.digest].size for target in upload.missing}
    _send_whole(upload.missing, missing, put, Pieces(sizes, tally))
    for blob in upload.large:
        entry = files[blob.digest]
        parts.send(registry, upload.id, folder / entry.path, entry.size, blob, tally)
    return upload.id


def _send_whole(
    targets: Sequence[PutTarget],
    missing: Callable[[], Sequence[PutTarget]],
    put: Callable[[PutTarget], RegistryError | None],
    pieces: Pieces[str],
) -> None:
    """Send blobs, and what is missing then again when a URL's time is over.

    Raises:
        RegistryError: fresh URLs are refused as well, and nothing arrives.
    """
    rounds = Rounds(_IDLE)
    while doubt := pieces.round({item.digest: functools.partial(put, item) for item in targets}):
        if not rounds.go_on(len(targets)):
            raise doubt
        targets = missing()


def move_alias(registry: Registry, version: Version, alias: str) -> None:
    """Let ``alias`` name ``version``, whatever it names now (if nobody moves it meanwhile)."""
    before = alias_digest(registry.show(version.adapter), alias)
    registry.set_alias(version.adapter, alias, AliasRequest(digest=version.digest, expected=before))


def alias_digest(detail: AdapterDetail, alias: str) -> str | None:
    """Return the digest of the version that an alias names, or ``None``."""
    return next((item.digest for item in detail.versions if alias in item.aliases), None)
