"""A TCP proxy that does to connections what networks do: delay, cut, reset, change a byte."""

import asyncio
import contextlib
import random
import socket
import struct
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

_HEAD = 1500
"""Bytes of an answer that are left alone, so that a changed byte is one of the body."""

_LONGEST = 30_000
"""Bytes after which a connection that shall break has broken; clients use one again and again."""

_LIFE = 10_000
"""Bytes of answers after which any connection ends."""

Pumping = Coroutine[Any, Any, None]


@dataclass
class FaultProxy:
    """Forwards to ``target``; each connection may meet one fault, by the given chances."""

    target: tuple[str, int]
    chances: dict[str, float]
    seed: int = 0
    port: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - chance, no secret
        self._open: weakref.WeakSet[asyncio.WriteTransport] = weakref.WeakSet()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _draw(self) -> str:
        at = self._random.random()
        for fault, chance in self.chances.items():
            at -= chance
            if at < 0:
                self.faults[fault] += 1
                return fault
        return "none"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._open.add(writer.transport)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the end of all proxies
                await self._answer(reader, writer)
        finally:
            writer.close()

    async def end(self) -> None:
        """Close every connection that is open, whatever is under way on it."""
        for transport in list(self._open):
            transport.abort()
        await asyncio.sleep(0)  # they close in the next turn of the loop

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._draw()
        if fault == "refuse":
            _reset(writer)
            return
        try:
            source, sink = await asyncio.open_connection(*self.target)
        except OSError:
            _reset(writer)
            return
        self._open.add(sink.transport)
        try:
            if fault == "delay":
                await asyncio.sleep(self._random.uniform(0.05, 0.4))
            await self._forward(fault, partial(_pump, reader, sink), partial(_pump, source, writer))
            if fault in {"cut", "drop"}:
                _reset(writer)
        finally:
            sink.close()

    async def _forward(
        self, fault: str, there: Callable[..., Pumping], back: Callable[..., Pumping]
    ) -> None:
        limit = self._random.randrange(1, _LONGEST) if fault in {"cut", "drop"} else None
        life = limit if fault == "drop" else _LIFE  # or one good connection would serve for ever
        tasks = {
            asyncio.create_task(there(limit if fault == "cut" else None)),
            asyncio.create_task(back(life, flip=fault == "flip")),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if fault not in {"cut", "drop"}:
                await asyncio.wait(tasks, timeout=1)
        finally:
            for task in tasks:
                task.cancel()


async def _pump(
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    limit: int | None,
    *,
    flip: bool = False,
) -> None:
    passed = 0
    with contextlib.suppress(OSError):
        while data := await source.read(4096):
            if flip and passed + len(data) > _HEAD:
                data, flip = data[:-1] + bytes([data[-1] ^ 0x40]), False
            if limit is not None and passed + len(data) > limit:
                sink.write(data[: limit - passed])
                await sink.drain()
                return
            passed += len(data)
            sink.write(data)
            await sink.drain()
        sink.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of an orderly end."""
    plain = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.contextmanager
def running(*proxies: FaultProxy) -> Iterator[None]:
    """Run proxies in a thread of their own until the block ends."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        servers = []
        for proxy in proxies:
            server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
            proxy.port = server.sockets[0].getsockname()[1]
            servers.append(server)
        ready.set()
        await stop.wait()
        for server in servers:
            server.close()
        mine = asyncio.current_task()
        rest = [task for task in asyncio.all_tasks() if task is not mine]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for proxy in proxies:
            await proxy.end()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
