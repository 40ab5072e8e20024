"""Lists of a search carry the rank, so that a walk compares it without reading the version.

The table is made anew and empty: the program enters every version when it has migrated.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("search_entry")
    _create(sa.Column("rank", sa.Integer(), nullable=False))


def downgrade() -> None:
    op.execute("CREATE TABLE kept AS SELECT DISTINCT key_id, version_id FROM search_entry")
    op.drop_table("search_entry")
    _create()
    op.execute("INSERT INTO search_entry SELECT key_id, version_id FROM kept")
    op.drop_table("kept")


def _create(*more: sa.Column[int]) -> None:
    names = ["key_id", "version_id", *(column.name for column in more)]
    op.create_table(
        "search_entry",
        sa.Column("key_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        *more,
        sa.PrimaryKeyConstraint(*names, name=op.f("pk_search_entry")),
        sa.ForeignKeyConstraint(["key_id"], ["search_key.id"], name=op.f("fk_search_entry_key_id")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["version.id"], name=op.f("fk_search_entry_version_id")
        ),
        sqlite_with_rowid=False,
    )
