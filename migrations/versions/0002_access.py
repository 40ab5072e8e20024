"""Scopes by namespace, public namespaces, the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NAME = sa.String(96).with_variant(sa.String(96, collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SCOPES = ("read", "push", "admin")

APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$",
        "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()",
    ],
}


def upgrade() -> None:
    grants()
    op.create_table(
        "namespace",
        sa.Column("name", NAME, nullable=False),
        sa.Column("anonymous_read", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_namespace")),
    )
    audit()


def grants() -> None:
    op.add_column("api_token", sa.Column("last_used_at", TIME, nullable=True))
    op.create_table(
        "api_token_grant",
        sa.Column("token_id", sa.Integer(), nullable=False),
        sa.Column("scope", sa.String(8), nullable=False),
        sa.Column("namespace", NAME, nullable=False),
        sa.PrimaryKeyConstraint("token_id", "scope", "namespace", name=op.f("pk_api_token_grant")),
        sa.ForeignKeyConstraint(
            ["token_id"], ["api_token.id"], name=op.f("fk_api_token_grant_token_id")
        ),
        sa.CheckConstraint(
            "scope IN ('read', 'push', 'admin')", name=op.f("ck_api_token_grant_scope_known")
        ),
    )
    for scope in SCOPES:  # what a token might do, it might do everywhere
        op.execute(
            sa.text(
                "INSERT INTO api_token_grant (token_id, scope, namespace) SELECT id, :scope, '*' "
                "FROM api_token WHERE scopes LIKE '%' || :scope || '%'"
            ).bindparams(scope=scope)
        )
    op.drop_column("api_token", "scopes")


def audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("namespace", NAME, nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_namespace_id"), "audit", ["namespace", "id"])
    for statement in APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("audit")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_is_append_only()")
    op.drop_table("namespace")
    old = sa.Column("scopes", sa.String(64), nullable=False, server_default="")
    op.add_column("api_token", old)
    for scope in SCOPES:  # a scope in some namespaces only is none in the old words
        op.execute(
            sa.text(
                "UPDATE api_token SET scopes = trim(scopes || ' ' || :scope) WHERE EXISTS ("
                "SELECT 1 FROM api_token_grant g "
                "WHERE g.token_id = api_token.id AND g.namespace = '*' AND g.scope = :scope)"
            ).bindparams(scope=scope)
        )
    op.drop_table("api_token_grant")
    op.drop_column("api_token", "last_used_at")
