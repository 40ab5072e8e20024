"""The blobs of a local store. The signature in the URL is the permission: no token is needed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse

from rankloom import digest as digests
from rankloom import ref as refs
from rankloom.errors import NotFoundError
from rankloom_server.routes.deps import ServiceDep
from rankloom_server.routes.signed import Signed, receive
from rankloom_server.store.interface import blob_key

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
        signed: Annotated[Signed, Depends()],
    ) -> None:
        self.digest = digests.parse(f"{algorithm}:{value}")
        self.size = signed.size
        key = blob_key(refs.check_name(namespace, "namespace"), self.digest)
        self.store = signed.check(request.method, key, service.store).inside(namespace)


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
    return await receive(request, blob.digest, blob.size, blob.store.put)
