"""What engines do with a version, and which tensors it has, to search by.

Nothing is known of the versions that are there: the program says so, and derives it when asked to.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

JUDGED_BY = "ix_version_judged_by"
BY_VERSION = "ix_version_tensor_version_id"


def upgrade() -> None:
    op.add_column("version", sa.Column("verdicts", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("version", sa.Column("judged_by", sa.String(16), nullable=True))
    op.add_column("version", sa.Column("tensor_count", sa.Integer(), nullable=True))
    op.create_index(op.f(JUDGED_BY), "version", ["judged_by"])
    op.create_table(
        "version_tensor",
        sa.Column("digest", sa.LargeBinary(16), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "version_id", name=op.f("pk_version_tensor")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["version.id"], name=op.f("fk_version_tensor_version_id")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f(BY_VERSION), "version_tensor", ["version_id"])


def downgrade() -> None:
    op.execute(
        "DELETE FROM search_entry WHERE key_id IN "
        "(SELECT id FROM search_key WHERE text LIKE 'engine:%')"
    )
    op.drop_index(op.f(BY_VERSION), "version_tensor")
    op.drop_table("version_tensor")
    op.drop_index(op.f(JUDGED_BY), "version")
    for column in ("tensor_count", "judged_by", "verdicts"):
        op.drop_column("version", column)
