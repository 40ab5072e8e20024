"""Every kind of store, by the settings of a real server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rankloom_server.settings import Settings
from rankloom_server.store.interface import Store
from rankloom_server.store.local import LocalStore
from rankloom_server.wiring import open_store
from servers import running_server

MakeStore = Callable[..., Store]


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A folder behind a running server, so that its signed URLs are answered."""
    folder = tmp_path_factory.mktemp("served")
    with running_server(folder, public_url="") as (url, _):
        yield Settings(data_dir=folder, public_url=url)


@pytest.fixture
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Make stores by kind and by how many seconds their URLs are good for; empty them at last."""
    made: list[Store] = []

    def make(kind: str, seconds: int = 300) -> Store:
        if kind == "folder":
            made.append(LocalStore(tmp_path))
        else:
            made.append(open_store(settings(kind).model_copy(update={"url_seconds": seconds})))
        return made[-1]

    def settings(kind: str) -> Settings:
        if kind == "http":
            found: Settings = request.getfixturevalue("served_folder")
            return found
        return Settings(data_dir=tmp_path, **request.getfixturevalue(kind).settings())

    yield make
    for store in made:
        for assembly in store.assemblies():
            store.abandon(assembly)
        for blob in store.list_all():
            store.inside(blob.namespace).delete(blob.digest)


SEAWEEDFS = pytest.param("seaweedfs", marks=pytest.mark.services)


@pytest.fixture(params=["folder", "http", "moto", SEAWEEDFS])
def store(request: pytest.FixtureRequest, make_store: MakeStore) -> Store:
    return make_store(request.param)


@pytest.fixture(params=["http", SEAWEEDFS])
def strict(request: pytest.FixtureRequest, make_store: MakeStore) -> Store:
    """A store that enforces signatures, expiry and checksums; moto believes everything."""
    return make_store(request.param)


@pytest.fixture(params=["http", SEAWEEDFS])
def brief(request: pytest.FixtureRequest, make_store: MakeStore) -> Store:
    """A store whose URLs are good for one second."""
    return make_store(request.param, 1)


@pytest.fixture(params=["http", "moto", SEAWEEDFS])
def networked(request: pytest.FixtureRequest, make_store: MakeStore) -> Store:
    """A store that clients reach over a network, and to which large blobs go in parts."""
    return make_store(request.param)
