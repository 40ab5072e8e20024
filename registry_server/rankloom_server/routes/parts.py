"""The parts of large blobs of a local store; permission is the signature, as for blobs."""

from __future__ import annotations

import functools
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from rankloom import digest as digests
from rankloom import ref as refs
from rankloom_server.routes.deps import ServiceDep
from rankloom_server.routes.signed import Signed, receive
from rankloom_server.store.interface import part_key

router = APIRouter(prefix="/parts/{namespace}/{algorithm}/{folder}/{value}", tags=["blobs"])


@router.put("/{part}")
async def put_part(
    request: Request,
    service: ServiceDep,
    namespace: str,
    algorithm: str,
    value: str,
    part: str,
    signed: Annotated[Signed, Depends()],
) -> Response:
    """Keep a part of a blob, named by its digest; other bytes are not kept."""
    digest = digests.parse(f"{algorithm}:{value}")
    piece = digests.parse(f"{algorithm}:{part}")
    key = part_key(refs.check_name(namespace, "namespace"), digest, piece)
    store = signed.check(request.method, key, service.store).inside(namespace)
    keep = functools.partial(store.put_part, digest)
    return await receive(request, piece, signed.size, keep)
