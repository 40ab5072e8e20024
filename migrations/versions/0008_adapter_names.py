"""Adapters by name alone: a name without a namespace must be one adapter's only."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_adapter_name", "adapter", ["name"])


def downgrade() -> None:
    op.drop_index("ix_adapter_name", "adapter")
