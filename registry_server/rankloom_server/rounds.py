"""What a server does by itself from time to time: it collects garbage."""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING

from rankloom_server.access import Actor
from rankloom_server.collect import Collector

if TYPE_CHECKING:
    from rankloom_server.metrics import Metrics
    from rankloom_server.service import Service

_log = logging.getLogger("rankloom_server")

_ACTOR = Actor("collector")

_FIRST_SECONDS = 60.0
"""How long after its start a server collects at the earliest; most of a fleet start at once."""

_PATIENCE_SECONDS = 5.0


class Rounds:
    """Collects every few hours in a thread of its own.

    Several servers may do so on one registry: a collection only makes updates that a second one
    would find made (see :mod:`rankloom_server.collect`). It ends with the process, at any point.
    """

    def __init__(
        self,
        service: Service,
        metrics: Metrics,
        hours: float,
        first_seconds: float = _FIRST_SECONDS,
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._seconds = 3600 * hours
        self._first = first_seconds * random.uniform(1, 5)  # noqa: S311  (spreads, hides nothing)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rounds", daemon=True)

    def start(self) -> None:
        """Begin, unless no hours were given."""
        if self._seconds:
            self._thread.start()

    def stop(self) -> None:
        """Begin no further collection; one that takes long is cut off when the process ends."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_SECONDS)

    def _run(self) -> None:
        pause = self._first
        while not self._ended.wait(pause):
            self._collect()
            pause = self._seconds

    def _collect(self) -> None:
        try:
            done = Collector(self._service.engine, self._service.store, _ACTOR).run()
        except Exception:  # noqa: BLE001  (whatever it was, the server goes on; it is logged)
            _log.exception("the garbage collection stopped; the next one goes on from there")
            self._metrics.note_collection("failed", 0)
            return
        figures = {
            "purged": len(done.purged),
            "condemned": len(done.condemned),
            "deleted": len(done.deleted),
            "nbytes": done.nbytes,
        }
        line = "collected: %(purged)d versions purged, %(condemned)d blobs condemned, "
        _log.info(line + "%(deleted)d deleted (%(nbytes)d bytes)", figures, extra=figures)
        self._metrics.note_collection("done", done.nbytes)
