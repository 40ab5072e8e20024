"""The connection's door to :mod:`rankloom_server.quick`: a plain request is answered at once.

Most of what an answer of one row costs is on the way to it: a parser for all that HTTP allows, a
task, a stack of ASGI applications. So this protocol looks at what arrives first. Exactly one
request to resolve, complete, without a body, in the one form in which clients write it, is looked
up; if it is a hit, the answer is one write. The same bytes go to uvicorn's own protocol if they are
anything else, if nothing is found, or if the connection is not at rest: no other request is read
here, and none is refused.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from rankloom.errors import RateLimitError
from rankloom_server import quick
from rankloom_server.request_log import Request, request_id

if TYPE_CHECKING:
    from rankloom_server.request_log import RequestLog

_MAX_BYTES = 8192
_REQUEST = re.compile(
    rb"GET (/api/v1/adapters/([a-z0-9._-]+)/([a-z0-9._-]+)/resolve)(?:\?([!-~]+))? HTTP/1\.1\r\n"
    rb"((?:[a-zA-Z0-9-]+:[ -~]*\r\n)+)\r\n"
)
# With one of these a request has a body, or asks for more than an answer.
_NOT_PLAIN = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
_STAYS = frozenset({b"", b"keep-alive"})  # what "connection" says when it does; without it, it does


class Plain(NamedTuple):
    """A request in the plain form."""

    path: str
    asked: quick.Asked
    request_id: str


def read(data: bytes) -> Plain | None:
    """Return the request that ``data`` is, if it is exactly one to resolve in the plain form."""
    if len(data) > _MAX_BYTES or not (found := _REQUEST.fullmatch(data)):
        return None
    path, namespace, name, query, lines = found.groups(b"")
    headers: dict[bytes, bytes] = {}
    for line in lines[:-2].split(b"\r\n"):
        field, _, value = line.partition(b":")
        field = field.lower()
        if field in headers or field in _NOT_PLAIN:
            return None
        headers[field] = value.strip(b" ")
    if b"host" not in headers or headers.get(b"connection", b"").lower() not in _STAYS:
        return None
    token = headers.get(b"authorization")
    if token is None and b"x-forwarded-for" in headers:  # uvicorn knows whom to believe that
        return None
    asked = quick.read(namespace.decode(), name.decode(), query.decode(), token)
    if asked is None:
        return None
    return Plain(path.decode(), asked, request_id(headers.get(b"x-request-id", b"")))


class QuickProtocol(H11Protocol):
    """uvicorn's protocol, but for plain requests to resolve that are hits."""

    short: quick.Quick
    requests: RequestLog

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*arguments, **named)
        # What came behind a request that is being looked up; None: there is no such request.
        self._behind: bytes | None = None
        self._ends = False

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        if self._behind is not None:
            self._behind += data
            self.flow.pause_reading()
            return
        plain = read(data) if self._rests() else None
        if plain is None:
            super().data_received(data)
            return
        started = time.perf_counter()
        self._unset_keepalive_if_required()
        self._behind = b""
        self.requests.in_progress.inc()
        self.short.find(plain.asked, lambda hit: self._found(data, plain, started, hit))

    def shutdown(self) -> None:
        """Close the connection, or let it be closed when the request is answered."""
        if self._behind is None:
            super().shutdown()
        else:
            self._ends = True

    def _rests(self) -> bool:
        """Say whether no request is half read or half answered, and no answer waits to be sent."""
        return (
            self.conn.their_state is h11.IDLE
            and self.conn.our_state is h11.IDLE
            and not self.conn.trailing_data[0]
            and not self.flow.write_paused
        )

    def _found(self, data: bytes, plain: Plain, started: float, hit: quick.Hit | None) -> None:
        """Answer a request, or pass it on."""
        behind, self._behind = self._behind or b"", None
        self.requests.in_progress.dec()
        if not self.transport.is_closing():
            if hit is None or not self._answer(plain, started, hit):
                self._pass_on(data + behind)
            elif behind:
                self.data_received(behind)
        if self._ends:
            super().shutdown()

    def _pass_on(self, data: bytes) -> None:
        """Give bytes whose first request was looked up in vain to uvicorn's protocol."""
        shared = self.app_state
        self.app_state = {**shared, quick.LOOKED_UP: True}  # of which the request gets a copy
        super().data_received(data)
        self.app_state = shared

    def _answer(self, plain: Plain, started: float, hit: quick.Hit) -> bool:
        """Send the answer; return whether the limit of requests allows it."""
        state: dict[str, Any] = {}
        try:
            self.short.spend(hit.actor, {"client": self.client, "state": state})
        except RateLimitError:
            return False
        own = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(hit.body)),
            (b"x-request-id", plain.request_id.encode()),
        ]
        headers = [*self.server_state.default_headers, *own, *state.get("rate_headers", [])]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join([b"HTTP/1.1 200 OK\r\n", *lines, b"\r\n", hit.body]))
        self.on_response_complete()
        seconds = time.perf_counter() - started
        self.requests.note(
            Request("GET", plain.path, quick.ROUTE, plain.request_id, hit.actor), 200, seconds
        )
        return True


def protocol(short: quick.Quick, requests: RequestLog) -> type[QuickProtocol]:
    """Return the protocol of one application, as uvicorn takes it."""
    bound = {"short": short, "requests": requests}
    return type(QuickProtocol.__name__, (QuickProtocol,), bound)
