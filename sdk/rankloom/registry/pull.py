"""Pull: resolve a ref, fetch what the cache lacks, verify every byte."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from rankloom.files import check_output
from rankloom.registry import crew
from rankloom.registry.tally import Tally
from rankloom.registry.transfer import SPAN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rankloom.manifest import FileEntry
    from rankloom.registry.cache.folder import Cache
    from rankloom.registry.protocol import Registry
    from rankloom.registry.wire import ResolvedVersion


def pull(
    registry: Registry,
    cache: Cache,
    resolved: ResolvedVersion,
    *,
    output: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Return the folder of a version: in the cache, or a copy of its own at ``output``.

    ``progress`` is called with (bytes here, bytes in all), by one thread at a time.

    Raises:
        IntegrityError: the store's bytes differ from their digest; no folder appears.
        ConflictError: ``output`` exists and is not an empty folder.
        DiskError: there is no room; no folder appears.
    """
    if output is not None:
        check_output(output)
    version, manifest = resolved.version, resolved.manifest
    cache.hold(manifest)
    entries = {entry.digest: entry for entry in manifest.files}.values()
    tally = Tally(sum(entry.size for entry in entries), progress)

    def fetch(entry: FileEntry) -> None:
        def url() -> str:
            return registry.blob_url(version.adapter, version.digest, entry.path)

        cache.fetch(entry, url, tally)

    # Many small blobs share the connections; a large one has them all to itself.
    crew.run([functools.partial(fetch, entry) for entry in entries if entry.size <= SPAN])
    for entry in entries:
        if entry.size > SPAN:
            fetch(entry)
    if output is None:
        return cache.version(manifest)
    cache.export(manifest, output)
    return output
