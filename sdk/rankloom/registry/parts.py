"""Large blobs, sent in parts: what has arrived stays, whatever becomes of this process."""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from typing import TYPE_CHECKING, Final

from rankloom.digest import CHUNK
from rankloom.errors import RegistryError
from rankloom.registry import crew, sending
from rankloom.registry.connection import Span
from rankloom.registry.wire import PartsRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from rankloom.registry.protocol import Registry
    from rankloom.registry.tally import Tally
    from rankloom.registry.wire import LargeBlob, PartTarget

_UNACKNOWLEDGED: Final = 16 << 20
"""Most bytes of parts on their way at once: what is lost if this process is killed."""

_PATIENCE: Final = 3
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
    sender = _Sender(source, size, blob.part_bytes, tally)
    request = PartsRequest(parts=sender.digests())
    least, idle = len(request.parts) + 1, 0
    while missing := registry.assemble(upload_id, blob.digest, request).missing:
        idle = 0 if len(missing) < least else idle + 1
        least = min(least, len(missing))
        if idle > _PATIENCE:
            message = f"{len(missing)} parts of {source.name} do not stay in the store"
            raise RegistryError(message, hint="has it room? push again later, the rest stays")
        sender.round(missing)
    sender.count(())


class _Sender:
    """The parts of one file on their way."""

    def __init__(self, source: Path, size: int, part_bytes: int, tally: Tally) -> None:
        self._source, self._tally = source, tally
        begins = range(0, size, part_bytes)
        self._spans = [Span(begin, min(part_bytes, size - begin)) for begin in begins]
        self._workers = max(1, min(crew.WORKERS, _UNACKNOWLEDGED // part_bytes))
        self._counted: set[int] = set()  # numbers of the parts that the tally has

    def digests(self) -> tuple[str, ...]:
        """Return the digests of the parts; the whole was hashed before, this takes all cores."""
        found = [""] * len(self._spans)

        def work(index: int) -> None:
            found[index] = _digest(self._source, self._spans[index])

        crew.run([functools.partial(work, index) for index in range(len(found))])
        return tuple(found)

    def round(self, missing: Sequence[PartTarget]) -> None:
        """Send parts until all are sent, or a URL is not good any more."""
        self.count({part.number for part in missing})
        stale = threading.Event()

        def work(part: PartTarget) -> None:
            if stale.is_set():
                return
            span = self._spans[part.number - 1]
            if sending.put_part(self._source, span, part, self._tally):
                self._counted.add(part.number)
            else:
                stale.set()

        crew.run([functools.partial(work, part) for part in missing], self._workers)

    def count(self, missing: Collection[int]) -> None:
        """Let the tally be what the registry says has arrived."""
        here = {number for number in range(1, len(self._spans) + 1) if number not in missing}
        self._tally.add(self._nbytes(here - self._counted) - self._nbytes(self._counted - here))
        self._counted = here

    def _nbytes(self, numbers: Collection[int]) -> int:
        return sum(self._spans[number - 1].size for number in numbers)


def _digest(source: Path, span: Span) -> str:
    sha, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    at, end = span.begin, span.begin + span.size
    with sending.opened(source) as stream:
        while at < end and (count := os.preadv(stream.fileno(), [buffer[: end - at]], at)):
            sha.update(buffer[:count])
            at += count
    return f"sha256:{sha.hexdigest()}"
