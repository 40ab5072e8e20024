"""What is kept of every request: figures for Prometheus, and a line in the log."""

from __future__ import annotations

import logging
import re
import secrets
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rankloom_server.metrics import Metrics

_log = logging.getLogger("rankloom_server")
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_LINE = "%(method)s %(path)s %(status)d %(ms).1f ms id=%(request_id)s"


class Request(NamedTuple):
    """What is told of a request.

    Attributes:
        method: as it was sent.
        path: likewise, without the query, which may carry a signature that is still good.
        route: the pattern that the path has.
        request_id: the client's or ours.
        actor: who asked, if that was found out.
        trace_id: of the trace that it belongs to, if there is one.
    """

    method: str
    path: str
    route: str
    request_id: str
    actor: str | None
    trace_id: str | None = None


def request_id(given: bytes) -> str:
    """Return a request's id: what the client gave, if it is in form, else a new one."""
    return given.decode() if _ID.fullmatch(given) else secrets.token_hex(16)


class RequestLog:
    """Counts requests, and writes a line for each."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.in_progress = metrics.in_progress

    def note(self, request: Request, status: int, seconds: float) -> None:
        """Keep what is told of a request that was answered."""
        self._metrics.note(request.method, request.route, status, seconds)
        figures = {
            "method": request.method,
            "path": request.path,
            "status": status,
            "ms": round(1000 * seconds, 1),
            "request_id": request.request_id,
            "actor": request.actor,
        }
        if request.trace_id is not None:
            figures["trace_id"] = request.trace_id
        _log.info(_LINE, figures, extra=figures)
