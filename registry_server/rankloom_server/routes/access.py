"""Tokens, whom namespaces trust, their rules, and the audit log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from rankloom import ref as refs
from rankloom.registry import wire
from rankloom_server.access import EVERYWHERE, Scope
from rankloom_server.audit import MAX_PAGE
from rankloom_server.auth import authorise
from rankloom_server.routes.deps import Admin
from rankloom_server.routes.oidc import ExchangeDep

router = APIRouter(tags=["access"])
Before = Annotated[int | None, Query(ge=1, lt=1 << 63)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]


@router.post("/tokens", status_code=201)
def create_token(service: Admin, body: wire.TokenRequest) -> wire.NewToken:
    """Make a token; it is shown in this answer only."""
    return service.create_token(body)


@router.get("/tokens")
def list_tokens(service: Admin) -> wire.TokenList:
    """List the tokens that open only namespaces which the caller administers."""
    return service.list_tokens()


@router.delete("/tokens/{name}", status_code=204)
def revoke_token(service: Admin, name: str) -> Response:
    """End a token's life."""
    service.revoke_token(name)
    return Response(status_code=204)


@router.get("/namespaces/{namespace}/rules")
def namespace_rules(service: Admin, namespace: str) -> wire.NamespaceRules:
    """Return what is said about a namespace as a whole."""
    return service.namespace_rules(refs.check_name(namespace, "namespace"))


@router.patch("/namespaces/{namespace}/rules")
def set_namespace_rules(
    service: Admin, namespace: str, body: wire.NamespaceRules
) -> wire.NamespaceRules:
    """Set those rules of a namespace that are named, and leave the others as they are."""
    return service.set_namespace_rules(refs.check_name(namespace, "namespace"), body)


@router.put("/namespaces/{namespace}/rules/protected-aliases/{alias}")
def protect(service: Admin, namespace: str, alias: str) -> wire.NamespaceRules:
    """Let only who administers the namespace move an alias, and leave other aliases as they are."""
    return _protect(service, namespace, alias, protected=True)


@router.delete("/namespaces/{namespace}/rules/protected-aliases/{alias}")
def unprotect(service: Admin, namespace: str, alias: str) -> wire.NamespaceRules:
    """Let those who push move an alias again, and leave other aliases as they are."""
    return _protect(service, namespace, alias, protected=False)


def _protect(service: Admin, namespace: str, alias: str, *, protected: bool) -> wire.NamespaceRules:
    known = refs.check_name(namespace, "namespace")
    return service.protect(known, refs.check_name(alias, "alias"), protected=protected)


@router.get("/namespaces/{namespace}/publishers")
def trusted_publishers(service: Admin, namespace: str) -> wire.TrustedPublishers:
    """List the jobs of CI that a namespace trusts."""
    return service.trusted_publishers(refs.check_name(namespace, "namespace"))


@router.post("/namespaces/{namespace}/publishers", status_code=201)
def trust(
    service: Admin, exchange: ExchangeDep, namespace: str, body: wire.TrustRequest
) -> wire.TrustedPublisher:
    """Trust a job of CI to push to a namespace; the same again changes nothing."""
    exchange.check_issuer(body.issuer)
    return service.trust(refs.check_name(namespace, "namespace"), body)


@router.delete("/namespaces/{namespace}/publishers/{publisher}", status_code=204)
def distrust(
    service: Admin, namespace: str, publisher: Annotated[int, Path(ge=1, lt=1 << 31)]
) -> Response:
    """Trust a job no longer; tokens that were made for it end at once."""
    service.distrust(refs.check_name(namespace, "namespace"), publisher)
    return Response(status_code=204)


@router.get("/namespaces/{namespace}/audit")
def namespace_audit(
    service: Admin, namespace: str, before: Before = None, limit: Limit = 100
) -> wire.AuditPage:
    """Return what was changed in a namespace, newest first."""
    known = refs.check_name(namespace, "namespace")
    return service.audit_log(namespace=known, before=before, limit=limit)


@router.get("/audit")
def audit(service: Admin, before: Before = None, limit: Limit = 100) -> wire.AuditPage:
    """Return what was changed anywhere, newest first; only for who administers everything."""
    authorise(service.engine, service.actor, Scope.ADMIN, EVERYWHERE)
    return service.audit_log(before=before, limit=limit)
