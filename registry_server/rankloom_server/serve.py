"""Run the registry: bind, tell the address, serve until a signal comes."""

from __future__ import annotations

import contextlib
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from rankloom.errors import ConflictError
from rankloom_server import auth, logs, quick_protocol, traces
from rankloom_server.app import create_app
from rankloom_server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from fastapi import FastAPI

HOST = "127.0.0.1"
PORT = 8470
_GRACE_SECONDS = 10


def serve(host: str = HOST, port: int = PORT, *, settings: Settings | Path) -> None:
    """Serve until SIGTERM or SIGINT; requests that have begun are finished.

    Before the first request is accepted, the address is printed and, if there is no token at all
    yet, an admin token, which is never shown again. Port 0 picks a free one.

    Raises:
        ConflictError: the port is in use.
        RegistryError: the database does not answer, or has a schema of another version.
    """
    if isinstance(settings, Path):
        settings = Settings(data_dir=settings)
    logs.configure(settings.log)
    app = create_app(settings)
    server = uvicorn.Server(configuration(app))
    with _listen(host, port) as listening, _signals_end(server):
        shown = f"[{host}]" if ":" in host else host
        print(f"rankloom registry on http://{shown}:{listening.getsockname()[1]}", flush=True)
        token = auth.create_first(app.state.service.engine)
        if token is not None:
            print(f"admin token (shown once): {token}", flush=True)
        server.run(sockets=[listening])


def configuration(app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn serves an application of :func:`rankloom_server.app.create_app`."""
    # A request that is answered before ASGI begins would have no span.
    quick = quick_protocol.protocol(app.state.quick, app.state.requests)
    return uvicorn.Config(
        app,
        http="h11" if traces.wanted() else quick,
        access_log=False,  # ours leaves out the query, which may carry a signature
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        message = f"cannot listen on {host}:{port}: {error.strerror}"
        raise ConflictError(message, hint="choose another port; 0 picks a free one") from error
    # asyncio does this only for sockets of its own making; without it every answer on a kept
    # connection waits 40 ms for the client's delayed acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


@contextlib.contextmanager
def _signals_end(server: uvicorn.Server) -> Iterator[None]:
    """Let a signal end the server in order, from the moment on that its address is printed.

    uvicorn has handlers of its own while it runs, and raises the signal once more when it has
    ended; then it must not end the process, which has done what was asked.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
