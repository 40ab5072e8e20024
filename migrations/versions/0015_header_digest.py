"""The digest of a version's header, so that it can be read again without the rest of its file.

Nothing is known of the versions that are there: each is read whole once more, when it is looked at.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("version", sa.Column("header_digest", sa.String(71), nullable=True))


def downgrade() -> None:
    op.drop_column("version", "header_digest")
