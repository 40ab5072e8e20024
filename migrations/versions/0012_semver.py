"""A version may carry a semantic version, which is one version's of its adapter."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INDEX = "ix_version_adapter_id_semver"
SEMVER = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("version", sa.Column("semver", SEMVER, nullable=True))
    op.add_column("upload", sa.Column("semver", SEMVER, nullable=True))
    # An index, for SQLite adds no constraint to a table that is there.
    op.create_index(op.f(INDEX), "version", ["adapter_id", "semver"], unique=True)


def downgrade() -> None:
    op.drop_index(op.f(INDEX), "version")
    op.drop_column("upload", "semver")
    op.drop_column("version", "semver")
