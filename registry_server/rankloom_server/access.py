"""Who asks, and what they may do: scopes by namespace, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from rankloom import ref as refs
from rankloom.errors import RefError

EVERYWHERE: Final = "*"
"""Stands for all namespaces, those to come too; no namespace can have this name."""


class Scope(StrEnum):
    """What may be done in a namespace; none of them includes another."""

    READ = "read"
    PUSH = "push"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One scope in one namespace, or everywhere."""

    scope: Scope
    namespace: str = EVERYWHERE

    def __str__(self) -> str:
        return self.scope if self.namespace == EVERYWHERE else f"{self.scope}:{self.namespace}"

    @classmethod
    def parse(cls, text: str) -> Grant:
        """Read ``read`` (everywhere) or ``push:acme`` (in one namespace).

        Raises:
            RefError: the text is neither.
        """
        scope, colon, namespace = text.partition(":")
        if scope not in list(Scope):
            message = f"{text[:80]!r} is no scope"
            hint = "write read, push or admin, and for one namespace only, e.g. push:acme"
            raise RefError(message, hint=hint)
        known = Scope(scope)
        return cls(known, refs.check_name(namespace, "namespace")) if colon else cls(known)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks.

    Attributes:
        name: the token's name, ``local`` for this machine's own user, or ``anonymous``.
        grants: what the actor may do; public namespaces come on top of it.
        request_id: id of the request in the log, if it came over HTTP.
    """

    name: str
    grants: frozenset[Grant] = field(default_factory=frozenset)
    request_id: str | None = None

    def may(self, scope: Scope, namespace: str | None = None) -> bool:
        """Say whether the actor has a scope in a namespace; without one, in any."""
        return (
            any(
                grant.scope == scope and namespace in {None, grant.namespace}
                for grant in self.grants
            )
            or Grant(scope) in self.grants
        )

    def readable(self) -> frozenset[str] | None:
        """Return the namespaces that the actor may read; ``None`` means all."""
        found = {grant.namespace for grant in self.grants if grant.scope == Scope.READ}
        return None if EVERYWHERE in found else frozenset(found)

    def __str__(self) -> str:
        return " ".join(map(str, sorted(self.grants))) or "nothing"


LOCAL = Actor("local", frozenset(map(Grant, Scope)))
"""Whoever works on the data directory itself needs no permission."""

ANONYMOUS = Actor("anonymous")
