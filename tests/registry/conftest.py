"""A registry behind each of its two doors, and a base and adapters as a user has them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapter_folder import write_adapter, write_base
from rankloom.client import Client
from rankloom_server.settings import Settings
from servers import served


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RANKLOOM_URL", raising=False)
    monkeypatch.delenv("RANKLOOM_TOKEN", raising=False)
    return tmp_path / "home"


@pytest.fixture(params=["embedded", "http"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    if request.param == "embedded":
        with Client() as client:
            yield client
        return
    with (
        served(Settings(data_dir=tmp_path / "served")) as (url, token),
        Client(url, token) as client,
    ):
        yield client


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "tiny-base")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")
