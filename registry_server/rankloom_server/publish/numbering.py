"""Semantic versions of an adapter's versions: given once, to one content, and never again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom.errors import ConflictError
from rankloom_server import catalogue
from rankloom_server.models import ADAPTER, VERSION

if TYPE_CHECKING:
    from rankloom.ref import AdapterName


def check(connection: sa.Connection, adapter: AdapterName, digest: str, semver: str | None) -> None:
    """Refuse a semantic version that another content has, or for one that has another.

    Raises:
        ConflictError: (REG004) it is so.
    """
    if semver is None:
        return
    statement = (
        sa.select(VERSION.c.number, VERSION.c.semver, VERSION.c.digest)
        .join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id)
        .where(
            catalogue.is_adapter(adapter),
            sa.or_(VERSION.c.semver == semver, VERSION.c.digest == digest),
        )
    )
    for row in connection.execute(statement):
        if row.digest != digest:
            message = f"REG004 {adapter}@{semver} is v{row.number}, which has another content"
            raise ConflictError(message, hint="give the next semantic version")
        if row.semver not in {None, semver}:
            message = f"REG004 {adapter}@v{row.number} is {row.semver} already, and not {semver}"
            raise ConflictError(message, hint="a semantic version that was given stays")


def give(connection: sa.Connection, adapter_id: int, digest: str, semver: str | None) -> None:
    """Give a version its semantic version; the caller holds the adapter's lock and has checked."""
    if semver is None:
        return
    mine = VERSION.c.adapter_id == adapter_id, VERSION.c.digest == digest
    connection.execute(sa.update(VERSION).where(*mine).values(semver=semver))
