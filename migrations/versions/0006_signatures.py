"""Signatures of versions, and by whom a namespace wants its versions signed."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

NAME = sa.String(96).with_variant(sa.String(96, collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)
IS_DIGEST = (
    "length(digest) = 71 AND substr(digest, 1, 7) = 'sha256:' "
    "AND trim(substr(digest, 8), '0123456789abcdef') = ''"
)

APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER version_signature_no_{verb.lower()} BEFORE {verb} ON version_signature "
        "BEGIN SELECT RAISE(ABORT, 'signatures are append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE FUNCTION signatures_are_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'signatures are append-only'; END $$",
        "CREATE TRIGGER version_signature_no_change BEFORE UPDATE OR DELETE OR TRUNCATE "
        "ON version_signature FOR EACH STATEMENT EXECUTE FUNCTION signatures_are_append_only()",
    ],
}


def upgrade() -> None:
    op.create_table(
        "version_signature",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("bundle", sa.Text(), nullable=False),
        sa.Column("creator", NAME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("version_id", "digest", name=op.f("pk_version_signature")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["version.id"], name=op.f("fk_version_signature_version_id")
        ),
        sa.CheckConstraint(IS_DIGEST, name=op.f("ck_version_signature_digest_format")),
    )
    for statement in APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)
    required = sa.Column("required_signers", sa.JSON(), nullable=False, server_default="[]")
    op.add_column("namespace", required)


def downgrade() -> None:
    op.drop_column("namespace", "required_signers")
    op.drop_table("version_signature")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION signatures_are_append_only()")
