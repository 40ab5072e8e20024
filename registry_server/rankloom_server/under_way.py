"""Publications that take longer than a request should: they go on, and who asks again joins them.

A request waits for a while and then is told to ask again; the work goes on in a thread of its own.
Asking again on another server of a fleet verifies once more, which changes nothing but the time.
"""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankloom.registry.wire import Version

_AT_ONCE = 8
"""Verifications that read blobs at the same time; the others wait for their turn."""

_REMEMBERED = 1000
"""Results that nobody has asked for yet; the oldest are forgotten, and found anew when asked."""


class UnderWay:
    """The publications of one server process, by upload and by who asks for it."""

    def __init__(self, patience_seconds: float = 20.0) -> None:
        """Let a request wait for ``patience_seconds``, less than proxies commonly do."""
        self._patience = patience_seconds
        self._turn = threading.BoundedSemaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._futures: dict[tuple[str, str], Future[Version]] = {}

    def publish(self, upload_id: str, actor: str, publish: Callable[[], Version]) -> Version | None:
        """Return what ``publish`` returns or raise what it raises; ``None``: not yet, ask again.

        It is called once for the upload and the actor until somebody was told how it ended.
        """
        key = (upload_id, actor)
        future = self._begun(key, publish)
        try:
            future.exception(self._patience)
        except TimeoutError:
            return None
        with self._lock:
            if self._futures.get(key) is future:
                del self._futures[key]
        return future.result()

    def _begun(self, key: tuple[str, str], publish: Callable[[], Version]) -> Future[Version]:
        with self._lock:
            known = self._futures.get(key)
            if known is not None:
                return known
            self._forget_some()
            future = self._futures[key] = Future()
        context = contextvars.copy_context()
        arguments = (self._work, future, publish)
        # A daemon: the end of the server cuts it off, and the client's next attempt begins anew.
        threading.Thread(target=context.run, args=arguments, name="publish", daemon=True).start()
        return future

    def _work(self, future: Future[Version], publish: Callable[[], Version]) -> None:
        with self._turn:
            try:
                future.set_result(publish())
            except BaseException as error:  # noqa: BLE001  (raised where the request waits)
                future.set_exception(error)

    def _forget_some(self) -> None:
        ended = [key for key, future in self._futures.items() if future.done()]
        for key in ended[: max(0, len(self._futures) - _REMEMBERED)]:
            del self._futures[key]
