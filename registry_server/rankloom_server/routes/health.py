"""For those who watch over the server."""

from __future__ import annotations

from typing import cast

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response

from rankloom import digest as digests
from rankloom_server import auth, db
from rankloom_server.access import EVERYWHERE, Scope
from rankloom_server.metrics import CONTENT_TYPE, Metrics
from rankloom_server.routes.deps import ActorDep, ServiceDep

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """Say that the process is alive; no token needed."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(service: ServiceDep) -> Response:
    """Say whether database and store answer (204); 503 if one does not."""
    with db.read(service.engine) as connection:
        connection.execute(sa.text("SELECT 1"))
    service.store.size(digests.of_bytes(b""))
    return Response(status_code=204)


@router.get("/metrics")
def metrics(request: Request, service: ServiceDep, actor: ActorDep) -> Response:
    """Return figures for Prometheus; for a token that may read everywhere."""
    auth.authorise(service.engine, actor, Scope.READ, EVERYWHERE)
    figures = cast(Metrics, request.app.state.metrics)
    return Response(figures.render(), headers={"content-type": CONTENT_TYPE})
