"""The first schema."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A migration never changes, so nothing here is imported from the models, which do.
NAME = sa.String(96).with_variant(sa.String(96, collation="C"), "postgresql")
DIGEST = sa.String(71)
TIME = sa.DateTime(timezone=True)


def need(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def may(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=op.f(f"uq_{table}_{'_'.join(columns)}"))


def check(table: str, name: str, sql: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(sql, name=op.f(f"ck_{table}_{name}"))


def digest_check(table: str, column: str = "digest") -> sa.CheckConstraint:
    sql = (
        f"length({column}) = 71 AND substr({column}, 1, 7) = 'sha256:' "
        f"AND trim(substr({column}, 8), '0123456789abcdef') = ''"
    )
    return check(table, f"{column}_format", sql)


def points(table: str, columns: list[str], to: list[str]) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(columns, to, name=op.f(f"fk_{table}_{'_'.join(columns)}"))


def index(table: str, *columns: str) -> None:
    op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))


def upgrade() -> None:
    bases()
    versions()
    uploads()
    tokens()


def bases() -> None:
    op.create_table(
        "base",
        need("id", sa.Integer()),
        need("name", NAME),
        may("cfg", DIGEST),
        need("struct", DIGEST),
        may("exact", DIGEST),
        may("bf16", DIGEST),
        need("source", sa.Text()),
        need("config", sa.JSON()),
        need("tensors", sa.JSON()),
        need("created_at", TIME),
        key("base", "id"),
        unique("base", "name"),
    )
    index("base", "exact")
    index("base", "bf16")


def versions() -> None:
    op.create_table(
        "adapter",
        need("id", sa.Integer()),
        need("namespace", NAME),
        need("name", NAME),
        need("card", sa.Text()),
        need("created_at", TIME),
        key("adapter", "id"),
        unique("adapter", "namespace", "name"),
    )
    op.create_table(
        "version",
        need("id", sa.Integer()),
        need("adapter_id", sa.Integer()),
        need("number", sa.Integer()),
        need("digest", DIGEST),
        may("base_id", sa.Integer()),
        need("manifest", sa.Text()),
        need("facts", sa.JSON()),
        may("yanked", sa.Text()),
        need("created_at", TIME),
        key("version", "id"),
        points("version", ["adapter_id"], ["adapter.id"]),
        points("version", ["base_id"], ["base.id"]),
        unique("version", "adapter_id", "digest"),
        unique("version", "adapter_id", "number"),
        check("version", "number_positive", "number >= 1"),
        check("version", "yanked_has_reason", "yanked <> ''"),
        digest_check("version"),
    )
    index("version", "base_id")
    op.create_table(
        "version_file",
        need("version_id", sa.Integer()),
        need("path", sa.String(255)),
        need("size", sa.BigInteger()),
        need("digest", DIGEST),
        key("version_file", "version_id", "path"),
        points("version_file", ["version_id"], ["version.id"]),
        check("version_file", "size_not_negative", "size >= 0"),
        digest_check("version_file"),
    )
    index("version_file", "digest")
    op.create_table(
        "alias",
        need("adapter_id", sa.Integer()),
        need("name", NAME),
        need("digest", DIGEST),
        key("alias", "adapter_id", "name"),
        points("alias", ["adapter_id", "digest"], ["version.adapter_id", "version.digest"]),
        check("alias", "latest_is_computed", "name <> 'latest'"),
    )


def uploads() -> None:
    op.create_table(
        "upload",
        need("id", sa.String(32)),
        need("namespace", NAME),
        need("name", NAME),
        need("digest", DIGEST),
        need("manifest", sa.Text()),
        may("base_id", sa.Integer()),
        may("card", sa.Text()),
        need("state", sa.String(16)),
        need("lease_until", TIME),
        need("created_at", TIME),
        key("upload", "id"),
        points("upload", ["base_id"], ["base.id"]),
        check("upload", "state_known", "state IN ('open', 'published', 'failed')"),
        digest_check("upload"),
    )
    index("upload", "namespace", "name", "digest")
    op.create_table(
        "upload_blob",
        need("upload_id", sa.String(32)),
        need("digest", DIGEST),
        need("absent", sa.Boolean()),
        key("upload_blob", "upload_id", "digest"),
        points("upload_blob", ["upload_id"], ["upload.id"]),
        digest_check("upload_blob"),
    )
    index("upload_blob", "digest")


def tokens() -> None:
    op.create_table(
        "api_token",
        need("id", sa.Integer()),
        need("name", NAME),
        need("secret", DIGEST),
        need("scopes", sa.String(64)),
        need("created_at", TIME),
        may("expires_at", TIME),
        may("revoked_at", TIME),
        key("api_token", "id"),
        unique("api_token", "name"),
        unique("api_token", "secret"),
        digest_check("api_token", "secret"),
    )


def downgrade() -> None:
    tables = ["api_token", "upload_blob", "upload", "alias", "version_file", "version", "adapter"]
    for table in [*tables, "base"]:
        op.drop_table(table)
