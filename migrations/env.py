"""Run by Alembic; the connection, already in a locked transaction, comes from the service."""

from alembic import context

from rankloom_server import models

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=models.SQLModel.metadata,
    transactional_ddl=True,
    render_as_batch=True,  # SQLite changes a table by copying it
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
