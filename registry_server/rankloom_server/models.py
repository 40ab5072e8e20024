"""The tables. The database holds the rules: what may not be twice is a named constraint.

``adapter`` 1─n ``version`` 1─n ``version_file``; an ``alias`` names one version of its adapter by
digest. An ``upload`` is the journal of one push, written before a byte moves. Timestamps are UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

# Without names a constraint cannot be dropped by a migration, and each database invents others.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# Order and comparison by bytes on both databases, so that pages come in one order everywhere.
NAME_TYPE = sa.String(96).with_variant(sa.String(96, collation="C"), "postgresql")
# A namespace, or NAMESPACE/NAME for one adapter of it. Both are one value on purpose: a server that
# does not know of adapters here finds a namespace that nobody has, and opens nothing.
PLACE_TYPE = sa.String(96).with_variant(sa.String(193, collation="C"), "postgresql")
KEY_TYPE = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
SEMVER_TYPE = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
DIGEST_TYPE = sa.String(71)
# Only a plain INTEGER counts up by itself in SQLite; it holds 64 bits there.
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """A timestamp with time zone; SQLite forgets the zone, so UTC is put back on reading."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_result_value(
        self,
        value: datetime | None,
        dialect: sa.Dialect,
    ) -> datetime | None:
        """Return the value as aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def is_digest(column: str) -> str:
    """Return SQL that is true for ``sha256:`` and 64 lower-case hex digits (both databases)."""
    return (
        f"length({column}) = 71 AND substr({column}, 1, 7) = 'sha256:' "
        f"AND trim(substr({column}, 8), '0123456789abcdef') = ''"
    )


def _digest_check(column: str = "digest") -> sa.CheckConstraint:
    return sa.CheckConstraint(is_digest(column), name=f"{column}_format")


class BaseRow(SQLModel, table=True):
    """A base model that the registry knows."""

    __tablename__ = "base"
    __table_args__ = (
        sa.UniqueConstraint("name"),
        sa.Index(None, "exact"),
        sa.Index(None, "bf16"),
    )

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(sa_type=NAME_TYPE)
    cfg: str | None = Field(default=None, sa_type=DIGEST_TYPE)
    struct: str = Field(sa_type=DIGEST_TYPE)
    exact: str | None = Field(default=None, sa_type=DIGEST_TYPE)
    bf16: str | None = Field(default=None, sa_type=DIGEST_TYPE)
    source: str = Field(sa_type=sa.Text)
    config: dict[str, Any] = Field(sa_type=sa.JSON)
    tensors: dict[str, Any] = Field(sa_type=sa.JSON)
    created_at: datetime = Field(sa_type=UtcDateTime)


class AdapterRow(SQLModel, table=True):
    """A name that has versions."""

    __tablename__ = "adapter"
    __table_args__ = (sa.UniqueConstraint("namespace", "name"), sa.Index(None, "name"))

    id: int | None = Field(default=None, primary_key=True)
    namespace: str = Field(sa_type=NAME_TYPE)
    name: str = Field(sa_type=NAME_TYPE)
    card: str = Field(sa_type=sa.Text)
    created_at: datetime = Field(sa_type=UtcDateTime)


_KEPT = sa.text("purged_at IS NULL")


class VersionRow(SQLModel, table=True):
    """One immutable content, and beside it what is said of it, which may change.

    What was purged keeps its row, so that its number is never used again, but has no files.
    """

    __tablename__ = "version"
    __table_args__ = (
        sa.UniqueConstraint("adapter_id", "digest"),
        sa.UniqueConstraint("adapter_id", "number"),
        sa.Index(None, "adapter_id", "semver", unique=True),
        sa.Index(None, "judged_by", postgresql_where=_KEPT, sqlite_where=_KEPT),
        sa.CheckConstraint("number >= 1", name="number_positive"),
        sa.CheckConstraint("yanked <> ''", name="yanked_has_reason"),
        _digest_check(),
    )

    id: int | None = Field(default=None, primary_key=True)
    adapter_id: int = Field(foreign_key="adapter.id")
    number: int
    semver: str | None = Field(default=None, sa_type=SEMVER_TYPE)
    digest: str = Field(sa_type=DIGEST_TYPE)
    base_id: int | None = Field(default=None, foreign_key="base.id", index=True)
    manifest: str = Field(sa_type=sa.Text)
    facts: dict[str, Any] = Field(sa_type=sa.JSON)
    yanked: str | None = Field(default=None, sa_type=sa.Text)
    created_at: datetime = Field(sa_type=UtcDateTime)
    purged_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    creator: str | None = Field(default=None, sa_type=NAME_TYPE)
    deprecated: str | None = Field(default=None, sa_type=sa.Text)
    labels: dict[str, Any] = Field(sa_type=sa.JSON, sa_column_kwargs={"server_default": "{}"})
    metrics: dict[str, Any] = Field(sa_type=sa.JSON, sa_column_kwargs={"server_default": "{}"})
    probe: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON(none_as_null=True))
    rank: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    module_count: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    verdicts: dict[str, str] | None = Field(default=None, sa_type=sa.JSON(none_as_null=True))
    judged_by: str | None = Field(default=None, sa_type=sa.String(16))
    tensor_count: int | None = None
    header_digest: str | None = Field(default=None, sa_type=DIGEST_TYPE)


class SearchKeyRow(SQLModel, table=True):
    """Something by which versions are found, e.g. ``module:q_proj``."""

    __tablename__ = "search_key"
    __table_args__ = (sa.UniqueConstraint("text"),)

    id: int | None = Field(default=None, primary_key=True)
    text: str = Field(sa_type=KEY_TYPE)


class SearchEntryRow(SQLModel, table=True):
    """One version in the list of one key.

    Its rank is in the primary key so that the index alone tells it.
    """

    __tablename__ = "search_entry"
    __table_args__ = {"sqlite_with_rowid": False}

    key_id: int = Field(foreign_key="search_key.id", primary_key=True)
    version_id: int = Field(foreign_key="version.id", primary_key=True)
    rank: int = Field(primary_key=True)


class VersionPartRow(SQLModel, table=True):
    """One version of which a composition was made, as the lock of its manifest says."""

    __tablename__ = "version_part"
    __table_args__ = (_digest_check(),)

    version_id: int = Field(foreign_key="version.id", primary_key=True)
    digest: str = Field(sa_type=DIGEST_TYPE, primary_key=True, index=True)


class VersionTensorRow(SQLModel, table=True):
    """One content that tensors of a version have: the digest's first bytes; see ``tensors``."""

    __tablename__ = "version_tensor"
    __table_args__ = {"sqlite_with_rowid": False}

    digest: bytes = Field(sa_type=sa.LargeBinary(16), primary_key=True)
    version_id: int = Field(foreign_key="version.id", primary_key=True, index=True)


class VersionFileRow(SQLModel, table=True):
    """One file of a version; what is listed here must never leave the store."""

    __tablename__ = "version_file"
    __table_args__ = (
        sa.CheckConstraint("size >= 0", name="size_not_negative"),
        _digest_check(),
    )

    version_id: int = Field(foreign_key="version.id", primary_key=True)
    path: str = Field(sa_type=sa.String(255), primary_key=True)
    size: int = Field(sa_type=sa.BigInteger)
    digest: str = Field(sa_type=DIGEST_TYPE, index=True)


class VersionSignatureRow(SQLModel, table=True):
    """One signature of a version; triggers refuse to change or remove it."""

    __tablename__ = "version_signature"
    __table_args__ = (_digest_check(),)

    version_id: int = Field(foreign_key="version.id", primary_key=True)
    digest: str = Field(sa_type=DIGEST_TYPE, primary_key=True)
    bundle: str = Field(sa_type=sa.Text)
    creator: str = Field(sa_type=NAME_TYPE)
    created_at: datetime = Field(sa_type=UtcDateTime)


class AliasRow(SQLModel, table=True):
    """A movable name; its digest is one of the same adapter's versions."""

    __tablename__ = "alias"
    __table_args__ = (
        sa.ForeignKeyConstraint(["adapter_id", "digest"], ["version.adapter_id", "version.digest"]),
        sa.CheckConstraint("name <> 'latest'", name="latest_is_computed"),
    )

    adapter_id: int = Field(primary_key=True)
    name: str = Field(sa_type=NAME_TYPE, primary_key=True)
    digest: str = Field(sa_type=DIGEST_TYPE)


class UploadRow(SQLModel, table=True):
    """The journal of one push: what was declared, and how far it came.

    Until ``lease_until`` its blobs count as wanted, published or not.
    """

    __tablename__ = "upload"
    __table_args__ = (
        sa.CheckConstraint("state IN ('open', 'published', 'failed')", name="state_known"),
        sa.Index(None, "namespace", "name", "digest"),
        _digest_check(),
    )

    id: str = Field(sa_type=sa.String(32), primary_key=True)
    namespace: str = Field(sa_type=NAME_TYPE)
    name: str = Field(sa_type=NAME_TYPE)
    digest: str = Field(sa_type=DIGEST_TYPE)
    manifest: str = Field(sa_type=sa.Text)
    base_id: int | None = Field(default=None, foreign_key="base.id")
    card: str | None = Field(default=None, sa_type=sa.Text)
    semver: str | None = Field(default=None, sa_type=SEMVER_TYPE)
    state: str = Field(sa_type=sa.String(16))
    lease_until: datetime = Field(sa_type=UtcDateTime)
    created_at: datetime = Field(sa_type=UtcDateTime)


class UploadBlobRow(SQLModel, table=True):
    """One blob that an upload declared."""

    __tablename__ = "upload_blob"
    __table_args__ = (_digest_check(),)

    upload_id: str = Field(foreign_key="upload.id", sa_type=sa.String(32), primary_key=True)
    digest: str = Field(sa_type=DIGEST_TYPE, primary_key=True, index=True)


class BlobRow(SQLModel, table=True):
    """A blob that somebody wanted to store; whether the store holds it, only the store knows.

    ``live`` → ``condemned`` (nobody names it any more) → ``deleting`` → no row. Who wants it again
    brings it back from ``condemned``; from ``deleting`` there is no way back. ``damaged`` says that
    stored bytes were found to be others, so that a push must bring it anew.
    """

    __tablename__ = "blob"
    __table_args__ = (
        sa.CheckConstraint("state IN ('live', 'condemned', 'deleting')", name="state_known"),
        sa.Index(None, "state", "wanted_at"),
        _digest_check(),
    )

    namespace: str = Field(sa_type=NAME_TYPE, primary_key=True)
    digest: str = Field(sa_type=DIGEST_TYPE, primary_key=True)
    state: str = Field(sa_type=sa.String(16))
    damaged: bool
    wanted_at: datetime = Field(sa_type=UtcDateTime)
    changed_at: datetime = Field(sa_type=UtcDateTime)


class TokenRow(SQLModel, table=True):
    """A bearer token, known only by its digest."""

    __tablename__ = "api_token"
    __table_args__ = (
        sa.UniqueConstraint("name"),
        sa.UniqueConstraint("secret"),
        _digest_check("secret"),
    )

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(sa_type=NAME_TYPE)
    secret: str = Field(sa_type=DIGEST_TYPE)
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class TokenGrantRow(SQLModel, table=True):
    """One scope of a token in one namespace, for one adapter of it, or everywhere (``*``)."""

    __tablename__ = "api_token_grant"
    __table_args__ = (sa.CheckConstraint("scope IN ('read', 'push', 'admin')", name="scope_known"),)

    token_id: int = Field(foreign_key="api_token.id", primary_key=True)
    scope: str = Field(sa_type=sa.String(8), primary_key=True)
    namespace: str = Field(sa_type=PLACE_TYPE, primary_key=True)


class TrustedPublisherRow(SQLModel, table=True):
    """A job of CI that may push to a namespace, or one adapter of it.

    The first that came told its repository's id.
    """

    __tablename__ = "trusted_publisher"
    __table_args__ = (
        sa.UniqueConstraint(
            *("namespace", "issuer", "repository", "workflow", "environment"),
            name="uq_trusted_publisher_job",  # all columns' names are longer than a name may be
        ),
        sa.Index(None, "issuer", "repository"),
    )

    id: int | None = Field(default=None, primary_key=True)
    namespace: str = Field(sa_type=PLACE_TYPE)
    issuer: str = Field(sa_type=NAME_TYPE)
    repository: str = Field(sa_type=sa.String(255))
    workflow: str = Field(sa_type=sa.String(255))
    environment: str = Field(sa_type=sa.String(255))
    repository_id: str | None = Field(default=None, sa_type=sa.String(64))
    created_at: datetime = Field(sa_type=UtcDateTime)


class MintedTokenRow(SQLModel, table=True):
    """A token and who got it: a job that namespaces trust; forgotten when it has expired."""

    __tablename__ = "minted_token"

    token_id: int = Field(foreign_key="api_token.id", primary_key=True)
    publisher_id: int = Field(foreign_key="trusted_publisher.id", primary_key=True, index=True)


class ShownTokenRow(SQLModel, table=True):
    """An identity token that was exchanged, so that it is not exchanged again while it is good."""

    __tablename__ = "shown_token"
    __table_args__ = (_digest_check(),)

    digest: str = Field(sa_type=DIGEST_TYPE, primary_key=True)
    expires_at: datetime = Field(sa_type=UtcDateTime)


class NamespaceRow(SQLModel, table=True):
    """What is said about a namespace as a whole; most have no row."""

    __tablename__ = "namespace"

    name: str = Field(sa_type=NAME_TYPE, primary_key=True)
    anonymous_read: bool
    keep_versions: int | None = None
    keep_days: int = 30
    purge_yanked_days: int | None = None
    quota_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)
    protected_aliases: list[str] = Field(sa_type=sa.JSON, sa_column_kwargs={"server_default": "[]"})
    required_signers: list[dict[str, Any]] = Field(
        sa_type=sa.JSON, sa_column_kwargs={"server_default": "[]"}
    )


class AuditRow(SQLModel, table=True):
    """One line of the audit log; triggers refuse to change or remove it."""

    __tablename__ = "audit"
    __table_args__ = (sa.Index(None, "namespace", "id"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    at: datetime = Field(sa_type=UtcDateTime)
    actor: str = Field(sa_type=NAME_TYPE)
    action: str = Field(sa_type=sa.String(32))
    namespace: str | None = Field(default=None, sa_type=NAME_TYPE)
    subject: str = Field(sa_type=sa.Text)
    detail: dict[str, Any] = Field(sa_type=sa.JSON)
    request_id: str | None = Field(default=None, sa_type=sa.String(64))


# The same tables for SQL expressions; whole statements read better than an ORM's objects.
_TABLES = SQLModel.metadata.tables
BASE = _TABLES["base"]
ADAPTER = _TABLES["adapter"]
VERSION = _TABLES["version"]
SEARCH_KEY = _TABLES["search_key"]
SEARCH_ENTRY = _TABLES["search_entry"]
VERSION_PART = _TABLES["version_part"]
VERSION_TENSOR = _TABLES["version_tensor"]
VERSION_FILE = _TABLES["version_file"]
VERSION_SIGNATURE = _TABLES["version_signature"]
ALIAS = _TABLES["alias"]
UPLOAD = _TABLES["upload"]
UPLOAD_BLOB = _TABLES["upload_blob"]
BLOB = _TABLES["blob"]
TOKEN = _TABLES["api_token"]
TOKEN_GRANT = _TABLES["api_token_grant"]
TRUSTED_PUBLISHER = _TABLES["trusted_publisher"]
MINTED_TOKEN = _TABLES["minted_token"]
SHOWN_TOKEN = _TABLES["shown_token"]
NAMESPACE = _TABLES["namespace"]
AUDIT = _TABLES["audit"]
