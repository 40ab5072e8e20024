"""The bases that the registry knows."""

from __future__ import annotations

from fastapi import APIRouter

from rankloom.registry import wire
from rankloom_server.routes.deps import Pusher, Reader

router = APIRouter(prefix="/bases", tags=["bases"])


@router.get("")
def list_bases(service: Reader) -> wire.BaseList:
    """List all bases in name order, without their tensors."""
    return wire.BaseList(items=service.list_bases())


@router.get("/{name}")
def get_base(service: Reader, name: str) -> wire.BaseRecord:
    """Return a base with its tensors' headers."""
    return service.get_base(name)


@router.post("")
def add_base(service: Pusher, body: wire.BaseRecord) -> wire.BaseRecord:
    """Record a base; the same again changes nothing."""
    return service.add_base(body)
