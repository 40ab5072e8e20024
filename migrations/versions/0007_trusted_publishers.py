"""Trusted publishers: jobs of CI that may push, the tokens made for them, and what they showed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NAME = sa.String(96).with_variant(sa.String(96, collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)
IS_DIGEST = (
    "length(digest) = 71 AND substr(digest, 1, 7) = 'sha256:' "
    "AND trim(substr(digest, 8), '0123456789abcdef') = ''"
)


def upgrade() -> None:
    op.create_table(
        "trusted_publisher",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("namespace", NAME, nullable=False),
        sa.Column("issuer", NAME, nullable=False),
        sa.Column("repository", sa.String(255), nullable=False),
        sa.Column("workflow", sa.String(255), nullable=False),
        sa.Column("environment", sa.String(255), nullable=False),
        sa.Column("repository_id", sa.String(64), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trusted_publisher")),
        sa.UniqueConstraint(
            "namespace",
            "issuer",
            "repository",
            "workflow",
            "environment",
            name=op.f("uq_trusted_publisher_job"),
        ),
    )
    op.create_index(
        op.f("ix_trusted_publisher_issuer_repository"),
        "trusted_publisher",
        ["issuer", "repository"],
    )
    op.create_table(
        "minted_token",
        sa.Column("token_id", sa.Integer(), nullable=False),
        sa.Column("publisher_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("token_id", "publisher_id", name=op.f("pk_minted_token")),
        sa.ForeignKeyConstraint(
            ["token_id"], ["api_token.id"], name=op.f("fk_minted_token_token_id")
        ),
        sa.ForeignKeyConstraint(
            ["publisher_id"], ["trusted_publisher.id"], name=op.f("fk_minted_token_publisher_id")
        ),
    )
    op.create_index(op.f("ix_minted_token_publisher_id"), "minted_token", ["publisher_id"])
    op.create_table(
        "shown_token",
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_shown_token")),
        sa.CheckConstraint(IS_DIGEST, name=op.f("ck_shown_token_digest_format")),
    )


def downgrade() -> None:
    op.drop_table("shown_token")
    # What was made for a job ends with the knowledge of who asked for it.
    op.execute(
        "UPDATE api_token SET revoked_at = created_at "
        "WHERE id IN (SELECT token_id FROM minted_token)"
    )
    op.drop_table("minted_token")
    op.drop_table("trusted_publisher")
