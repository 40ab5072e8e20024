"""The statement of :mod:`rankloom_server.quick`, and the answer that its row becomes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from rankloom_server import catalogue, signed
from rankloom_server.access import ANONYMOUS, EVERYWHERE, Scope
from rankloom_server.models import ADAPTER, ALIAS, NAMESPACE, TOKEN, TOKEN_GRANT, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

_COLUMNS = tuple(column for column in catalogue.VERSION_COLUMNS if column.key != "adapter_id")
_quoted = json.encoder.encode_basestring_ascii

# Rights are compared with what was asked for, and not with a column, which a subquery within a
# subquery would read from a table of its own.
_NAMESPACE: sa.BindParameter[str] = sa.bindparam("namespace", type_=NAMESPACE.c.name.type)


class Statement(NamedTuple):
    """A statement as the driver takes it.

    Attributes:
        text: with a place for each value.
        names: of the values, in the order of their places.
        constants: those of them that are always the same.
    """

    text: str
    names: tuple[str, ...]
    constants: dict[str, Any]

    def values(self, given: dict[str, Any]) -> list[Any]:
        """Return the values in the order of their places."""
        known = self.constants | given
        return [known[name] for name in self.names]


def compiled(dialect: sa.Dialect, how: str, *, anonymous: bool, bare: bool) -> Statement:
    """Return a statement.

    Its row is the value ``mark`` as it was given, who asks (``NULL``: nobody who may read), by whom
    the version must be signed, another namespace that has the name, if ``bare`` asks for it, and
    then what :func:`body` takes.

    Args:
        dialect: of the database.
        how: ``latest``, ``alias``, ``number`` or ``digest``.
        anonymous: there is no token.
        bare: the name must be no other namespace's.
    """
    joined = sa.func.group_concat if dialect.name == "sqlite" else sa.func.string_agg
    aliases = sa.select(joined(ALIAS.c.name, sa.literal_column("','"))).where(
        ALIAS.c.adapter_id == ADAPTER.c.id, ALIAS.c.digest == VERSION.c.digest
    )
    statement = (
        sa.select(
            sa.cast(sa.bindparam("mark"), sa.Text).label("mark"),
            (_public() if anonymous else _holder()).label("actor"),
            sa.cast(signed.REQUIRED, sa.Text).label("required"),
            (_namesake() if bare else sa.null()).label("namesake"),
            aliases.scalar_subquery().label("aliases"),
            VERSION.c.manifest,
            sa.cast(VERSION.c.probe, sa.Text).label("probe"),
            *(_as_text(column, dialect.name) for column in _COLUMNS),
        )
        .select_from(catalogue.VERSIONS)
        .where(
            ADAPTER.c.namespace == _NAMESPACE,
            ADAPTER.c.name == sa.bindparam("name"),
            VERSION.c.purged_at.is_(None),
            _named(how),
        )
    )
    style = "qmark" if dialect.name == "sqlite" else "numeric_dollar"  # as libpq has them
    kind: Any = type(dialect)
    made = statement.compile(dialect=kind(paramstyle=style))
    return Statement(str(made), tuple(made.positiontup or ()), dict(made.params))


def _as_text(column: sa.ColumnElement[Any], database: str) -> sa.ColumnElement[Any]:
    """Return the expression for a column as both databases' readers have it."""
    if isinstance(column.type, sa.JSON):
        return sa.cast(column, sa.Text).label(column.key)
    if column.key == "created_at" and database == "postgresql":  # SQLite keeps it in this form
        form: sa.ColumnElement[str] = sa.literal_column("'YYYY-MM-DD HH24:MI:SS.US'")
        utc: sa.ColumnElement[str] = sa.literal_column("'UTC'")
        return sa.func.to_char(sa.func.timezone(utc, column), form).label(column.key)
    return column


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
    names = ",".join(map(_quoted, sorted(aliases.split(",")))) if aliases else ""
    fields = tuple(put(value) for put, value in zip(_PUTS, version, strict=True))
    return (_FORM % (*fields, names, manifest, _plain(probe))).encode()


def _text(value: str | None) -> str:
    return "null" if value is None else _quoted(value)


def _plain(value: str | int | None) -> str:
    return "null" if value is None else str(value)


def _moment(value: str) -> str:
    date, _, time = value.partition(" ")
    return f'"{date}T{time.removesuffix(".000000")}Z"'


def _put(column: sa.ColumnElement[Any]) -> Callable[[Any], str]:
    """Return how the value of a column becomes JSON."""
    if column.key == "created_at":
        return _moment
    return _plain if isinstance(column.type, sa.JSON | sa.Integer) else _text


_PUTS = tuple(map(_put, _COLUMNS))
_FIELDS = ",".join(f'"{column.key}":%s' for column in _COLUMNS)
_FORM = f'{{"version":{{{_FIELDS},"aliases":[%s]}},"manifest":%s,"probe":%s}}'
