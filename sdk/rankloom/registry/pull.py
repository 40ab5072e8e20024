"""Pull: resolve a ref, fetch what the cache lacks, verify every byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.files import check_output

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rankloom.registry.cache import Cache
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

    ``progress`` is called with (bytes here, bytes in all).

    Raises:
        IntegrityError: the store's bytes differ from their digest; no folder appears.
        ConflictError: ``output`` exists and is not an empty folder.
    """
    if output is not None:
        check_output(output)
    version, manifest = resolved.version, resolved.manifest
    total = sum(entry.size for entry in manifest.files)
    here = 0

    def count(size: int) -> None:
        nonlocal here
        here += size
        if progress:
            progress(here, total)

    for entry in manifest.files:

        def url(path: str = entry.path) -> str:
            return registry.blob_url(version.adapter, version.digest, path)

        cache.fetch(entry, url, count)
    if output is None:
        return cache.folder(manifest)
    cache.export(manifest, output)
    return output
