"""Publications that take longer than a request should: they go on, and who asks again joins them.

A request waits for a while and then is told to ask again; the work goes on in a thread of its own.
Asking again on another server of a fleet verifies once more, which changes nothing but the time.
"""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankloom.registry.wire import Version

_AT_ONCE = 8
"""Verifications that read blobs at the same time; the others wait for their turn."""

_KEPT_SECONDS = 60.0
"""How long an end is kept for who asks again; a client does so every second, or not any more."""


@dataclass(frozen=True, slots=True)
class _Publication:
    """One that goes on, or whose end is still to be told."""

    end: Future[Version] = field(default_factory=Future)
    told: threading.Event = field(default_factory=threading.Event)


class UnderWay:
    """The publications of one server process, by upload and by who asks for it."""

    def __init__(self, patience_seconds: float = 20.0, kept_seconds: float = _KEPT_SECONDS) -> None:
        """Let a request wait for ``patience_seconds``, less than proxies commonly do."""
        self._patience = patience_seconds
        self._kept = kept_seconds
        self._turn = threading.BoundedSemaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._publications: dict[tuple[str, str], _Publication] = {}

    def publish(self, upload_id: str, actor: str, publish: Callable[[], Version]) -> Version | None:
        """Return what ``publish`` returns or raise what it raises; ``None``: not yet, ask again.

        It is called once for the upload and the actor until somebody was told how it ended, or
        nobody has asked for a minute since.
        """
        key = (upload_id, actor)
        begun = self._begun(key, publish)
        try:
            begun.end.exception(self._patience)
        except TimeoutError:
            return None
        self._forget(key, begun)
        begun.told.set()
        return begun.end.result()

    def _begun(self, key: tuple[str, str], publish: Callable[[], Version]) -> _Publication:
        with self._lock:
            known = self._publications.get(key)
            if known is not None:
                return known
            begun = self._publications[key] = _Publication()
        context = contextvars.copy_context()
        arguments = (self._work, key, begun, publish)
        # A daemon: the end of the server cuts it off, and the client's next attempt begins anew.
        threading.Thread(target=context.run, args=arguments, name="publish", daemon=True).start()
        return begun

    def _work(
        self, key: tuple[str, str], begun: _Publication, publish: Callable[[], Version]
    ) -> None:
        with self._turn:
            try:
                begun.end.set_result(publish())
            except BaseException as error:  # noqa: BLE001  (raised where the request waits)
                begun.end.set_exception(error)
        begun.told.wait(self._kept)
        self._forget(key, begun)

    def _forget(self, key: tuple[str, str], begun: _Publication) -> None:
        with self._lock:
            if self._publications.get(key) is begun:
                del self._publications[key]
