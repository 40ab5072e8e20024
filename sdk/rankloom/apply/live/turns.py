"""Many run a model at the same time, or one changes it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from rankloom.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Turns:
    """A lock that readers share and a writer has alone.

    A writer that waits goes before readers that come later, and readers that waited for one go
    before the next, so that neither can keep the other waiting for ever. On an accelerator, whose
    work goes on after the call that asked for it returned, the streams of readers and writers wait
    for each other too.

    Args:
        device: where the weights are.
    """

    def __init__(self, device: torch.device) -> None:
        self._changed = threading.Condition()
        self._readers, self._writers_waiting, self._is_writing = 0, 0, False
        # Readers that wait, and how many of them go before the next writer.
        self._readers_waiting, self._owed = 0, 0
        self._mine = threading.local()
        self._streams = None if device.type in {"cpu", "meta"} else _Streams(device)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep writers out; a thread may do so again inside."""
        depth = self._depth
        with self._changed:
            if not depth:  # inside, it would wait for a writer that waits for it
                self._wait_to_read()
            self._readers += 1
        self._mine.depth = depth + 1
        try:
            if self._streams:
                self._streams.begin_reading()
            yield
        finally:
            if self._streams:
                self._streams.end_reading()
            self._mine.depth = depth
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wait until all readers are gone, and keep everybody out.

        Raises:
            ConflictError: this thread itself is reading.
        """
        if self._depth:
            message = "this thread is running the model, so that it would wait for itself"
            raise ConflictError(message, hint="swap or restore after the block of reading()")
        with self._changed:
            self._writers_waiting += 1
            try:
                self._changed.wait_for(self._may_write)
                self._is_writing = True
            finally:
                self._writers_waiting -= 1
        try:
            if self._streams:
                self._streams.begin_writing()
            yield
        finally:
            if self._streams:
                self._streams.end_writing()
            with self._changed:
                self._is_writing, self._owed = False, self._readers_waiting
                self._changed.notify_all()

    def _wait_to_read(self) -> None:
        self._readers_waiting += 1
        try:
            self._changed.wait_for(
                lambda: not self._is_writing and (self._owed or not self._writers_waiting)
            )
        finally:
            self._readers_waiting -= 1
            self._owed = max(0, self._owed - 1)

    def _may_write(self) -> bool:
        return not (self._is_writing or self._readers or self._owed)

    @property
    def _depth(self) -> int:
        return getattr(self._mine, "depth", 0)


class _Streams:
    """What was queued on an accelerator, in order of turns."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._written: torch.Event | None = None
        self._read: dict[torch.Stream, torch.Event] = {}
        self._lock = threading.Lock()

    def begin_reading(self) -> None:
        if self._written is not None:
            torch.accelerator.current_stream(self._device).wait_event(self._written)

    def end_reading(self) -> None:
        stream = torch.accelerator.current_stream(self._device)
        with self._lock:  # of one stream, the last event comes after all others
            self._read[stream] = stream.record_event()

    def begin_writing(self) -> None:
        stream = torch.accelerator.current_stream(self._device)
        for event in self._read.values():
            stream.wait_event(event)
        self._read.clear()

    def end_writing(self) -> None:
        self._written = torch.accelerator.current_stream(self._device).record_event()
