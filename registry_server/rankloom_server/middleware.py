"""What surrounds every request: its id, its log line, a limit on its body."""

from __future__ import annotations

import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio

from rankloom.registry.wire import Problem
from rankloom_server import problems, request_log
from rankloom_server.request_log import Request

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rankloom_server.request_log import RequestLog

MAX_BODY = 32 << 20
"""Bytes of a JSON body; the headers of a base with 100 000 tensors take about 10 MB."""

IDLE_SECONDS = 60
"""How long a client that sends a body may pause."""

_log = logging.getLogger("rankloom_server")


class RequestContext:
    """Gives every request an id and a log line, and answers faults of our own."""

    def __init__(self, app: ASGIApp, requests: RequestLog) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = scope.setdefault("state", {})["request_id"] = request_log.request_id(given)
        started, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                ours = [(b"x-request-id", request_id.encode())]
                ours += scope["state"].get("rate_headers", [])
                message["headers"] = [*message["headers"], *ours]
            await send(message)

        with self._requests.in_progress.track_inprogress():
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                _log.exception("request %s failed", request_id, extra={"request_id": request_id})
                if status:
                    raise  # the answer has begun; only breaking the connection tells the client
                problem = problems.respond(problems.internal(request_id))
                await problem(scope, receive, send_with_id)
        self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        state = scope["state"]
        request = Request(
            method=scope["method"],
            path=scope["path"],
            route=getattr(scope.get("route"), "path", "none"),
            request_id=state["request_id"],
            actor=state.get("actor"),
            trace_id=state.get("trace_id"),
        )
        self._requests.note(request, status, seconds)


class BodyLimit:
    """Refuses bodies that are larger than any message; blobs have their own, signed size."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"].startswith(("/blobs/", "/parts/")):
            await self._app(scope, receive, send)
            return
        # Messages are small enough to be held: then a body is refused before anything runs.
        try:
            body = await self._read(receive)
        except TimeoutError:
            await self._refuse(408, f"no byte came in {IDLE_SECONDS} s", scope, receive, send)
            return
        if len(body) > self._limit:
            detail = f"the body is larger than {self._limit} bytes"
            await self._refuse(413, detail, scope, receive, send)
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes:
        """Return the body, or so much of it that it is too large."""
        body, more = bytearray(), True
        while more and len(body) <= self._limit:
            with anyio.fail_after(IDLE_SECONDS):
                message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return bytes(body)

    async def _refuse(
        self, status: int, detail: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        problem = Problem(
            title=HTTPStatus(status).phrase,
            status=status,
            detail=detail,
            code="invalid-request",
            request_id=scope["state"]["request_id"],
        )
        response = problems.respond(problem, {"connection": "close"})
        await response(scope, receive, send)
