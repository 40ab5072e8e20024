"""A publication that takes long is answered 202, goes on, and ends the same way."""

import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from adapter_folder import manifest_of, send, write_adapter
from rankloom.errors import AdapterError, RankloomError
from rankloom.ref import AdapterName
from rankloom.registry.http import HttpRegistry
from rankloom.registry.wire import Upload, UploadRequest, Version
from rankloom_server import auth
from rankloom_server.app import API, create_app
from rankloom_server.publish import facts
from rankloom_server.service import open_embedded
from rankloom_server.settings import Settings
from rankloom_server.under_way import UnderWay
from servers import served

NAME = AdapterName("default", "zh-lang")


class Gate:
    """Holds verifications until it is opened, and counts them."""

    def __init__(self, verify: Callable[..., object]) -> None:
        self.opened = threading.Event()
        self.count = 0
        self._verify = verify

    def __call__(self, *arguments: object) -> object:
        self.count += 1
        assert self.opened.wait(20)
        return self._verify(*arguments)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(facts.examine)
    monkeypatch.setattr(facts, "examine", made)
    yield made
    made.opened.set()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A server in a hurry to answer."""
    hasty = functools.partial(UnderWay, patience_seconds=0.05)
    monkeypatch.setattr("rankloom_server.app.UnderWay", hasty)
    return Settings(data_dir=tmp_path / "data", collect_hours=0)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    app = create_app(settings)
    token = auth.create_first(app.state.service.engine)
    with TestClient(app, headers={"Authorization": f"Bearer {token}"}) as made:
        yield made


def declare_and_send(folder: Path) -> Upload:
    """Begin the push of a folder that lies beside the server's data."""
    service = open_embedded(folder.parent / "data")
    upload = service.open_upload(NAME, UploadRequest(manifest=manifest_of(folder)))
    send(folder, upload)
    service.close()
    return upload


def where(upload_id: str) -> str:
    return f"{API}/uploads/{upload_id}/publish"


def test_who_asks_again_joins_what_goes_on(client: TestClient, gate: Gate, tmp_path: Path) -> None:
    upload = declare_and_send(write_adapter(tmp_path / "a"))
    for _ in range(3):
        answered = client.post(where(upload.id))
        assert (answered.status_code, answered.json()) == (202, {"upload_id": upload.id})
        assert answered.headers["retry-after"] == "1"
    gate.opened.set()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: until_done(client, upload.id), range(4)))
    assert len({answer.digest for answer in answers}) == 1
    assert gate.count == 1


def until_done(client: TestClient, upload_id: str) -> Version:
    while (answered := client.post(where(upload_id))).status_code == 202:
        pass
    assert answered.status_code == 200
    return Version.model_validate_json(answered.content)


def test_the_client_waits_as_the_server_asks(
    settings: Settings, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        gate.opened.set()

    monkeypatch.setattr("rankloom.registry.http.time.sleep", pause)
    upload = declare_and_send(write_adapter(tmp_path / "a"))
    with served(settings) as (url, token), closing(HttpRegistry(url, token)) as registry:
        assert registry.publish(upload.id) == registry.show(NAME).versions[0]
    assert pauses
    assert set(pauses) == {1.0}


def test_how_a_refused_one_ends_is_told_to_who_asks_again(
    client: TestClient, gate: Gate, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4')
    upload = declare_and_send(folder)
    assert client.post(where(upload.id)).status_code == 202
    gate.opened.set()
    while (answered := client.post(where(upload.id))).status_code == 202:
        pass
    assert answered.status_code == AdapterError.http_status
    assert [one["rule"] for one in answered.json()["findings"]] == ["CFG001"]
    assert gate.count == 1


def test_an_end_that_nobody_asks_for_is_forgotten() -> None:
    under_way = UnderWay(patience_seconds=0.01, kept_seconds=0.1)
    opened = threading.Event()

    def publish() -> Version:
        assert opened.wait(20)
        raise RankloomError("a fault that has passed")

    assert under_way.publish("upload", "one", publish) is None
    (worker,) = [thread for thread in threading.enumerate() if thread.name == "publish"]
    opened.set()
    worker.join(20)
    calls = []

    def again() -> Version:
        calls.append(1)
        raise RankloomError("refused anew")

    def ask_until_told() -> None:
        while under_way.publish("upload", "one", again) is None:
            pass

    with pytest.raises(RankloomError, match="refused anew"):
        ask_until_told()
    assert len(calls) == 1


def test_nobody_else_is_told_how_it_ended() -> None:
    under_way = UnderWay(patience_seconds=5)
    calls = []

    def publish() -> Version:
        calls.append(1)
        raise RankloomError("refused")

    for actor in ("one", "other", "one"):
        with pytest.raises(RankloomError, match="refused"):
            under_way.publish("upload", actor, publish)
    assert len(calls) == 3, "an end that was told is not kept"
