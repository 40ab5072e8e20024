"""Requests for the bytes of a local store, which carry a signature, and their bodies."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated

import anyio
import anyio.from_thread
import anyio.to_thread
from fastapi import Query, Request, Response
from starlette.requests import ClientDisconnect

from rankloom.errors import NotFoundError, UploadCorruptError
from rankloom_server import middleware
from rankloom_server.store.interface import Store
from rankloom_server.store.local import LocalStore


class Signed:
    """What a signed URL says beside its path."""

    def __init__(
        self,
        size: Annotated[int, Query(ge=0)],
        expires: Annotated[int, Query()],
        signature: Annotated[str, Query(max_length=64)],
    ) -> None:
        self.size, self._expires, self._signature = size, expires, signature

    def check(self, method: str, key: str, store: Store) -> LocalStore:
        """Return the store if it signed this URL.

        Raises:
            ForbiddenError: it did not, or its time is over.
            NotFoundError: the store answers no signed URLs.
        """
        if not isinstance(store, LocalStore) or store.signer is None:
            message = "this registry's blobs are in another store"
            raise NotFoundError(message, hint="ask the registry for a fresh URL")
        store.signer.check(method, key, self.size, self._expires, self._signature)
        return store


async def receive(
    request: Request, digest: str, size: int, keep: Callable[[str, int, Iterator[bytes]], None]
) -> Response:
    """Let ``keep`` take the body, in a thread, while it arrives.

    Raises:
        UploadCorruptError: the body is announced with another size.
    """
    length = request.headers.get("content-length")
    if length is not None and length != str(size):
        message = f"REG001 {length} bytes were announced for {digest}, {size} declared"
        raise UploadCorruptError(message, hint="did the file change during the push? push again")
    await anyio.to_thread.run_sync(keep, digest, size, _chunks(request), limiter=_writers())
    return Response(status_code=200)


@functools.cache
def _writers() -> anyio.CapacityLimiter:
    """Return the threads for uploads: slow senders must not take those that answer requests."""
    return anyio.CapacityLimiter(40)


def _chunks(request: Request) -> Iterator[bytes]:
    """Yield the body in a worker thread while it arrives in the event loop."""
    stream = request.stream()
    while True:
        try:
            yield anyio.from_thread.run(_next, stream)
        except StopAsyncIteration:
            return
        except (ClientDisconnect, TimeoutError):
            return  # too few bytes arrived, and the digest shows it


async def _next(stream: AsyncIterator[bytes]) -> bytes:
    with anyio.fail_after(middleware.IDLE_SECONDS):
        return await anext(stream)
