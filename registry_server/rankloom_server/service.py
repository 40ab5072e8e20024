"""The registry as one object: the same for the HTTP routes and for the embedded registry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rankloom.errors import NotFoundError
from rankloom.registry.wire import NewToken, TokenList
from rankloom_server import (
    aliases,
    audit,
    auth,
    bases,
    catalogue,
    db,
    namesakes,
    namespaces,
    publishers,
    remarks,
    search,
    signatures,
    signed,
    tensors,
)
from rankloom_server import publish as publishing
from rankloom_server.access import LOCAL, Grant, Scope
from rankloom_server.store.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

    from rankloom.ref import AdapterName, VersionRef
    from rankloom.registry.wire import (
        AdapterDetail,
        AliasMove,
        AliasRequest,
        AuditPage,
        BaseRecord,
        MissingParts,
        NamespaceRules,
        Page,
        PartsRequest,
        RelatedPage,
        Remarks,
        ResolvedVersion,
        Signature,
        SignedVersion,
        TokenRecord,
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
    from rankloom_server.access import Actor
    from rankloom_server.store.interface import Store

DATABASE = "registry.db"
SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class Service:
    """A registry over a database and a store; see :class:`rankloom.registry.protocol.Registry`.

    Attributes:
        engine: the database, at the present schema.
        store: the blobs.
        scratch: folder for files that live as long as one verification.
        actor: who uses it; :meth:`for_actor` gives the service to another.
    """

    engine: sa.Engine
    store: Store
    scratch: Path
    actor: Actor = LOCAL

    def for_actor(self, actor: Actor) -> Service:
        """Return the same registry as another actor sees and uses it."""
        return replace(self, actor=actor)

    def open_upload(self, adapter: AdapterName, request: UploadRequest) -> Upload:
        """Declare a version."""
        return publishing.open_upload(self.engine, self.store, adapter, request)

    def assemble(self, upload_id: str, digest: str, request: PartsRequest) -> MissingParts:
        """Say which parts of a large blob are missing, or put it together."""
        return publishing.assemble(
            self.engine, self.store, upload_id, digest, request.parts, self.actor
        )

    def publish(self, upload_id: str) -> Version:
        """Turn an upload into a version."""
        return publishing.publish(self.engine, self.store, self.scratch, upload_id, self.actor)

    def resolve(self, ref: VersionRef) -> ResolvedVersion:
        """Return the version that a ref names."""
        with db.read(self.engine) as connection:
            if ref.bare:
                namesakes.check(connection, ref.adapter, self.actor.readable())
            return catalogue.resolve(connection, ref)

    def blob_url(self, adapter: AdapterName, version: str, path: str) -> str:
        """Return a URL for the bytes of one file."""
        with db.read(self.engine) as connection:
            digest = catalogue.file_digest(connection, adapter, version, path)
        return self.store.inside(adapter.namespace).presign_get(digest)

    def list_adapters(
        self, *, namespace: str | None = None, query: str = "", limit: int = 50, after: str = ""
    ) -> Page:
        """Return one page of the catalogue."""
        with db.read(self.engine) as connection:
            return catalogue.list_adapters(
                connection,
                readable=self.actor.readable(),
                namespace=namespace,
                query=query,
                limit=limit,
                after=after,
            )

    def show(self, adapter: AdapterName, *, bare: bool = False) -> AdapterDetail:
        """Return one adapter with its versions."""
        with db.read(self.engine) as connection:
            if bare:
                namesakes.check(connection, adapter, self.actor.readable())
            return catalogue.show(connection, adapter)

    def search(
        self, query: VersionQuery, *, limit: int = 50, after: int | None = None
    ) -> VersionPage:
        """Return one page of the versions that are searched for, newest first."""
        readable = self.actor.readable()
        with db.read(self.engine) as connection:
            return search.find(connection, query, limit=limit, after=after, readable=readable)

    def related(self, ref: VersionRef, *, limit: int = 50, after: str | None = None) -> RelatedPage:
        """Return one page of the versions that share tensors with one."""
        readable = self.actor.readable()
        with db.read(self.engine) as connection:
            if ref.bare:
                namesakes.check(connection, ref.adapter, readable)
            return tensors.related(connection, ref, limit=limit, after=after, readable=readable)

    def remark(self, adapter: AdapterName, version: str, said: Remarks) -> Version:
        """Say something of a version."""
        with db.write(self.engine) as connection:
            return remarks.add(connection, self.actor, adapter, version, said)

    def signatures(self, ref: VersionRef) -> SignedVersion:
        """Return the version that a ref names with its signatures."""
        with db.read(self.engine) as connection:
            if ref.bare:
                namesakes.check(connection, ref.adapter, self.actor.readable())
            return signatures.of(connection, ref)

    def add_signature(self, adapter: AdapterName, version: str, bundle: str) -> Signature:
        """Attach a signature to a version."""
        with db.read(self.engine) as connection:
            signatures.check(connection, adapter, version, bundle)
        with db.write(self.engine) as connection:
            return signatures.attach(connection, self.actor, adapter, version, bundle)

    def set_alias(self, adapter: AdapterName, alias: str, request: AliasRequest) -> AliasMove:
        """Move an alias by compare-and-set."""
        with db.read(self.engine) as connection:  # it may take long, so no lock is held yet
            signed.check(connection, adapter, request.digest)
        with db.write(self.engine) as connection:
            return aliases.set_alias(connection, self.actor, adapter, alias, request)

    def delete_alias(self, adapter: AdapterName, alias: str, expected: str) -> None:
        """Remove an alias that names ``expected`` now."""
        with db.write(self.engine) as connection:
            aliases.delete_alias(connection, self.actor, adapter, alias, expected)

    def yank(self, adapter: AdapterName, version: str, reason: str | None) -> Version:
        """Withdraw a version, or bring it back."""
        with db.write(self.engine) as connection:
            return aliases.yank(connection, self.actor, adapter, version, reason)

    def add_base(self, record: BaseRecord) -> BaseRecord:
        """Record a base."""
        with db.write(self.engine) as connection:
            return bases.add(connection, self.actor, record)

    def get_base(self, name: str) -> BaseRecord:
        """Return a base by its name."""
        with db.read(self.engine) as connection:
            return bases.get(connection, name)

    def list_bases(self) -> tuple[BaseRecord, ...]:
        """Return all bases."""
        with db.read(self.engine) as connection:
            return bases.list_all(connection)

    def create_token(self, request: TokenRequest) -> NewToken:
        """Make a token; who makes it must administer every namespace that it opens."""
        grants = [Grant.parse(text) for text in request.grants]
        for grant in grants:
            auth.authorise(self.engine, self.actor, Scope.ADMIN, grant.namespace)
        token = auth.create(
            self.engine, request.name, grants, expires_at=request.expires_at, actor=self.actor
        )
        return NewToken(name=request.name, token=token)

    def list_tokens(self) -> TokenList:
        """Return the tokens that open only what the actor administers."""
        found = auth.list_all(self.engine)
        return TokenList(items=tuple(token for token in found if self._administers(token)))

    def revoke_token(self, name: str) -> None:
        """End a token's life."""
        known = [token for token in self.list_tokens().items if token.name == name]
        if not known or not auth.revoke(self.engine, name, self.actor):
            message = f"there is no token {name[:96]!r} in use"
            raise NotFoundError(message, hint="a revoked token is not in use")

    def _administers(self, token: TokenRecord) -> bool:
        grants = [Grant.parse(text) for text in token.grants]
        return all(self.actor.may(Scope.ADMIN, grant.namespace) for grant in grants)

    def namespace_rules(self, namespace: str) -> NamespaceRules:
        """Return what is said about a namespace as a whole."""
        with db.read(self.engine) as connection:
            return namespaces.get(connection, namespace)

    def set_namespace_rules(self, namespace: str, rules: NamespaceRules) -> NamespaceRules:
        """Set those rules of a namespace that are named, leave the others; return all of them."""
        with db.write(self.engine) as connection:
            return namespaces.change(connection, self.actor, namespace, rules)

    def protect(self, namespace: str, alias: str, *, protected: bool) -> NamespaceRules:
        """Protect one alias, or do so no longer; return all rules."""
        with db.write(self.engine) as connection:
            return namespaces.protect(connection, self.actor, namespace, alias, protected=protected)

    def trusted_publishers(self, namespace: str) -> TrustedPublishers:
        """Return the jobs of CI that a namespace trusts."""
        with db.read(self.engine) as connection:
            return publishers.list_all(connection, namespace)

    def trust(self, namespace: str, request: TrustRequest) -> TrustedPublisher:
        """Trust a job of CI to push to a namespace."""
        with db.write(self.engine) as connection:
            return publishers.trust(connection, self.actor, namespace, request)

    def distrust(self, namespace: str, publisher: int) -> None:
        """Trust a job no longer."""
        with db.write(self.engine) as connection:
            publishers.distrust(connection, self.actor, namespace, publisher)

    def audit_log(
        self, *, namespace: str | None = None, before: int | None = None, limit: int = 100
    ) -> AuditPage:
        """Return lines of the audit log, newest first."""
        with db.read(self.engine) as connection:
            return audit.read(connection, namespace=namespace, before=before, limit=limit)

    def close(self) -> None:
        """Close the connections to the database."""
        self.engine.dispose()


def open_embedded(data_dir: Path) -> Service:
    """Open the registry in a folder, and make it on first use; a server may have it open too.

    URLs that it gives out are ``file://`` URLs of the folder.
    """
    data_dir = data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    engine = db.open_engine(db.sqlite_url(data_dir / DATABASE))
    db.upgrade(engine)
    return Service(engine, LocalStore(data_dir), data_dir / SCRATCH)
