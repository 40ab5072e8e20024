"""A blob that is large enough to come in parts, sent wrongly."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from bad_inputs.by_hand import NAME, put_bytes, said
from rankloom import digest
from rankloom.manifest import FileEntry, Manifest
from rankloom.registry.wire import PartsRequest, UploadRequest
from rankloom_server.store.interface import PARTING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bad_inputs.by_hand import Act
    from bad_inputs.door import Door

    Parts = list[bytes]

SIZE = PARTING.beyond + 1
COUNT = -(-SIZE // PARTING.size)


def in_parts(change: Callable[[Parts], Parts]) -> Act:
    """Return what declares a blob, and then sends other parts than its own."""

    def act(door: Door, place: Path) -> str:
        del place
        parts = [bytes([n]) * min(PARTING.size, SIZE - n * PARTING.size) for n in range(COUNT)]
        blob = _digest(parts)
        file = FileEntry(path="adapter_model.safetensors", size=SIZE, digest=blob)
        request = UploadRequest(manifest=Manifest(files=(file,)))
        upload = door.registry.open_upload(NAME, request)
        sent = change(parts)
        named = PartsRequest(parts=tuple(map(digest.of_bytes, sent)))

        def assemble() -> None:
            for part in door.registry.assemble(upload.id, blob, named).missing:
                put_bytes(part.url, part.headers, sent[part.number - 1])

        said(assemble)  # the parts arrive; asking again puts them together
        answer = said(assemble)
        assert said(lambda: door.registry.publish(upload.id)).startswith("409")
        return answer

    return act


def swapped(parts: Parts) -> Parts:
    """Return the second part before the first."""
    return [parts[1], parts[0], *parts[2:]]


def _digest(parts: Parts) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return f"sha256:{whole.hexdigest()}"
