"""The registry in this process: SQLite and a folder of blobs, nothing started.

This is the one module of the library that knows the service's code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.registry.protocol import Registry


def open_registry(data_dir: Path) -> Registry:
    """Open (and on first use make) the registry that lives in ``data_dir``.

    A server may have the same folder open at the same time.
    """
    from rankloom_server.service import open_embedded

    return open_embedded(data_dir)
