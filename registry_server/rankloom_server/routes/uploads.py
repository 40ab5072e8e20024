"""The steps of a push that speak with the registry; the bytes go to the store."""

from __future__ import annotations

from http import HTTPStatus
from typing import cast

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from rankloom import digest as digests
from rankloom.registry import wire
from rankloom_server.routes.deps import AdapterDep, Pusher, absolute
from rankloom_server.under_way import UnderWay

router = APIRouter(tags=["uploads"])


@router.post("/adapters/{namespace}/{name}/uploads", status_code=201)
def open_upload(
    service: Pusher, request: Request, adapter: AdapterDep, body: wire.UploadRequest
) -> wire.Upload:
    """Declare a version; the answer says which blobs to send, and where."""
    upload = service.open_upload(adapter, body)
    missing = tuple(
        target.model_copy(update={"url": absolute(request, target.url)})
        for target in upload.missing
    )
    return upload.model_copy(update={"missing": missing})


@router.put("/uploads/{upload_id}/blobs/{digest}/parts")
def assemble(
    service: Pusher, request: Request, upload_id: str, digest: str, body: wire.PartsRequest
) -> wire.MissingParts:
    """Declare the parts of a large blob; the answer says which to send, and where.

    When none is missing, the blob is there. Ask as often as you like: for fresh URLs, to go on
    after a crash, and to have the blob put together once all parts are sent.
    """
    found = service.assemble(upload_id, digests.parse(digest), body)
    missing = tuple(
        target.model_copy(update={"url": absolute(request, target.url)}) for target in found.missing
    )
    return wire.MissingParts(missing=missing)


@router.post(
    "/uploads/{upload_id}/publish",
    response_model=wire.Version,
    responses={202: {"model": wire.Publishing}},
)
def publish(service: Pusher, request: Request, upload_id: str) -> wire.Version | JSONResponse:
    """Verify the blobs and make them a version; again: the same version.

    When that takes long the answer is 202; the same request, sent again, then waits for the end.
    """
    under_way = cast(UnderWay, request.app.state.under_way)
    version = under_way.publish(upload_id, service.actor.name, lambda: service.publish(upload_id))
    if version is not None:
        return version
    pending = wire.Publishing(upload_id=upload_id).model_dump(mode="json")
    return JSONResponse(pending, HTTPStatus.ACCEPTED, {"Retry-After": "1"})
