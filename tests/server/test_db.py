"""The database: its schema, how it is made, and the rules that it holds."""

import contextlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy.exc import IntegrityError

from rankloom import digest as digests
from rankloom.errors import AuthError, RegistryError
from rankloom.registry.wire import VersionQuery
from rankloom_server import auth, db, models, search
from rankloom_server.access import Grant
from rankloom_server.models import (
    ADAPTER,
    ALIAS,
    BLOB,
    MINTED_TOKEN,
    TOKEN,
    TOKEN_GRANT,
    TRUSTED_PUBLISHER,
    UPLOAD,
    VERSION,
    VERSION_FILE,
    VERSION_PART,
)
from schema_shape import Shape, missed, shape

D1, D2 = digests.of_bytes(b"1"), digests.of_bytes(b"2")
NOW = datetime.now(UTC)


def _drift(engine: sa.Engine) -> list[object]:
    with db.read(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, models.SQLModel.metadata)


def _checks(engine: sa.Engine) -> set[str | None]:
    inspector = sa.inspect(engine)
    tables = models.SQLModel.metadata.tables
    return {check["name"] for table in tables for check in inspector.get_check_constraints(table)}


def test_migrations_make_the_models_tables(engine: sa.Engine) -> None:
    assert _drift(engine) == []
    declared = {
        str(constraint.name)
        for table in models.SQLModel.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, sa.CheckConstraint)
    }
    # Alembic does not compare these.
    assert _checks(engine) == declared


def test_every_migration_can_be_taken_back(engine: sa.Engine) -> None:
    with db.write(engine) as connection:
        command.downgrade(db.alembic_config(connection), "base")
    assert set(sa.inspect(engine).get_table_names()) <= {"alembic_version"}
    db.upgrade(engine)
    assert _drift(engine) == []


def test_what_the_first_schema_held_is_kept_there_and_back(database_url: str) -> None:
    made = db.open_engine(database_url)
    lock = {"schema": 1, "algorithm": "exact/1", "parts": [{"digest": D2, "weight": 1}]}
    now = "2026-01-02 03:04:05.000000"
    file = {"path": "p", "size": 1, "digest": D2}
    manifest = json.dumps({"schema": 1, "files": [file], "lock": lock})
    facts = json.dumps(
        {"kinds": ["lora"], "ranks": [4, 8], "targets": ["x.q_proj.weight"]}
        | {"parameters": 1, "nbytes": 4}
    )
    rows = {
        "api_token (name, secret, scopes, created_at)": ("t", D1, "push read", now),
        "adapter (id, namespace, name, card, created_at)": (1, "n", "a", "", now),
        "version (id, adapter_id, number, digest, manifest, facts, created_at)": (
            (1, 1, 1, D1, manifest, facts, now)
        ),
        "version_file (version_id, path, size, digest)": (1, "p", 1, D2),
    }
    with db.write(made) as connection:
        command.upgrade(db.alembic_config(connection), "0001")
        for table, row in rows.items():
            # Python writes plain text and numbers as SQL does.
            connection.exec_driver_sql(" ".join(["INSERT INTO", table, "VALUES", repr(row)]))
    db.upgrade(made)
    (token,) = auth.list_all(made)
    assert token.grants == ("push", "read")
    with db.read(made) as connection:
        blobs = connection.execute(sa.select(BLOB.c.namespace, BLOB.c.digest, BLOB.c.state)).all()
        parts = connection.execute(sa.select(VERSION_PART.c.digest)).scalars().all()
        query = VersionQuery(contains=("q_proj",), within=("q_proj",), rank_min=8, text="a")
        assert [item.digest for item in search.find(connection, query).items] == [D1]
    assert [tuple(row) for row in blobs] == [("n", D2, "live")]
    assert parts == [D2]
    with db.write(made) as connection:
        command.downgrade(db.alembic_config(connection), "0001")
        scopes = connection.execute(sa.text("SELECT scopes FROM api_token")).scalar()
    assert scopes == "read push"
    db.upgrade(made)
    assert auth.list_all(made)[0].grants == ("push", "read")
    assert _drift(made) == []
    made.dispose()


def test_without_grants_for_one_adapter_none_of_them_opens_more(engine: sa.Engine) -> None:
    """An older server knows no such place: what has one ends, and nothing else does."""
    tokens = {
        place: auth.create(engine, f"of-{at}", [Grant.at("push", place), Grant.at("read", "acme")])
        for at, place in enumerate(("acme/kept", "acme/job", "acme", "other"))
    }
    job = {"issuer": "i", "workflow": "w", "environment": "", "created_at": NOW}
    with db.write(engine) as connection:
        ids = connection.execute(sa.select(TOKEN.c.id).order_by(TOKEN.c.id)).scalars().all()
        for token_id, place in zip(ids[1:3], ("acme/job", "acme"), strict=True):
            made = sa.insert(TRUSTED_PUBLISHER).values(namespace=place, repository=place, **job)
            (publisher,) = connection.execute(made).inserted_primary_key or ()
            minted = sa.insert(MINTED_TOKEN).values(token_id=token_id, publisher_id=publisher)
            connection.execute(minted)
        command.downgrade(db.alembic_config(connection), "0012")
    db.upgrade(engine)
    may = {}
    for place, token in tokens.items():
        with contextlib.suppress(AuthError):
            may[place] = str(auth.identify(engine, token))
    kept = {"acme": "push:acme read:acme", "other": "push:other read:acme"}
    assert may == {"acme/kept": "read:acme", **kept}
    with db.read(engine) as connection:
        trusted = connection.execute(sa.select(TRUSTED_PUBLISHER.c.namespace)).scalars().all()
    assert trusted == ["acme"]


def test_head_is_the_newest_migration() -> None:
    script = ScriptDirectory(str(db.migrations_folder()))
    assert script.get_heads() == [db.HEAD]


def _shape(engine: sa.Engine, revision: str) -> Shape:
    with db.write(engine) as connection:
        command.upgrade(db.alembic_config(connection), revision)
        return shape(connection)


def test_servers_that_run_go_on_beside_the_newest_schema(database_url: str) -> None:
    made = db.open_engine(database_url)
    older, oldest, newest = (_shape(made, at) for at in ("0008", "0010", db.HEAD))
    assert missed(oldest, newest) == set()
    # So it is not with those before, as the documentation says.
    assert missed(older, newest) >= {
        "search_entry.rank must be given",
        "search_entry: unique of key_id, version_id is gone",
    }
    made.dispose()


CHANGES: dict[str, tuple[Any, ...]] = {
    "base.source is gone": ("drop_column", "source"),
    "base.cfg must be given": ("alter_column", "cfg", {"nullable": False}),
    "base.struct may be absent": ("alter_column", "struct", {"nullable": True}),
    "base.source was TEXT()": ("alter_column", "source", {"type_": sa.String(8)}),
    "base: unique of cfg is new": ("create_unique_constraint", "u", ["cfg"]),
    "base: check c of cfg is new": ("create_check_constraint", "c", "cfg <> '-'"),
    "base: in api_token of cfg is new": (
        "create_foreign_key",
        "f",
        "api_token",
        ["cfg"],
        ["secret"],
    ),
    "base: unique of name is gone": ("drop_constraint", "uq_base_name"),
    "base: index of exact is gone": ("drop_index", "ix_base_exact"),
}


def test_what_an_older_server_would_miss_is_seen(engine: sa.Engine) -> None:
    for expected, (step, *given) in CHANGES.items():
        more = given.pop() if isinstance(given[-1], dict) else {}
        with db.read(engine) as connection:  # nothing is committed
            before = shape(connection)
            operations = Operations(MigrationContext.configure(connection))
            with operations.batch_alter_table("base") as table:
                getattr(table, step)(*given, **more)
            assert missed(before, shape(connection)) == {expected}


def test_migrations_do_not_import_the_models() -> None:
    # A migration tells what was true once; the models tell what is true now.
    for path in (db.migrations_folder() / "versions").glob("*.py"):
        assert "rankloom" not in path.read_text()


def test_a_schema_of_another_version_is_refused(engine: sa.Engine) -> None:
    with db.write(engine) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(RegistryError, match="9999"):
        db.upgrade(engine)


_OPEN = """
import sys
from rankloom_server import db
engine = db.open_engine(sys.argv[1])
db.upgrade(engine)
with db.read(engine) as connection:
    print(db.revision(connection))
"""


def test_many_processes_may_make_one_database(database_url: str) -> None:
    command = [sys.executable, "-W", "error", "-c", _OPEN, database_url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == [db.HEAD] * 3


def test_a_database_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    engine = db.open_engine(db.sqlite_url(tmp_path / "no folder" / "registry.db"))
    with pytest.raises(RegistryError, match="unable to open"):
        db.upgrade(engine)


def _adapter(**values: object) -> dict[str, object]:
    return {"namespace": "n", "name": "a", "card": "", "created_at": NOW, **values}


def _version(**values: object) -> dict[str, object]:
    base = {"number": 1, "digest": D1, "manifest": "{}", "facts": {}, "created_at": NOW}
    return {"adapter_id": 101, **base, **values}


def _upload(**values: object) -> dict[str, object]:
    base = {"id": "u", "namespace": "n", "name": "a", "digest": D1, "manifest": "{}"}
    return {**base, "state": "open", "lease_until": NOW, "created_at": NOW, **values}


@pytest.fixture
def filled(engine: sa.Engine) -> sa.Engine:
    with db.write(engine) as connection:
        connection.execute(sa.insert(ADAPTER).values(id=101, **_adapter()))
        connection.execute(sa.insert(VERSION).values(id=101, **_version()))
        connection.execute(sa.insert(ADAPTER).values(id=102, **_adapter(name="b")))
    return engine


@pytest.mark.parametrize(
    ("table", "values", "constraint"),
    [
        (ADAPTER, _adapter(), "uq_adapter_namespace_name"),
        (VERSION, _version(number=2), "uq_version_adapter_id_digest"),
        (VERSION, _version(digest=D2), "uq_version_adapter_id_number"),
        (VERSION, _version(digest=D2, number=0), "ck_version_number_positive"),
        (VERSION, _version(digest="sha256:" + "A" * 64, number=2), "ck_version_digest_format"),
        (VERSION, _version(digest=D2[:-1], number=2), "ck_version_digest_format"),
        (VERSION, _version(digest=D2[:-1] + "g", number=2), "ck_version_digest_format"),
        (VERSION, _version(digest="md5:123" + "0" * 64, number=2), "ck_version_digest_format"),
        (VERSION, _version(digest=D2, number=2, yanked=""), "ck_version_yanked_has_reason"),
        (VERSION, _version(digest=D2, number=2, adapter_id=9), "fk_version_adapter_id"),
        (
            VERSION_FILE,
            {"version_id": 101, "path": "p", "size": -1, "digest": D1},
            "ck_version_file_size_not_negative",
        ),
        (ALIAS, {"adapter_id": 101, "name": "latest", "digest": D1}, "ck_alias_latest_is_computed"),
        # An alias of one adapter cannot name a version of another.
        (ALIAS, {"adapter_id": 102, "name": "x", "digest": D1}, "fk_alias_adapter_id"),
        (UPLOAD, _upload(state="lost"), "ck_upload_state_known"),
        (
            TOKEN,
            {"name": "t", "secret": "rl_plain", "created_at": NOW},
            "ck_api_token_secret_format",
        ),
        (
            TOKEN_GRANT,
            {"token_id": 101, "scope": "write", "namespace": "*"},
            "ck_api_token_grant_scope_known",
        ),
        (
            BLOB,
            {
                "namespace": "n",
                "digest": D1,
                "state": "lost",
                "damaged": False,
                "wanted_at": NOW,
                "changed_at": NOW,
            },
            "ck_blob_state_known",
        ),
    ],
)
def test_the_database_refuses_what_may_not_be(
    filled: sa.Engine, table: sa.Table, values: dict[str, object], constraint: str
) -> None:
    with pytest.raises(IntegrityError) as caught, db.write(filled) as connection:
        connection.execute(sa.insert(table).values(**values))
    # SQLite names only checks.
    kinds = {"uq": "UNIQUE constraint failed", "fk": "FOREIGN KEY constraint failed"}
    sqlite = filled.dialect.name == "sqlite"
    assert (kinds.get(constraint[:2], constraint) if sqlite else constraint) in str(caught.value)


def test_times_come_back_as_utc(filled: sa.Engine) -> None:
    with db.read(filled) as connection:
        found = connection.execute(sa.select(ADAPTER.c.created_at)).scalars().first()
    assert found == NOW
    assert found.tzinfo is UTC


def test_a_reader_sees_one_state(filled: sa.Engine) -> None:
    count = sa.select(sa.func.count()).select_from(ADAPTER)
    with db.read(filled) as connection:
        before = connection.execute(count).scalar()
        with db.write(filled) as other:
            other.execute(sa.insert(ADAPTER).values(**_adapter(name="meanwhile")))
        assert connection.execute(count).scalar() == before


def test_a_current_database_needs_no_alembic(engine: sa.Engine) -> None:
    code = (
        "import sys; from rankloom_server import db, service; import sqlalchemy as sa; "
        f"db.upgrade(db.open_engine({engine.url.render_as_string(hide_password=False)!r})); "
        "print(*{'alembic', 'fastapi', 'boto3', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == []
