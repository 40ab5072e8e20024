"""The one protocol of a registry; it has two doors: over HTTP, and in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rankloom.ref import AdapterName, VersionRef
    from rankloom.registry.wire import (
        AdapterDetail,
        AliasMove,
        AliasRequest,
        AuditPage,
        BaseRecord,
        MissingParts,
        NamespaceRules,
        NewToken,
        Page,
        PartsRequest,
        RelatedPage,
        Remarks,
        ResolvedVersion,
        Signature,
        SignedVersion,
        TokenList,
        TokenRequest,
        TrustedPublisher,
        TrustedPublishers,
        TrustRequest,
        Upload,
        UploadRequest,
        Version,
        VersionPage,
        VersionQuery,
    )


class Registry(Protocol):
    """What both doors offer; every method may raise the errors of ``rankloom.errors``.

    URLs that it gives out are ``http(s)://`` (presigned) or ``file://`` (the embedded registry).
    """

    def open_upload(self, adapter: AdapterName, request: UploadRequest) -> Upload:
        """Declare a version; the answer says which blobs are missing and where to put them."""

    def assemble(self, upload_id: str, digest: str, request: PartsRequest) -> MissingParts:
        """Say which parts of an upload's large blob have not arrived; with all, make the blob."""

    def publish(self, upload_id: str) -> Version:
        """Verify the uploaded blobs and turn them into a version (again: the same version)."""

    def resolve(self, ref: VersionRef) -> ResolvedVersion:
        """Return the version that a ref names, with its manifest."""

    def blob_url(self, adapter: AdapterName, version: str, path: str) -> str:
        """Return a URL for the bytes of one file of a version (``version`` is a digest)."""

    def list_adapters(
        self, *, namespace: str | None = None, query: str = "", limit: int = 50, after: str = ""
    ) -> Page:
        """Return one page of the catalogue in name order, starting behind ``after``."""

    def show(self, adapter: AdapterName, *, bare: bool = False) -> AdapterDetail:
        """Return one adapter with all its versions.

        ``bare``: its namespace was supposed, so that no other may have the name (REG005).
        """

    def search(
        self, query: VersionQuery, *, limit: int = 50, after: int | None = None
    ) -> VersionPage:
        """Return one page of the versions that are searched for, newest first."""

    def related(self, ref: VersionRef, *, limit: int = 50, after: str | None = None) -> RelatedPage:
        """Return one page of the versions that share tensors with one, most shared first."""

    def remark(self, adapter: AdapterName, version: str, said: Remarks) -> Version:
        """Say of a version (a digest) what is given; what is not named stays as it is."""

    def signatures(self, ref: VersionRef) -> SignedVersion:
        """Return the version that a ref names with its signatures, also one that lacks them."""

    def add_signature(self, adapter: AdapterName, version: str, bundle: str) -> Signature:
        """Attach a signature to a version (a digest); the same again changes nothing."""

    def set_alias(self, adapter: AdapterName, alias: str, request: AliasRequest) -> AliasMove:
        """Move an alias by compare-and-set."""

    def delete_alias(self, adapter: AdapterName, alias: str, expected: str) -> None:
        """Remove an alias if it names ``expected`` (a digest) now."""

    def yank(self, adapter: AdapterName, version: str, reason: str | None) -> Version:
        """Withdraw a version from resolution by alias ``latest`` (``None``: bring it back)."""

    def add_base(self, record: BaseRecord) -> BaseRecord:
        """Record a base; a name that exists with another fingerprint is a conflict."""

    def get_base(self, name: str) -> BaseRecord:
        """Return a base by its name."""

    def list_bases(self) -> tuple[BaseRecord, ...]:
        """Return all bases in name order, without their tensors."""

    def create_token(self, request: TokenRequest) -> NewToken:
        """Make a token; the caller must administer every namespace that it opens."""

    def list_tokens(self) -> TokenList:
        """Return the tokens that open only what the caller administers."""

    def revoke_token(self, name: str) -> None:
        """End a token's life."""

    def namespace_rules(self, namespace: str) -> NamespaceRules:
        """Return what is said about a namespace as a whole."""

    def set_namespace_rules(self, namespace: str, rules: NamespaceRules) -> NamespaceRules:
        """Set those rules of a namespace that are named, leave the others; return all of them."""

    def protect(self, namespace: str, alias: str, *, protected: bool) -> NamespaceRules:
        """Protect one alias, or do so no longer, and leave all others; return all rules.

        Raises:
            NotFoundError: it shall be protected no longer, and there is no such namespace.
        """

    def trusted_publishers(self, namespace: str) -> TrustedPublishers:
        """Return the jobs of CI that a namespace trusts, oldest first."""

    def trust(self, namespace: str, request: TrustRequest) -> TrustedPublisher:
        """Trust a job of CI to push to a namespace; the same again changes nothing."""

    def distrust(self, namespace: str, publisher: int) -> None:
        """Trust a job no longer; tokens that were made for it end at once."""

    def audit_log(
        self, *, namespace: str | None = None, before: int | None = None, limit: int = 100
    ) -> AuditPage:
        """Return lines of the audit log, newest first, those older than line ``before``."""

    def close(self) -> None:
        """Let go of connections."""
