"""What who runs a registry sees of it and sets: figures, logs, rates, quotas, its description."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from adapter_folder import manifest_of, push, write_adapter
from rankloom.errors import ForbiddenError
from rankloom.ref import AdapterName
from rankloom.registry.wire import NamespaceRules, UploadRequest
from rankloom_server import auth
from rankloom_server.access import Grant
from rankloom_server.app import API, create_app
from rankloom_server.logs import JsonFormatter
from rankloom_server.service import Service
from rankloom_server.settings import Settings
from rankloom_server.store.local import LocalStore


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    made = create_app(Settings(data_dir=tmp_path / "data", requests_per_minute=5))
    yield made
    made.state.service.close()


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as made:
        yield made


def bearer(app: FastAPI, name: str, grant: str = "read") -> dict[str, str]:
    token = auth.create(app.state.service.engine, name, [Grant.parse(grant)])
    return {"Authorization": f"Bearer {token}"}


# --- figures -----------------------------------------------------------------------------------


def test_requests_are_counted_by_the_pattern_of_their_route(
    app: FastAPI, client: TestClient
) -> None:
    for path in ("/healthz", "/healthz", "/nothing/here", f"{API}/adapters/a/b"):
        client.get(path)
    headers = bearer(app, "prometheus")
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers=bearer(app, "acme", "read:acme")).status_code == 403
    answered = client.get("/metrics", headers=headers)
    assert answered.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {one.name: one for one in text_string_to_metric_families(answered.text)}
    seen = {
        (one.labels["route"], one.labels["status"]): one.value
        for one in families["rankloom_requests"].samples
        if one.name.endswith("_total")
    }
    assert seen["/healthz", "200"] == 2
    assert seen["none", "404"] == 1, "a path that nobody serves must not become a label"
    (shown,) = [key for key in seen if "{namespace}" in key[0]]
    assert shown[1] == "401"
    assert families["rankloom_requests_in_progress"].samples[0].value == 1
    counts = [one for one in families["rankloom_request_seconds"].samples if "_count" in one.name]
    assert sum(one.value for one in counts) == sum(seen.values())


# --- logs --------------------------------------------------------------------------------------


def test_a_line_of_json_tells_what_happened(
    app: FastAPI, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    headers = bearer(app, "ci")
    with caplog.at_level(logging.INFO, logger="rankloom_server"):
        answered = client.get(f"{API}/adapters?query=secret", headers=headers)
    (record,) = [one for one in caplog.records if one.name == "rankloom_server"]
    line = json.loads(JsonFormatter().format(record))
    assert line["request_id"] == answered.headers["x-request-id"]
    assert (line["method"], line["status"], line["actor"]) == ("GET", 200, "ci")
    assert (line["path"], line["level"]) == (f"{API}/adapters", "info")
    assert "secret" not in json.dumps(line)


def test_an_exception_is_one_line_of_json() -> None:
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        given = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed %s", ("it",), given)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "failed it"
    assert "ZeroDivisionError" in json.loads(line)["exception"]


# --- rates -------------------------------------------------------------------------------------


def test_too_many_requests_are_refused_and_told_when_to_come_back(
    app: FastAPI, client: TestClient
) -> None:
    headers, others = bearer(app, "one"), bearer(app, "other")
    left = []
    for _ in range(5):
        answered = client.get(f"{API}/adapters", headers=headers)
        assert answered.status_code == 200
        assert answered.headers["ratelimit-policy"] == '"default";q=5;w=60'
        left.append(answered.headers["ratelimit"].split(";")[1])
    assert left == ["r=4", "r=3", "r=2", "r=1", "r=0"]
    refused = client.get(f"{API}/adapters", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate-limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit"].startswith('"default";r=0;t=')
    assert client.get(f"{API}/adapters", headers=others).status_code == 200
    assert client.get("/healthz").status_code == 200


def test_guessing_tokens_is_limited_too(client: TestClient) -> None:
    seen = []
    for number in range(7):
        headers = {"Authorization": f"Bearer rl_{number}"}
        seen.append(client.get(f"{API}/adapters", headers=headers).status_code)
    assert seen == [401] * 5 + [429] * 2


# --- quotas ------------------------------------------------------------------------------------


def test_a_namespace_holds_what_it_may(engine: sa.Engine, tmp_path: Path) -> None:
    service = Service(engine, LocalStore(tmp_path / "blobs"), tmp_path / "scratch")
    folders = [write_adapter(tmp_path / f"a{seed}", seed=seed) for seed in range(3)]
    sizes = {entry.path: entry.size for entry in manifest_of(folders[0]).files}
    # The config is the same in all three, and is held once.
    room = sum(sizes.values()) + sizes["adapter_model.safetensors"]
    service.set_namespace_rules("default", NamespaceRules(quota_bytes=room))
    push(service, folders[0])
    push(service, folders[1], "other")
    with pytest.raises(ForbiddenError, match=f"holds {room} of {room}"):
        service.open_upload(
            AdapterName("default", "x"), UploadRequest(manifest=manifest_of(folders[2]))
        )
    assert push(service, folders[0], "again").number == 1, "what is there takes no room"
    assert push(service, folders[2], "acme/x").number == 1, "every namespace has its own"


# --- description -------------------------------------------------------------------------------


def test_the_description_in_the_docs_is_the_servers(app: FastAPI) -> None:
    written = json.loads((Path(__file__).parents[2] / "docs/openapi.json").read_text())
    assert written == app.openapi(), "run scripts/openapi.py"
