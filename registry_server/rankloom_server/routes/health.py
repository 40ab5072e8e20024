"""For those who watch over the server; no token needed, nothing told."""

from __future__ import annotations

import sqlalchemy as sa
from fastapi import APIRouter, Response

from rankloom import digest as digests
from rankloom_server import db
from rankloom_server.routes.deps import ServiceDep

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """Say that the process is alive."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(service: ServiceDep) -> Response:
    """Say whether database and store answer (204); 503 if one does not."""
    with db.read(service.engine) as connection:
        connection.execute(sa.text("SELECT 1"))
    service.store.size(digests.of_bytes(b""))
    return Response(status_code=204)
