"""Searching versions: what each has, as lists of versions; labels, metrics, deprecation."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NAME = sa.String(96).with_variant(sa.String(96, collation="C"), "postgresql")
KEY = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "search_key",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("text", KEY, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_key")),
        sa.UniqueConstraint("text", name=op.f("uq_search_key_text")),
    )
    op.create_table(
        "search_entry",
        sa.Column("key_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "version_id", name=op.f("pk_search_entry")),
        sa.ForeignKeyConstraint(["key_id"], ["search_key.id"], name=op.f("fk_search_entry_key_id")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["version.id"], name=op.f("fk_search_entry_version_id")
        ),
        sqlite_with_rowid=False,
    )
    empty = {"server_default": "{}", "nullable": False}
    op.add_column("version", sa.Column("creator", NAME, nullable=True))
    op.add_column("version", sa.Column("deprecated", sa.Text(), nullable=True))
    op.add_column("version", sa.Column("labels", sa.JSON(), **empty))
    op.add_column("version", sa.Column("metrics", sa.JSON(), **empty))
    zero = {"server_default": "0", "nullable": False}
    op.add_column("version", sa.Column("rank", sa.Integer(), **zero))
    op.add_column("version", sa.Column("module_count", sa.Integer(), **zero))
    protected = sa.Column("protected_aliases", sa.JSON(), server_default="[]", nullable=False)
    op.add_column("namespace", protected)


def downgrade() -> None:
    op.drop_column("namespace", "protected_aliases")
    for column in ("module_count", "rank", "metrics", "labels", "deprecated", "creator"):
        op.drop_column("version", column)
    op.drop_table("search_entry")
    op.drop_table("search_key")
