"""Adapters, their versions and aliases."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from rankloom import digest as digests
from rankloom import ref as refs
from rankloom import semantic
from rankloom.errors import RefError
from rankloom.ref import VersionRef
from rankloom.registry import wire
from rankloom_server.routes.deps import AdapterDep, Admin, Pusher, Reader, absolute

router = APIRouter(prefix="/adapters", tags=["adapters"])
_ONE = "/{namespace}/{name}"


@router.get("")
def list_adapters(
    service: Reader,
    namespace: str | None = None,
    query: Annotated[str, Query(max_length=200)] = "",
    limit: int = 50,
    after: Annotated[str, Query(max_length=200)] = "",
) -> wire.Page:
    """List adapters in name order; each word of ``query`` is in name or card."""
    return service.list_adapters(namespace=namespace, query=query, limit=limit, after=after)


@router.get(_ONE)
def show(service: Reader, adapter: AdapterDep, *, bare: bool = False) -> wire.AdapterDetail:
    """Return an adapter with all its versions, newest first; ``bare`` as for ``resolve``."""
    return service.show(adapter, bare=bare)


def _ref(
    adapter: AdapterDep,
    alias: str | None = None,
    number: Annotated[int | None, Query(ge=1, le=999_999_999)] = None,
    digest: str | None = None,
    semver: Annotated[str | None, Query(max_length=semantic.MAX_LENGTH)] = None,
    *,
    bare: bool = False,
) -> VersionRef:
    if sum(part is not None for part in (alias, number, digest, semver)) > 1:
        message = "a version is named by one of alias, number, digest and semver"
        raise RefError(message, hint="send only one of them")
    if digest is not None:
        return VersionRef(adapter, digest=digests.parse(digest), bare=bare)
    if number is not None:
        return VersionRef(adapter, number=number, bare=bare)
    if semver is not None:
        return VersionRef(adapter, semver=semantic.check_wanted(semver), bare=bare)
    return VersionRef(adapter, alias=refs.check_name(alias or refs.LATEST, "alias"), bare=bare)


RefDep = Annotated[VersionRef, Depends(_ref)]


@router.get(_ONE + "/resolve")
def resolve(service: Reader, ref: RefDep) -> wire.ResolvedVersion:
    """Return one version by alias (``latest`` if nothing is named), number or digest.

    ``bare`` says that the namespace was not named but supposed: then the name must be no other
    namespace's too.
    """
    return service.resolve(ref)


@router.get(_ONE + "/related")
def related(
    service: Reader,
    ref: RefDep,
    limit: int = 50,
    after: Annotated[str | None, Query(max_length=32)] = None,
) -> wire.RelatedPage:
    """Return the versions that share tensors with one, named as for ``resolve``."""
    return service.related(ref, limit=limit, after=after)


@router.get(_ONE + "/signatures")
def signatures(service: Reader, ref: RefDep) -> wire.SignedVersion:
    """Return one version, named as for ``resolve``, with its signatures, if it has any."""
    return service.signatures(ref)


@router.post(_ONE + "/versions/{version}/signatures", status_code=201)
def add_signature(
    service: Pusher, adapter: AdapterDep, version: str, body: wire.SignatureRequest
) -> wire.Signature:
    """Attach a signature to a version; the same again changes nothing."""
    return service.add_signature(adapter, digests.parse(version), body.bundle)


@router.get(_ONE + "/versions/{version}/files/{path:path}")
def blob_url(
    service: Reader, request: Request, adapter: AdapterDep, version: str, path: str
) -> wire.BlobUrl:
    """Return where the bytes of one file are, for a limited time."""
    url = service.blob_url(adapter, digests.parse(version), path)
    return wire.BlobUrl(url=absolute(request, url))


@router.put(_ONE + "/versions/{version}/yank")
def yank(service: Admin, adapter: AdapterDep, version: str, body: wire.YankRequest) -> wire.Version:
    """Withdraw a version from ``latest``, or bring it back."""
    return service.yank(adapter, digests.parse(version), body.reason)


@router.patch(_ONE + "/versions/{version}/remarks")
def remark(service: Pusher, adapter: AdapterDep, version: str, body: wire.Remarks) -> wire.Version:
    """Say something of a version: labels, metrics, that it is deprecated."""
    return service.remark(adapter, digests.parse(version), body)


@router.put(_ONE + "/aliases/{alias}")
def set_alias(
    service: Pusher, adapter: AdapterDep, alias: str, body: wire.AliasRequest
) -> wire.AliasMove:
    """Move an alias by compare-and-set."""
    return service.set_alias(adapter, alias, body)


@router.delete(_ONE + "/aliases/{alias}", status_code=204)
def delete_alias(service: Pusher, adapter: AdapterDep, alias: str, expected: str) -> Response:
    """Remove an alias that names ``expected`` now."""
    service.delete_alias(adapter, alias, expected)
    return Response(status_code=204)
