"""The statement of :mod:`rankloom_server.quick`, and the answer that its row becomes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from rankloom_server import catalogue, signed
from rankloom_server.access import ANONYMOUS, EVERYWHERE, Scope
from rankloom_server.models import ADAPTER, ALIAS, NAMESPACE, TOKEN, TOKEN_GRANT, VERSION

_COLUMNS = tuple(column for column in catalogue.VERSION_COLUMNS if column.key != "adapter_id")
_KEYS = tuple(column.key for column in _COLUMNS)
_JSON = tuple(column.key for column in _COLUMNS if isinstance(column.type, sa.JSON))
_encode = json.JSONEncoder().encode

# Rights are compared with what was asked for, and not with a column, which a subquery within a
# subquery would read from a table of its own.
_NAMESPACE: sa.BindParameter[str] = sa.bindparam("namespace", type_=NAMESPACE.c.name.type)


def compiled(dialect: sa.Dialect, how: str, anonymous: bool) -> tuple[str, dict[str, Any]]:
    """Return the text of a statement, and the values in it that are always the same.

    Its row is who asks (``NULL``: nobody who may read), by whom the version must be signed,
    another namespace that has the name, and then what :func:`body` takes.

    Args:
        dialect: of the database.
        how: ``latest``, ``alias``, ``number`` or ``digest``.
        anonymous: there is no token.
    """
    columns = [
        sa.cast(column, sa.Text).label(column.key) if column.key in _JSON else column
        for column in _COLUMNS
    ]
    aggregate = sa.func.json_group_array if dialect.name == "sqlite" else sa.func.json_agg
    aliases = sa.select(sa.cast(aggregate(ALIAS.c.name), sa.Text)).where(
        ALIAS.c.adapter_id == ADAPTER.c.id, ALIAS.c.digest == VERSION.c.digest
    )
    statement = (
        sa.select(
            (_public() if anonymous else _holder()).label("actor"),
            sa.cast(signed.REQUIRED, sa.Text).label("required"),
            _namesake().label("namesake"),
            aliases.scalar_subquery().label("aliases"),
            VERSION.c.manifest,
            sa.cast(VERSION.c.probe, sa.Text).label("probe"),
            *columns,
        )
        .select_from(catalogue.VERSIONS)
        .where(
            ADAPTER.c.namespace == _NAMESPACE,
            ADAPTER.c.name == sa.bindparam("name"),
            VERSION.c.purged_at.is_(None),
            _named(how),
        )
    )
    if dialect.name == "sqlite":
        dialect = sqlite.dialect(paramstyle="named")  # as the driver of the other one has them
    made = statement.compile(dialect=dialect)
    return str(made), dict(made.params)


def _named(how: str) -> sa.ColumnElement[bool]:
    value: sa.BindParameter[Any] = sa.bindparam("value")
    if how == "latest":
        return VERSION.c.number == catalogue.LATEST
    if how == "alias":
        named = sa.select(ALIAS.c.digest).where(
            ALIAS.c.adapter_id == ADAPTER.c.id, ALIAS.c.name == value
        )
        return VERSION.c.digest == named.scalar_subquery()
    return VERSION.c[how] == value


def _namesake() -> sa.ScalarSelect[Any]:
    """Return the expression for another namespace that has the name, ``NULL`` if none has."""
    other = ADAPTER.alias("other")
    has_name = other.c.name == sa.bindparam("name"), other.c.namespace != _NAMESPACE
    return sa.select(other.c.namespace).where(*has_name).limit(1).scalar_subquery()


def _public() -> sa.ScalarSelect[Any]:
    """Return the expression for who asks without a token, ``NULL`` if that needs one."""
    public = NAMESPACE.c.name == _NAMESPACE, NAMESPACE.c.anonymous_read
    return sa.select(sa.literal(ANONYMOUS.name)).where(*public).scalar_subquery()


def _holder() -> sa.ScalarSelect[Any]:
    """Return the expression for whose token it is, ``NULL`` if it is not good or noted here."""
    now: sa.BindParameter[Any] = sa.bindparam("now", type_=sa.DateTime(timezone=True))
    noted: sa.BindParameter[Any] = sa.bindparam("noted", type_=sa.DateTime(timezone=True))
    may_read = sa.exists().where(
        TOKEN_GRANT.c.token_id == TOKEN.c.id,
        TOKEN_GRANT.c.scope == Scope.READ.value,
        sa.or_(TOKEN_GRANT.c.namespace == _NAMESPACE, TOKEN_GRANT.c.namespace == EVERYWHERE),
    )
    good = (
        TOKEN.c.secret == sa.bindparam("secret"),
        TOKEN.c.revoked_at.is_(None),
        sa.or_(TOKEN.c.expires_at.is_(None), TOKEN.c.expires_at > now),
        TOKEN.c.last_used_at >= noted,
        may_read,
    )
    return sa.select(TOKEN.c.name).where(*good).scalar_subquery()


def body(aliases: str | None, manifest: str, probe: str | None, *version: Any) -> bytes:  # noqa: ANN401
    """Return what the ordinary route would answer; what is JSON in the database stays as it is."""
    row = dict(zip(_KEYS, version, strict=True))
    row["aliases"] = sorted(json.loads(aliases)) if aliases else []
    row["created_at"] = _moment(row["created_at"])
    raw = ",".join(f'"{key}":{row.pop(key)}' for key in _JSON)
    plain = _encode(row)[1:-1]
    rest = f'"manifest":{manifest},"probe":{probe or "null"}'
    return f'{{"version":{{{plain},{raw}}},{rest}}}'.encode()


def _moment(value: datetime | str) -> str:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value.astimezone(UTC)
    return f"{moment.replace(tzinfo=None).isoformat()}Z"
