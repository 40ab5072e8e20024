"""The registry by both of its doors, on both kinds of database and store."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from adapter_folder import write_large_adapter
from rankloom.registry.http import HttpRegistry
from rankloom.registry.protocol import Registry
from rankloom_server import db
from rankloom_server.service import open_embedded
from rankloom_server.settings import Settings
from rankloom_server.store.interface import PARTING
from servers import served

_SERVICES = pytest.mark.services


@pytest.fixture(scope="session")
def large_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter whose weights are just large enough to be sent in parts."""
    made = write_large_adapter(tmp_path_factory.mktemp("large") / "adapter", PARTING.beyond)
    assert (made / "adapter_model.safetensors").stat().st_size > PARTING.beyond
    return made


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=_SERVICES)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return db.sqlite_url(tmp_path / "registry.db")
    url: str = request.getfixturevalue("postgres").new_database()
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """A database at the present schema."""
    made = db.open_engine(database_url)
    db.upgrade(made)
    yield made
    made.dispose()


def _settings(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Settings:
    if kind == "local":
        return Settings(data_dir=tmp_path / "data")
    return Settings(
        data_dir=tmp_path / "data",
        database_url=request.getfixturevalue("postgres").new_database(),
        **request.getfixturevalue("seaweedfs").settings(),
    )


@pytest.fixture(params=["local", pytest.param("production", marks=_SERVICES)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a fresh server: SQLite and a folder, or PostgreSQL and S3."""
    return _settings(request, request.param, tmp_path)


@pytest.fixture(params=["embedded", "local", pytest.param("production", marks=_SERVICES)])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """A fresh registry by any door: in this process, or over HTTP with its admin token."""
    with contextlib.ExitStack() as stack:
        made: Registry
        if request.param == "embedded":
            made = open_embedded(tmp_path / "data")
        else:
            chosen = _settings(request, request.param, tmp_path)
            made = HttpRegistry(*stack.enter_context(served(chosen)))
        stack.callback(made.close)
        yield made
