"""Trusted publishing, in the two steps of PyPI's protocol; no token of ours is needed."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request

from rankloom.registry import wire
from rankloom_server.oidc.exchange import Exchange
from rankloom_server.routes.deps import ActorDep, ServiceDep

router = APIRouter(prefix="/oidc", tags=["access"])


def _exchange(request: Request) -> Exchange:
    return cast(Exchange, request.app.state.exchange)


ExchangeDep = Annotated[Exchange, Depends(_exchange)]


@router.get("/audience")
def audience(_actor: ActorDep, exchange: ExchangeDep) -> wire.Audience:
    """Say for whom an identity token must be made out."""
    return wire.Audience(audience=exchange.audience)


@router.post("/mint-token")
def mint_token(
    service: ServiceDep, actor: ActorDep, exchange: ExchangeDep, body: wire.MintRequest
) -> wire.MintedToken:
    """Exchange an identity token of CI for one that may push where the job is trusted."""
    return exchange.mint(service.engine, body.token, actor)
