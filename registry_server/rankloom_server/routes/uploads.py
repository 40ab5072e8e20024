"""The two steps of a push that speak with the registry; the bytes go to the store."""

from __future__ import annotations

from fastapi import APIRouter, Request

from rankloom.registry import wire
from rankloom_server.routes.deps import AdapterDep, Pusher, absolute

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


@router.post("/uploads/{upload_id}/publish")
def publish(service: Pusher, upload_id: str) -> wire.Version:
    """Verify the blobs and make them a version; again: the same version."""
    return service.publish(upload_id)
