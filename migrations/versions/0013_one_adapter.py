"""Tokens and trusted jobs may be for one adapter: places as long as two names.

SQLite does not count characters, so only PostgreSQL has something to change.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLES = ("api_token_grant", "trusted_publisher")


def upgrade() -> None:
    _resize(193)


def downgrade() -> None:
    # What opened one adapter opens nothing any more, rather than all of them.
    op.execute("DELETE FROM api_token_grant WHERE namespace LIKE '%/%'")
    # What was made for a job ends with the knowledge of who asked for it.
    op.execute(
        "UPDATE api_token SET revoked_at = created_at WHERE revoked_at IS NULL AND id IN "
        "(SELECT token_id FROM minted_token WHERE publisher_id IN "
        "(SELECT id FROM trusted_publisher WHERE namespace LIKE '%/%'))"
    )
    op.execute(
        "DELETE FROM minted_token WHERE publisher_id IN "
        "(SELECT id FROM trusted_publisher WHERE namespace LIKE '%/%')"
    )
    op.execute("DELETE FROM trusted_publisher WHERE namespace LIKE '%/%'")
    _resize(96)


def _resize(length: int) -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in TABLES:
        op.alter_column(table, "namespace", type_=sa.String(length, collation="C"))
