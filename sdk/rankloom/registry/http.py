"""The registry over HTTP."""

from __future__ import annotations

import contextlib
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import ValidationError

from rankloom.errors import RefError, RegistryError, error_class
from rankloom.finding import Finding
from rankloom.registry import wire
from rankloom.registry.patience import asked_pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankloom.errors import RankloomError
    from rankloom.message import Message
    from rankloom.ref import AdapterName, VersionRef

M = TypeVar("M", bound="Message")

# A server answers "not yet" long before, where its work takes longer.
_TIMEOUT = httpx.Timeout(30.0, connect=5.0, read=60.0)


class HttpRegistry:
    """A registry behind a URL; see :class:`rankloom.registry.protocol.Registry`.

    Args:
        url: its address.
        token: bearer token, or what gives the one that is good now, asked before each request.
        transport: how requests travel; ``None``: over the network.

    Raises:
        RefError: the address is none of HTTP.
    """

    def __init__(
        self,
        url: str,
        token: str | Callable[[], str | None] | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not _is_address(url):
            message = f"{url[:80]!r} is no address of a registry"
            raise RefError(message, hint="write it with http:// or https:// and a host")
        self._token = token if callable(token) else lambda: token
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1", timeout=_TIMEOUT, transport=transport
        )

    def open_upload(self, adapter: AdapterName, request: wire.UploadRequest) -> wire.Upload:
        """Declare a version."""
        upload = self._send(wire.Upload, "POST", f"{_path(adapter)}/uploads", request)
        for target in upload.missing:
            self._remote(target.url)
        return upload

    def assemble(
        self, upload_id: str, digest: str, request: wire.PartsRequest
    ) -> wire.MissingParts:
        """Say which parts of a large blob are missing, or put it together."""
        where = f"/uploads/{_quoted(upload_id)}/blobs/{digest}/parts"
        answer = self._send(wire.MissingParts, "PUT", where, request)
        for target in answer.missing:
            self._remote(target.url)
        return answer

    def publish(self, upload_id: str) -> wire.Version:
        """Turn an upload into a version, however long that takes."""
        where = f"/uploads/{_quoted(upload_id)}/publish"
        while (response := self._request("POST", where)).status_code == HTTPStatus.ACCEPTED:
            time.sleep(asked_pause(response.headers.get("Retry-After")) or 1.0)
        return self._read(wire.Version, response)

    def resolve(self, ref: VersionRef) -> wire.ResolvedVersion:
        """Return the version that a ref names."""
        where = f"{_path(ref.adapter)}/resolve"
        return self._send(wire.ResolvedVersion, "GET", where, params=_named(ref))

    def blob_url(self, adapter: AdapterName, version: str, path: str) -> str:
        """Return a URL for the bytes of one file."""
        where = f"{_path(adapter)}/versions/{version}/files/{quote(path)}"
        return self._remote(self._send(wire.BlobUrl, "GET", where).url)

    def list_adapters(
        self, *, namespace: str | None = None, query: str = "", limit: int = 50, after: str = ""
    ) -> wire.Page:
        """Return one page of the catalogue."""
        params = {"namespace": namespace, "query": query, "limit": limit, "after": after}
        return self._send(wire.Page, "GET", "/adapters", params=params)

    def show(self, adapter: AdapterName, *, bare: bool = False) -> wire.AdapterDetail:
        """Return one adapter with its versions."""
        params = {"bare": bare or None}
        return self._send(wire.AdapterDetail, "GET", _path(adapter), params=params)

    def search(
        self, query: wire.VersionQuery, *, limit: int = 50, after: int | None = None
    ) -> wire.VersionPage:
        """Return one page of the versions that are searched for, newest first."""
        params = query.model_dump(exclude_defaults=True, mode="json")
        params |= {"limit": limit, "after": after}
        return self._send(wire.VersionPage, "GET", "/versions", params=params)

    def related(
        self, ref: VersionRef, *, limit: int = 50, after: str | None = None
    ) -> wire.RelatedPage:
        """Return one page of the versions that share tensors with one."""
        params = _named(ref) | {"limit": limit, "after": after}
        return self._send(wire.RelatedPage, "GET", f"{_path(ref.adapter)}/related", params=params)

    def remark(self, adapter: AdapterName, version: str, said: wire.Remarks) -> wire.Version:
        """Say something of a version."""
        where = f"{_path(adapter)}/versions/{version}/remarks"
        return self._send(wire.Version, "PATCH", where, said)

    def signatures(self, ref: VersionRef) -> wire.SignedVersion:
        """Return the version that a ref names with its signatures."""
        where = f"{_path(ref.adapter)}/signatures"
        return self._send(wire.SignedVersion, "GET", where, params=_named(ref))

    def add_signature(self, adapter: AdapterName, version: str, bundle: str) -> wire.Signature:
        """Attach a signature to a version."""
        where = f"{_path(adapter)}/versions/{version}/signatures"
        return self._send(wire.Signature, "POST", where, wire.SignatureRequest(bundle=bundle))

    def set_alias(
        self, adapter: AdapterName, alias: str, request: wire.AliasRequest
    ) -> wire.AliasMove:
        """Move an alias by compare-and-set."""
        return self._send(wire.AliasMove, "PUT", _alias(adapter, alias), request)

    def delete_alias(self, adapter: AdapterName, alias: str, expected: str) -> None:
        """Remove an alias that names ``expected`` now."""
        self._request("DELETE", _alias(adapter, alias), params={"expected": expected})

    def yank(self, adapter: AdapterName, version: str, reason: str | None) -> wire.Version:
        """Withdraw a version, or bring it back."""
        where = f"{_path(adapter)}/versions/{version}/yank"
        return self._send(wire.Version, "PUT", where, wire.YankRequest(reason=reason))

    def add_base(self, record: wire.BaseRecord) -> wire.BaseRecord:
        """Record a base."""
        return self._send(wire.BaseRecord, "POST", "/bases", record)

    def get_base(self, name: str) -> wire.BaseRecord:
        """Return a base by its name."""
        return self._send(wire.BaseRecord, "GET", f"/bases/{_quoted(name)}")

    def list_bases(self) -> tuple[wire.BaseRecord, ...]:
        """Return all bases."""
        return self._send(wire.BaseList, "GET", "/bases").items

    def create_token(self, request: wire.TokenRequest) -> wire.NewToken:
        """Make a token."""
        return self._send(wire.NewToken, "POST", "/tokens", request)

    def list_tokens(self) -> wire.TokenList:
        """Return the tokens that open only what the caller administers."""
        return self._send(wire.TokenList, "GET", "/tokens")

    def revoke_token(self, name: str) -> None:
        """End a token's life."""
        self._request("DELETE", f"/tokens/{_quoted(name)}")

    def namespace_rules(self, namespace: str) -> wire.NamespaceRules:
        """Return what is said about a namespace as a whole."""
        return self._send(wire.NamespaceRules, "GET", f"{_namespace(namespace)}/rules")

    def set_namespace_rules(
        self, namespace: str, rules: wire.NamespaceRules
    ) -> wire.NamespaceRules:
        """Set those rules of a namespace that are named, leave the others; return all of them."""
        return self._send(wire.NamespaceRules, "PATCH", f"{_namespace(namespace)}/rules", rules)

    def protect(self, namespace: str, alias: str, *, protected: bool) -> wire.NamespaceRules:
        """Protect one alias, or do so no longer; return all rules."""
        where = f"{_namespace(namespace)}/rules/protected-aliases/{_quoted(alias)}"
        return self._send(wire.NamespaceRules, "PUT" if protected else "DELETE", where)

    def trusted_publishers(self, namespace: str) -> wire.TrustedPublishers:
        """Return the jobs of CI that a namespace trusts."""
        return self._send(wire.TrustedPublishers, "GET", f"{_namespace(namespace)}/publishers")

    def trust(self, namespace: str, request: wire.TrustRequest) -> wire.TrustedPublisher:
        """Trust a job of CI to push to a namespace."""
        where = f"{_namespace(namespace)}/publishers"
        return self._send(wire.TrustedPublisher, "POST", where, request)

    def distrust(self, namespace: str, publisher: int) -> None:
        """Trust a job no longer."""
        self._request("DELETE", f"{_namespace(namespace)}/publishers/{publisher}")

    def audience(self) -> str:
        """Return for whom the registry wants identity tokens made out."""
        return self._send(wire.Audience, "GET", "/oidc/audience").audience

    def mint_token(self, token: str) -> wire.MintedToken:
        """Exchange an identity token of CI for a token of the registry."""
        return self._send(
            wire.MintedToken, "POST", "/oidc/mint-token", wire.MintRequest(token=token)
        )

    def audit_log(
        self, *, namespace: str | None = None, before: int | None = None, limit: int = 100
    ) -> wire.AuditPage:
        """Return lines of the audit log, newest first."""
        params = {"before": before, "limit": limit}
        where = f"{_namespace(namespace)}/audit" if namespace else "/audit"
        return self._send(wire.AuditPage, "GET", where, params=params)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(
        self,
        kind: type[M],
        method: str,
        path: str,
        body: Message | None = None,
        *,
        params: dict[str, Any] | None = None,
    ) -> M:
        return self._read(kind, self._request(method, path, body, params=params))

    def _read(self, kind: type[M], response: httpx.Response) -> M:
        try:
            return kind.of_answer(response.content)
        except ValidationError as error:
            message = f"{self.url} answered something that is no {kind.__name__}"
            hint = "check that the address is a rankloom registry of this version"
            raise RegistryError(message, hint=hint) from error

    def _remote(self, url: str) -> str:
        """Return a URL of a store; no server may name files of this machine.

        Raises:
            RegistryError: it is none.
        """
        if _is_address(url):
            return url
        message = f"{self.url} gave a URL that is no address of a store: {url[:80]!r}"
        raise RegistryError(message, hint="do not use it; tell who runs the registry")

    def _request(
        self,
        method: str,
        path: str,
        body: Message | None = None,
        *,
        params: dict[str, Any] | None = None,
    ) -> httpx.Response:
        # What is not named is not sent: where something is changed, it stays as it is.
        fields = body.model_fields_set if body else None
        named = body.model_dump_json(by_alias=True, include=fields) if body else None
        headers = {"Content-Type": "application/json"} if body else {}
        if token := self._token():
            headers["Authorization"] = f"Bearer {token}"
        known = {key: value for key, value in (params or {}).items() if value is not None}
        try:
            response = self._http.request(
                method, path, content=named, headers=headers, params=known
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            message = f"the registry at {self.url} cannot be reached: {error}"
            hint = (
                "is it running? 'loractl serve' starts one; RANKLOOM_URL or login name another;"
                " --offline uses what was pulled before"
            )
            raise RegistryError(message, hint=hint) from error
        if response.is_success:
            return response
        raise _error(response, self.url)


def _is_address(url: str) -> bool:
    with contextlib.suppress(ValueError):
        place = urlsplit(url)
        return place.scheme in {"http", "https"} and bool(place.hostname)
    return False


def _path(adapter: AdapterName) -> str:
    return f"/adapters/{_quoted(adapter.namespace)}/{_quoted(adapter.name)}"


def _alias(adapter: AdapterName, alias: str) -> str:
    return f"{_path(adapter)}/aliases/{_quoted(alias)}"


def _namespace(namespace: str) -> str:
    return f"/namespaces/{_quoted(namespace)}"


def _quoted(text: str) -> str:
    """Return a text as one segment of a path."""
    return quote(text, safe="")


def _named(ref: VersionRef) -> dict[str, Any]:
    """Return the query that names a version."""
    params = {"alias": ref.alias, "number": ref.number, "digest": ref.digest, "semver": ref.semver}
    return params | ({"bare": True} if ref.bare else {})


def _error(response: httpx.Response, url: str) -> RankloomError:
    try:
        problem = wire.Problem.model_validate_json(response.content)
    except ValidationError:
        message = f"{url} answered {response.status_code} to {response.request.method}"
        return RegistryError(message, hint="check that the address is a rankloom registry")
    findings = [Finding(**entry.model_dump()) for entry in problem.findings]
    error = error_class(problem.code)(problem.detail, hint=problem.hint, findings=findings)
    error.request_id = problem.request_id
    return error
