"""The bytes of a local store. The signature in the URL is the permission: no token is needed."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import anyio
import anyio.from_thread
import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.requests import ClientDisconnect

from rankloom import digest as digests
from rankloom import ref as refs
from rankloom.errors import NotFoundError, UploadCorruptError
from rankloom_server import middleware
from rankloom_server.routes.deps import ServiceDep
from rankloom_server.store.interface import blob_key
from rankloom_server.store.local import LocalStore

router = APIRouter(prefix="/blobs/{namespace}/{algorithm}/{folder}/{value}", tags=["blobs"])


class SignedBlob:
    """The blob of a request whose signature was found good."""

    def __init__(
        self,
        request: Request,
        service: ServiceDep,
        namespace: str,
        algorithm: str,
        value: str,
        size: Annotated[int, Query(ge=0)],
        expires: Annotated[int, Query()],
        signature: Annotated[str, Query(max_length=64)],
    ) -> None:
        store = service.store
        if not isinstance(store, LocalStore) or store.signer is None:
            message = "this registry's blobs are in another store"
            raise NotFoundError(message, hint="ask the registry for a fresh URL")
        self.digest = digests.parse(f"{algorithm}:{value}")
        self.size = size
        self.store = store.inside(refs.check_name(namespace, "namespace"))
        key = blob_key(namespace, self.digest)
        store.signer.check(request.method, key, size, expires, signature)


SignedDep = Annotated[SignedBlob, Depends()]


@router.get("")
def get_blob(blob: SignedDep) -> FileResponse:
    """Send a blob's bytes, or a range of them."""
    file = blob.store.file(blob.digest)
    if file is None:
        message = f"blob {blob.digest} is not in the store"
        raise NotFoundError(message, hint="push the adapter again")
    headers = {
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    return FileResponse(file, media_type="application/octet-stream", headers=headers)


@router.put("")
async def put_blob(request: Request, blob: SignedDep) -> Response:
    """Keep a blob; its bytes are hashed while they arrive, and others are not kept."""
    length = request.headers.get("content-length")
    if length is not None and length != str(blob.size):
        message = f"REG001 {length} bytes were announced for {blob.digest}, {blob.size} declared"
        raise UploadCorruptError(message, hint="did the file change during the push? push again")
    await anyio.to_thread.run_sync(
        blob.store.put, blob.digest, blob.size, _chunks(request), limiter=_writers()
    )
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
