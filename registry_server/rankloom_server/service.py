"""The registry as one object: the same for the HTTP routes and for the embedded registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom_server import aliases, bases, catalogue, db
from rankloom_server import publish as publishing
from rankloom_server.store.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

    from rankloom.ref import AdapterName, VersionRef
    from rankloom.registry.protocol import Registry
    from rankloom.registry.wire import (
        AdapterDetail,
        AliasMove,
        AliasRequest,
        BaseRecord,
        Page,
        ResolvedVersion,
        Upload,
        UploadRequest,
        Version,
    )
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
    """

    engine: sa.Engine
    store: Store
    scratch: Path

    def open_upload(self, adapter: AdapterName, request: UploadRequest) -> Upload:
        """Declare a version."""
        return publishing.open_upload(self.engine, self.store, adapter, request)

    def publish(self, upload_id: str) -> Version:
        """Turn an upload into a version."""
        return publishing.publish(self.engine, self.store, self.scratch, upload_id)

    def resolve(self, ref: VersionRef) -> ResolvedVersion:
        """Return the version that a ref names."""
        with db.read(self.engine) as connection:
            return catalogue.resolve(connection, ref)

    def blob_url(self, adapter: AdapterName, version: str, path: str) -> str:
        """Return a URL for the bytes of one file."""
        with db.read(self.engine) as connection:
            digest = catalogue.file_digest(connection, adapter, version, path)
        return self.store.presign_get(digest)

    def list_adapters(
        self, *, namespace: str | None = None, query: str = "", limit: int = 50, after: str = ""
    ) -> Page:
        """Return one page of the catalogue."""
        with db.read(self.engine) as connection:
            return catalogue.list_adapters(
                connection, namespace=namespace, query=query, limit=limit, after=after
            )

    def show(self, adapter: AdapterName) -> AdapterDetail:
        """Return one adapter with its versions."""
        with db.read(self.engine) as connection:
            return catalogue.show(connection, adapter)

    def set_alias(self, adapter: AdapterName, alias: str, request: AliasRequest) -> AliasMove:
        """Move an alias by compare-and-set."""
        with db.write(self.engine) as connection:
            return aliases.set_alias(connection, adapter, alias, request)

    def delete_alias(self, adapter: AdapterName, alias: str, expected: str) -> None:
        """Remove an alias that names ``expected`` now."""
        with db.write(self.engine) as connection:
            aliases.delete_alias(connection, adapter, alias, expected)

    def yank(self, adapter: AdapterName, version: str, reason: str | None) -> Version:
        """Withdraw a version, or bring it back."""
        with db.write(self.engine) as connection:
            return aliases.yank(connection, adapter, version, reason)

    def add_base(self, record: BaseRecord) -> BaseRecord:
        """Record a base."""
        with db.write(self.engine) as connection:
            return bases.add(connection, record)

    def get_base(self, name: str) -> BaseRecord:
        """Return a base by its name."""
        with db.read(self.engine) as connection:
            return bases.get(connection, name)

    def list_bases(self) -> tuple[BaseRecord, ...]:
        """Return all bases."""
        with db.read(self.engine) as connection:
            return bases.list_all(connection)

    def close(self) -> None:
        """Close the connections to the database."""
        self.engine.dispose()


def open_embedded(data_dir: Path) -> Registry:
    """Open the registry in a folder, and make it on first use; a server may have it open too.

    URLs that it gives out are ``file://`` URLs of the folder.
    """
    data_dir = data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    engine = db.open_engine(db.sqlite_url(data_dir / DATABASE))
    db.upgrade(engine)
    return Service(engine, LocalStore(data_dir), data_dir / SCRATCH)
