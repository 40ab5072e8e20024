"""Who asks, and what they may do: scopes by namespace, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from rankloom import ref as refs
from rankloom.errors import RefError

EVERYWHERE: Final = "*"
"""Stands for all namespaces or adapters, those to come too; none of them can have this name."""


class Scope(StrEnum):
    """What may be done in a namespace; none of them includes another."""

    READ = "read"
    PUSH = "push"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One scope in one namespace, or everywhere; that of pushing also for one adapter."""

    scope: Scope
    namespace: str = EVERYWHERE
    adapter: str = EVERYWHERE

    @property
    def place(self) -> str:
        """Where it holds: ``*``, ``acme`` or ``acme/zh``."""
        whole = self.adapter == EVERYWHERE
        return self.namespace if whole else f"{self.namespace}/{self.adapter}"

    def __str__(self) -> str:
        return self.scope if self.namespace == EVERYWHERE else f"{self.scope}:{self.place}"

    @classmethod
    def at(cls, scope: str, place: str) -> Grant:
        """Return the grant of a scope at a place, as :attr:`place` writes it."""
        namespace, _, adapter = place.partition("/")
        return cls(Scope(scope), namespace, adapter or EVERYWHERE)

    @classmethod
    def parse(cls, text: str) -> Grant:
        """Read ``read`` (everywhere), ``push:acme`` (in one namespace) or ``push:acme/zh``.

        Raises:
            RefError: the text is none of them.
        """
        scope, colon, place = text.partition(":")
        namespace, slash, adapter = place.partition("/")
        if scope not in list(Scope) or (slash and scope != Scope.PUSH):
            message = f"{text[:80]!r} is no scope"
            hint = "write read, push or admin, for one namespace push:acme, for one adapter "
            raise RefError(message, hint=hint + "push:acme/zh (read and admin have no such form)")
        if not colon:
            return cls(Scope(scope))
        refs.check_name(namespace, "namespace")
        if slash:
            refs.check_name(adapter, "adapter name")
        return cls.at(scope, place)

    def holds(self, namespace: str, adapter: str | None) -> bool:
        """Say whether it covers an adapter of a namespace; ``None``: all that may come to be."""
        return self.namespace in {EVERYWHERE, namespace} and self.adapter in {EVERYWHERE, adapter}


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

    def may(self, scope: Scope, namespace: str | None = None, adapter: str | None = None) -> bool:
        """Say whether the actor has a scope for an adapter of a namespace.

        Without an adapter it must be the whole namespace's; without a namespace, any does.
        """
        return any(
            grant.scope == scope and (namespace is None or grant.holds(namespace, adapter))
            for grant in self.grants
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
