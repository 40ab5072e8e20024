"""What is said about a namespace as a whole; one about which nothing is said is private."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rankloom.errors import NotFoundError
from rankloom.registry.wire import NamespaceRules
from rankloom.signing import openssf
from rankloom_server import audit, db
from rankloom_server.models import ADAPTER, NAMESPACE

if TYPE_CHECKING:
    from rankloom_server.access import Actor

PUBLIC = sa.select(NAMESPACE.c.name).where(NAMESPACE.c.anonymous_read)
"""Names of the namespaces that everybody may read."""


def is_public(connection: sa.Connection, namespace: str | None) -> bool:
    """Say whether everybody may read a namespace; without one, whether there is any such."""
    statement = PUBLIC if namespace is None else PUBLIC.where(NAMESPACE.c.name == namespace)
    return connection.execute(statement.limit(1)).first() is not None


def get(connection: sa.Connection, namespace: str) -> NamespaceRules:
    """Return the rules of a namespace."""
    statement = sa.select(NAMESPACE).where(NAMESPACE.c.name == namespace)
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        return NamespaceRules()
    return NamespaceRules.model_validate({name: row[name] for name in NamespaceRules.model_fields})


def change(
    connection: sa.Connection, actor: Actor, namespace: str, rules: NamespaceRules
) -> NamespaceRules:
    """Set those rules of a namespace that are named, leave the others; return all of them.

    Raises:
        BackendUnavailableError: signers are named, and nothing here can verify signatures.
        RefError: by a signer's key or certificates nothing could be verified.
    """
    for signer in rules.required_signers:
        openssf.check_signer(signer)
    named = rules.model_dump(mode="json", include=rules.model_fields_set)
    everything = NamespaceRules().model_dump(mode="json") | named
    statement = db.insert(connection, NAMESPACE).values(name=namespace, **everything)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[NAMESPACE.c.name], set_={"name": namespace, **named}
        )
    )
    _note(connection, actor, "namespace.rules", namespace, named)
    return get(connection, namespace)


def protect(
    connection: sa.Connection, actor: Actor, namespace: str, alias: str, *, protected: bool
) -> NamespaceRules:
    """Protect one alias or do so no longer, and leave all others; return all rules.

    What is so already is no error and no line of the audit log.

    Raises:
        NotFoundError: an alias of a namespace in which nothing is, and of which nothing was said,
            shall be protected no longer.
    """
    if not protected and not _is_any(connection, namespace):
        message = f"there is no namespace {namespace}, so no alias of it is protected"
        raise NotFoundError(
            message, hint="check the name; 'loractl list' shows those with adapters"
        )
    defaults = NamespaceRules().model_dump(mode="json")
    # Written, if only its name, so that whoever changes the list next waits for this one.
    row = db.insert(connection, NAMESPACE).values(name=namespace, **defaults)
    row = row.on_conflict_do_update(index_elements=[NAMESPACE.c.name], set_={"name": namespace})
    listed = row.returning(NAMESPACE.c.protected_aliases)
    before = set(connection.execute(listed).scalar_one())
    after = before | {alias} if protected else before - {alias}
    if after != before:
        changed = sa.update(NAMESPACE).where(NAMESPACE.c.name == namespace)
        connection.execute(changed.values(protected_aliases=sorted(after)))
        action = "alias.protect" if protected else "alias.unprotect"
        _note(connection, actor, action, namespace, {"alias": alias})
    return get(connection, namespace)


def _is_any(connection: sa.Connection, namespace: str) -> bool:
    """Say whether a namespace has adapters or rules."""
    places = (ADAPTER.c.namespace, NAMESPACE.c.name)
    found = (sa.select(sa.literal(1)).where(place == namespace).limit(1) for place in places)
    return any(connection.execute(statement).first() is not None for statement in found)


def _note(
    connection: sa.Connection, actor: Actor, action: str, namespace: str, detail: dict[str, Any]
) -> None:
    audit.record(connection, actor, action, namespace=namespace, subject=namespace, detail=detail)
