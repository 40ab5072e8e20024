"""What is purged leaves the list by which old verdicts are found: it is never judged again."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

JUDGED_BY = "ix_version_judged_by"
KEPT = sa.text("purged_at IS NULL")


def upgrade() -> None:
    op.drop_index(op.f(JUDGED_BY), table_name="version")
    op.create_index(
        op.f(JUDGED_BY), "version", ["judged_by"], postgresql_where=KEPT, sqlite_where=KEPT
    )


def downgrade() -> None:
    op.drop_index(op.f(JUDGED_BY), table_name="version")
    op.create_index(op.f(JUDGED_BY), "version", ["judged_by"])
