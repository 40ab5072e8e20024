"""Whom namespaces trust to push from CI, and the tokens that are made for those jobs."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom import digest as digests
from rankloom.errors import ConflictError, ForbiddenError, NotFoundError
from rankloom.registry.wire import MintedToken, TrustedPublisher, TrustedPublishers
from rankloom_server import audit, auth, db
from rankloom_server.access import EVERYWHERE, Grant, Scope
from rankloom_server.models import (
    MINTED_TOKEN,
    SHOWN_TOKEN,
    TOKEN,
    TOKEN_GRANT,
    TRUSTED_PUBLISHER,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.registry.wire import TrustRequest
    from rankloom_server.access import Actor
    from rankloom_server.oidc.issuer import Job

_HINT = "'loractl namespace trust' makes a namespace trust a job"


def trust(
    connection: sa.Connection, actor: Actor, namespace: str, request: TrustRequest
) -> TrustedPublisher:
    """Trust a job of CI to push to a namespace; the same again changes nothing."""
    values = {
        "namespace": Grant(Scope.PUSH, namespace, request.adapter or EVERYWHERE).place,
        "issuer": request.issuer,
        "repository": request.repository.lower(),
        "workflow": request.workflow,
        "environment": request.environment.lower(),
    }
    now = datetime.now(UTC)
    statement = db.insert(connection, TRUSTED_PUBLISHER).values(created_at=now, **values)
    made = statement.on_conflict_do_nothing().returning(TRUSTED_PUBLISHER.c.id)
    if connection.execute(made).first() is not None:
        _note(connection, actor, "publisher.trust", namespace, values)
    same = [TRUSTED_PUBLISHER.c[name] == value for name, value in values.items()]
    row = connection.execute(sa.select(TRUSTED_PUBLISHER).where(*same)).mappings().one()
    return _publisher(row)


def list_all(connection: sa.Connection, namespace: str) -> TrustedPublishers:
    """Return all whom a namespace trusts, oldest first."""
    statement = sa.select(TRUSTED_PUBLISHER).where(_inside(namespace))
    rows = connection.execute(statement.order_by(TRUSTED_PUBLISHER.c.id)).mappings()
    return TrustedPublishers(items=tuple(map(_publisher, rows)))


def _inside(namespace: str) -> sa.ColumnElement[bool]:
    place = TRUSTED_PUBLISHER.c.namespace
    return sa.or_(place == namespace, place.startswith(f"{namespace}/", autoescape=True))


def _publisher(row: sa.RowMapping) -> TrustedPublisher:
    namespace, _, adapter = row["namespace"].partition("/")
    return TrustedPublisher.model_validate(
        {**row, "namespace": namespace, "adapter": adapter or None}
    )


def distrust(connection: sa.Connection, actor: Actor, namespace: str, publisher_id: int) -> None:
    """Trust a job no longer; tokens that were made for it end at once.

    Raises:
        NotFoundError: the namespace trusts no such job.
    """
    mine = (TRUSTED_PUBLISHER.c.id == publisher_id, _inside(namespace))
    # A job that is about to get a token holds the row: that token is among those that end.
    locked = sa.select(TRUSTED_PUBLISHER).where(*mine).with_for_update()
    row = connection.execute(locked).mappings().one_or_none()
    if row is None:
        message = f"namespace {namespace} has no trusted publisher {publisher_id}"
        raise NotFoundError(message, hint=f"'loractl namespace trusted {namespace}' lists them")
    minted = sa.select(MINTED_TOKEN.c.token_id).where(MINTED_TOKEN.c.publisher_id == publisher_id)
    _forget(connection, connection.execute(minted).scalars().all())
    connection.execute(sa.delete(TRUSTED_PUBLISHER).where(*mine))
    named = ("namespace", "issuer", "repository", "workflow", "environment")
    detail = {name: row[name] for name in named}
    _note(connection, actor, "publisher.distrust", namespace, detail)


def spend(connection: sa.Connection, name: str, until: datetime) -> None:
    """Note that an identity token was shown; each is good for one exchange.

    Raises:
        ForbiddenError: it was shown before.
    """
    now = datetime.now(UTC)
    connection.execute(sa.delete(SHOWN_TOKEN).where(SHOWN_TOKEN.c.expires_at < now))
    values = {"digest": digests.of_bytes(name.encode()), "expires_at": until}
    statement = db.insert(connection, SHOWN_TOKEN).values(**values).on_conflict_do_nothing()
    if connection.execute(statement.returning(SHOWN_TOKEN.c.digest)).first() is None:
        message = "the identity token was exchanged already"
        hint = (
            "ask CI for a fresh one; a job that pushes often runs 'loractl login URL --oidc' once"
        )
        raise ForbiddenError(message, hint=hint)


def mint(connection: sa.Connection, actor: Actor, job: Job, until: datetime) -> MintedToken:
    """Make a token that may push where a job is trusted, and read in those namespaces.

    Raises:
        ForbiddenError: none does.
    """
    trusted = _trusting(connection, job)
    pushes = {Grant.at(Scope.PUSH, row.namespace) for row in trusted}
    namespaces = sorted({grant.namespace for grant in pushes})
    grants = frozenset(pushes | {Grant(Scope.READ, name) for name in namespaces})
    _forget_expired(connection)
    token, name = auth.fresh(), _name(job)
    token_id = auth.insert(connection, name, token, grants, until)
    if token_id is None:
        message = f"there is a token {name} already"
        raise ConflictError(message, hint="try again")
    rows = [{"token_id": token_id, "publisher_id": row.id} for row in trusted]
    connection.execute(sa.insert(MINTED_TOKEN), rows)
    detail = {
        "repository": job.repository,
        "workflow": job.workflow,
        "environment": job.environment,
        **job.detail,
    }
    for namespace in namespaces:
        may = " ".join(str(one) for one in sorted(pushes) if one.namespace == namespace)
        _note(connection, actor, "token.mint", namespace, {**detail, "may": may}, subject=name)
    return MintedToken(token=token, expires_at=until)


def _trusting(connection: sa.Connection, job: Job) -> list[sa.Row[tuple[object, ...]]]:
    """Return the rows by which a job is trusted, and remember its repository's number in them."""
    statement = (
        sa.select(TRUSTED_PUBLISHER)
        .where(
            TRUSTED_PUBLISHER.c.issuer == job.issuer,
            TRUSTED_PUBLISHER.c.repository == job.repository,
            TRUSTED_PUBLISHER.c.workflow == job.workflow,
            TRUSTED_PUBLISHER.c.environment.in_(["", job.environment]),
        )
        .with_for_update()
    )
    named = connection.execute(statement).all()
    if not named:
        message = f"no namespace trusts this job: {job}"
        raise ForbiddenError(message, hint=_HINT)
    found = [row for row in named if row.repository_id in {None, job.repository_id}]
    if not found:
        message = f"{job.repository} is another repository now: its number is {job.repository_id}"
        hint = "if it was made anew by those you trust, take the trust back and give it again"
        raise ForbiddenError(message, hint=hint)
    ids = [row.id for row in found]
    pinned = sa.update(TRUSTED_PUBLISHER).where(TRUSTED_PUBLISHER.c.id.in_(ids))
    connection.execute(pinned.values(repository_id=job.repository_id))
    return list(found)


def _name(job: Job) -> str:
    """Return a token's name that tells the reader of a version's creator where it came from."""
    where = re.sub(r"[^a-z0-9]+", "-", job.repository)[:50].strip("-")
    return f"ci.{job.issuer[:20].strip('.-_')}.{where}.{secrets.token_hex(4)}"


def _forget_expired(connection: sa.Connection) -> None:
    over = (
        sa.select(MINTED_TOKEN.c.token_id)
        .join(TOKEN, TOKEN.c.id == MINTED_TOKEN.c.token_id)
        .where(TOKEN.c.expires_at < datetime.now(UTC))
    )
    _forget(connection, connection.execute(over).scalars().all())


def _forget(connection: sa.Connection, token_ids: Sequence[int]) -> None:
    for table, column in (
        (MINTED_TOKEN, MINTED_TOKEN.c.token_id),
        (TOKEN_GRANT, TOKEN_GRANT.c.token_id),
        (TOKEN, TOKEN.c.id),
    ):
        connection.execute(sa.delete(table).where(column.in_(token_ids)))


def _note(
    connection: sa.Connection,
    actor: Actor,
    action: str,
    namespace: str,
    detail: dict[str, str],
    *,
    subject: str | None = None,
) -> None:
    audit.record(
        connection,
        actor,
        action,
        namespace=namespace,
        subject=subject or namespace,
        detail=detail,
    )
