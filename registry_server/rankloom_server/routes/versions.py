"""Searching versions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from rankloom.registry import wire
from rankloom_server.routes.deps import Reader

router = APIRouter(prefix="/versions", tags=["versions"])


class VersionSearch(wire.VersionQuery):
    """A query, and which page of what it finds."""

    limit: int = 50
    after: Annotated[int | None, Query(ge=0, lt=1 << 31)] = None


@router.get("")
def search(service: Reader, query: Annotated[VersionSearch, Query()]) -> wire.VersionPage:
    """Search versions; all that is given must hold. Newest first."""
    return service.search(query, limit=query.limit, after=query.after)
