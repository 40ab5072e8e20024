"""Large blobs, sent in parts: what has arrived stays, whatever becomes of this process."""

from __future__ import annotations

import functools
import hashlib
import os
from typing import TYPE_CHECKING, Final

from rankloom.digest import CHUNK
from rankloom.errors import RegistryError
from rankloom.registry import crew, sending
from rankloom.registry.connection import Span
from rankloom.registry.pieces import Pieces, Rounds
from rankloom.registry.wire import PartsRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rankloom.registry.protocol import Registry
    from rankloom.registry.tally import Tally
    from rankloom.registry.wire import LargeBlob, PartTarget

_UNACKNOWLEDGED: Final = 16 << 20
"""Most bytes of parts on their way at once: what is lost if this process is killed."""

_IDLE: Final = 3
"""Rounds that bring a blob no nearer to its end, after which the store is not believed any more."""


def send(
    registry: Registry, upload_id: str, source: Path, size: int, blob: LargeBlob, tally: Tally
) -> None:
    """Send what a registry lacks of a blob, until it has put the blob together.

    Each round asks which parts are missing: what a killed push sent is there already, and a URL
    whose time is over is replaced.

    Raises:
        UploadCorruptError: the store found other bytes than declared (the file changed meanwhile).
        RegistryError: registry or store cannot be reached or refuse, or nothing arrives.
    """
    begins = range(0, size, blob.part_bytes)
    spans = [Span(begin, min(blob.part_bytes, size - begin)) for begin in begins]
    request = PartsRequest(parts=_digests(source, spans))
    sizes = {number: span.size for number, span in enumerate(spans, 1)}
    pieces = Pieces(sizes, tally, max(1, min(crew.WORKERS, _UNACKNOWLEDGED // blob.part_bytes)))

    def put(part: PartTarget) -> RegistryError | None:
        return sending.put_part(source, spans[part.number - 1], part, tally)

    rounds, doubt = Rounds(_IDLE), None
    while missing := registry.assemble(upload_id, blob.digest, request).missing:
        if not rounds.go_on(len(missing)):
            message = f"{len(missing)} parts of {source.name} do not stay in the store"
            hint = "has it room? push again later, the rest stays"
            raise doubt or RegistryError(message, hint=hint)
        doubt = pieces.round({part.number: functools.partial(put, part) for part in missing})
    pieces.count(())


def _digests(source: Path, spans: Sequence[Span]) -> tuple[str, ...]:
    """Return the digests of parts; the whole was hashed before, this takes all cores."""
    found = [""] * len(spans)

    def work(index: int) -> None:
        found[index] = _digest(source, spans[index])

    crew.run([functools.partial(work, index) for index in range(len(spans))])
    return tuple(found)


def _digest(source: Path, span: Span) -> str:
    sha, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    at, end = span.begin, span.begin + span.size
    with sending.opened(source) as stream:
        while at < end and (count := os.preadv(stream.fileno(), [buffer[: end - at]], at)):
            sha.update(buffer[:count])
            at += count
    return f"sha256:{sha.hexdigest()}"
