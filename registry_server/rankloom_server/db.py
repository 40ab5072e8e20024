"""The database: how it is opened, locked and brought to the present schema."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DataError, OperationalError

from rankloom.errors import RefError, RegistryError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from alembic.config import Config
    from sqlalchemy.dialects.sqlite.dml import Insert

HEAD = "0016"
"""Revision of the newest migration; known here so that a current database needs no Alembic."""

_SEARCHABLE = "0010"  # the migration that emptied the lists of rankloom_server.search

_MIGRATION_LOCK = 0x72616E6B  # any number that nothing else on the server uses
_SQLITE_WAIT_MS = 30_000


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file."""
    return str(sa.URL.create("sqlite", database=str(path)))


def open_engine(url: str) -> sa.Engine:
    """Return an engine for a SQLite or PostgreSQL URL; nothing is connected yet."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = sa.create_engine(parsed)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # The plain scheme would mean psycopg2.
    driver = parsed.set(drivername="postgresql+psycopg")
    return sa.create_engine(driver, pool_pre_ping=True)


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not open transactions by itself: _begin_sqlite says which kind.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_SQLITE_WAIT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # A writer takes the lock first: a reader that turns writer half-way may have to give up.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextlib.contextmanager
def read(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection that sees one state of the database and changes nothing.

    Raises:
        RegistryError: the database cannot be reached.
    """
    snapshot = {"isolation_level": "REPEATABLE READ"} if _is_postgresql(engine) else {}
    with _reachable(), engine.connect().execution_options(**snapshot) as connection:
        yield connection


@contextlib.contextmanager
def write(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection in a transaction that is committed when the block ends well.

    Raises:
        RegistryError: the database cannot be reached.
    """
    with (
        _reachable(),
        engine.connect().execution_options(writes=True) as connection,
        connection.begin(),
    ):
        yield connection


def insert(connection: sa.Connection, table: sa.Table) -> Insert:
    """Return an insert that can say what happens ``on_conflict``; both databases know it."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return cast("Insert", postgresql.insert(table))  # the two kinds agree in what we use
    return sqlite.insert(table)


@contextlib.contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except DataError as error:  # e.g. a null character, which PostgreSQL cannot hold
        message = f"the registry cannot keep such a value: {str(error.orig).splitlines()[0]}"
        raise RefError(message, hint="check the text for characters that no name has") from error
    except OperationalError as error:
        message = f"the registry's database does not answer: {error.orig}"
        raise RegistryError(
            message, hint="try again; if it stays so, see the server's log"
        ) from error


def upgrade(engine: sa.Engine) -> None:
    """Bring the schema to :data:`HEAD`; does nothing (and imports nothing) if it is there.

    Only one process migrates at a time, the others wait and find the work done.
    """
    with read(engine) as connection:
        if revision(connection) == HEAD:
            return
    with write(engine) as connection:
        if _is_postgresql(engine):
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        found = revision(connection)
        if found != HEAD:
            _run_migrations(connection, found)


def _is_postgresql(engine: sa.Engine) -> bool:
    return engine.dialect.name == "postgresql"


def revision(connection: sa.Connection) -> str | None:
    """Return the schema's revision; ``None`` for an empty database."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _run_migrations(connection: sa.Connection, found: str | None) -> None:
    from alembic import command
    from alembic.util import CommandError

    try:
        command.upgrade(alembic_config(connection), HEAD)
    except CommandError as error:
        message = f"the registry's database has schema {found}, this program knows {HEAD}"
        raise RegistryError(message, hint="use the rankloom version that made it") from error
    if found is not None and found < _SEARCHABLE:
        from rankloom_server import search_keys

        search_keys.reindex(connection)


def alembic_config(connection: sa.Connection) -> Config:
    """Return Alembic's configuration for an open connection (``migrations/env.py`` reads it)."""
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    return config


def migrations_folder() -> Path:
    """Return where the migrations are: in the wheel beside this file, else at the source's root."""
    here = Path(__file__).resolve().parent
    shipped = here / "migrations"
    return shipped if shipped.is_dir() else here.parents[1] / "migrations"
