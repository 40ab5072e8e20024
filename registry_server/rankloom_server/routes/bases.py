"""The bases that the registry knows."""

from __future__ import annotations

from fastapi import APIRouter

from rankloom.registry import wire
from rankloom_server.routes.deps import PUSH, READ, ServiceDep

router = APIRouter(prefix="/bases", tags=["bases"])


@router.get("", dependencies=[READ])
def list_bases(service: ServiceDep) -> wire.BaseList:
    """List all bases in name order, without their tensors."""
    return wire.BaseList(items=service.list_bases())


@router.get("/{name}", dependencies=[READ])
def get_base(service: ServiceDep, name: str) -> wire.BaseRecord:
    """Return a base with its tensors' headers."""
    return service.get_base(name)


@router.post("", dependencies=[PUSH])
def add_base(service: ServiceDep, body: wire.BaseRecord) -> wire.BaseRecord:
    """Record a base; the same again changes nothing."""
    return service.add_base(body)
