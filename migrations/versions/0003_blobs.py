"""Blobs that can be collected, versions that can be purged, rules of retention."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NAME = sa.String(96).with_variant(sa.String(96, collation="C"), "postgresql")
DIGEST = sa.String(71)
TIME = sa.DateTime(timezone=True)


def digest_check(table: str) -> sa.CheckConstraint:
    sql = (
        "length(digest) = 71 AND substr(digest, 1, 7) = 'sha256:' "
        "AND trim(substr(digest, 8), '0123456789abcdef') = ''"
    )
    return sa.CheckConstraint(sql, name=op.f(f"ck_{table}_digest_format"))


def upgrade() -> None:
    blobs()
    parts()
    op.add_column("version", sa.Column("purged_at", TIME, nullable=True))
    op.drop_column("upload_blob", "absent")
    op.add_column("namespace", sa.Column("keep_versions", sa.Integer(), nullable=True))
    op.add_column(
        "namespace", sa.Column("keep_days", sa.Integer(), nullable=False, server_default="30")
    )
    op.add_column("namespace", sa.Column("purge_yanked_days", sa.Integer(), nullable=True))


def blobs() -> None:
    op.create_table(
        "blob",
        sa.Column("namespace", NAME, nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("damaged", sa.Boolean(), nullable=False),
        sa.Column("wanted_at", TIME, nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "digest", name=op.f("pk_blob")),
        sa.CheckConstraint(
            "state IN ('live', 'condemned', 'deleting')", name=op.f("ck_blob_state_known")
        ),
        digest_check("blob"),
    )
    op.create_index(op.f("ix_blob_state_wanted_at"), "blob", ["state", "wanted_at"])
    op.execute(
        "INSERT INTO blob (namespace, digest, state, damaged, wanted_at, changed_at) "
        "SELECT namespace, digest, 'live', false, max(at), max(at) FROM ("
        "SELECT a.namespace, f.digest, v.created_at AS at FROM version_file f "
        "JOIN version v ON v.id = f.version_id JOIN adapter a ON a.id = v.adapter_id "
        "UNION ALL "
        "SELECT u.namespace, b.digest, u.created_at FROM upload_blob b "
        "JOIN upload u ON u.id = b.upload_id) known GROUP BY namespace, digest"
    )


def parts() -> None:
    op.create_table(
        "version_part",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.PrimaryKeyConstraint("version_id", "digest", name=op.f("pk_version_part")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["version.id"], name=op.f("fk_version_part_version_id")
        ),
        digest_check("version_part"),
    )
    op.create_index(op.f("ix_version_part_digest"), "version_part", ["digest"])
    connection = op.get_bind()
    composed = "SELECT id, manifest FROM version WHERE manifest LIKE '%\"lock\"%'"
    for version_id, manifest in connection.execute(sa.text(composed)).all():
        lock = json.loads(manifest).get("lock") or {}
        if lock.get("schema") != 1:
            continue
        for digest in {part["digest"] for part in lock["parts"]}:
            statement = sa.text("INSERT INTO version_part VALUES (:version_id, :digest)")
            connection.execute(statement, {"version_id": version_id, "digest": digest})


def downgrade() -> None:
    for column in ("purge_yanked_days", "keep_days", "keep_versions"):
        op.drop_column("namespace", column)
    absent = sa.Column("absent", sa.Boolean(), nullable=False, server_default=sa.false())
    op.add_column("upload_blob", absent)
    op.drop_column("version", "purged_at")
    op.drop_table("version_part")
    op.drop_table("blob")
