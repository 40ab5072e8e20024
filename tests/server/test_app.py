"""What HTTP adds to the protocol: tokens, problems, limits, signed blobs."""

import logging
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import urllib3
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from adapter_folder import manifest_of, push, write_adapter
from rankloom import errors
from rankloom.finding import Finding
from rankloom.ref import AdapterName
from rankloom.registry.http import HttpRegistry
from rankloom.registry.wire import Problem, UploadRequest
from rankloom_server import auth, db
from rankloom_server.access import Grant
from rankloom_server.app import API, create_app
from rankloom_server.middleware import MAX_BODY
from rankloom_server.settings import Settings
from servers import served

NAME = AdapterName("default", "zh-lang")


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    made = create_app(Settings(data_dir=tmp_path / "data"))
    yield made
    made.state.service.close()


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client without a token."""
    with TestClient(app) as made:
        yield made


@pytest.fixture
def token(app: FastAPI) -> str:
    made = auth.create_first(app.state.service.engine)
    assert made is not None
    return made


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


def problem_of(response: httpx.Response) -> Problem:
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(response.content)
    assert problem.status == response.status_code
    assert problem.request_id == response.headers["x-request-id"]
    return problem


# --- tokens ------------------------------------------------------------------------------------


def _routes(app: FastAPI) -> list[tuple[str, str]]:
    paths = app.openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def _needs_token(path: str) -> bool:
    return path.startswith(API) and not path.startswith(f"{API}/oidc/")  # there CI gets its token


def test_every_route_of_the_api_needs_a_token(client: TestClient, app: FastAPI) -> None:
    routes = [route for route in _routes(app) if _needs_token(route[1])]
    assert len(routes) >= 12
    for method, path in routes:
        response = client.request(method, path)
        assert response.status_code == 401, (method, path)
        assert response.headers["www-authenticate"] == "Bearer"
        assert problem_of(response).code == "unauthenticated"


def test_no_route_stands_outside_of_what_is_known(app: FastAPI) -> None:
    outside = {path for _, path in _routes(app) if not path.startswith(API)}
    blob = "/blobs/{namespace}/{algorithm}/{folder}/{value}"
    part = f"{blob.replace('blobs', 'parts')}/{{part}}"
    assert outside == {blob, part, "/healthz", "/readyz", "/metrics"}


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [("read", {"GET"}), ("push", {"POST", "PUT", "PATCH", "DELETE"}), ("admin", {"ADMIN"})],
)
def test_a_token_may_do_what_its_scope_says(
    client: TestClient, app: FastAPI, scope: str, allowed: set[str]
) -> None:
    token = auth.create(app.state.service.engine, "t", [Grant.parse(scope)])
    for method, path in _routes(app):
        if not _needs_token(path):
            continue
        administers = re.search(r"/(yank|rules|audit|tokens|publishers)\b", path)
        needs = "ADMIN" if administers else method
        forbidden = client.request(method, path, headers=bearer(token)).status_code == 403
        assert forbidden == (needs not in allowed), (method, path)


def test_bad_tokens_are_refused(client: TestClient, app: FastAPI) -> None:
    engine = app.state.service.engine
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    expired = auth.create(engine, "expired", [Grant.parse("read")], expires_at=soon)
    revoked = auth.create(engine, "revoked", [Grant.parse("read")])
    good = auth.create(engine, "good", [Grant.parse("read")])
    where = f"{API}/adapters"
    assert client.get(where, headers=bearer(revoked)).status_code == 200
    assert client.get(where, headers=bearer(expired)).status_code == 200
    time.sleep(max(0, (soon - datetime.now(UTC)).total_seconds()))
    assert auth.revoke(engine, "revoked")
    assert not auth.revoke(engine, "revoked")
    for token in (expired, revoked, good[:-1], good + "x", "rl_", "", "é"):
        headers = {"Authorization": f"Bearer {token}".encode()}
        assert client.get(where, headers=headers).status_code == 401, token
    assert client.get(where, headers={"Authorization": f"Basic {good}"}).status_code == 401
    assert client.get(where, headers=bearer(good)).status_code == 200


def test_the_database_does_not_know_the_token(app: FastAPI, token: str, tmp_path: Path) -> None:
    app.state.service.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("registry.db*"))
    assert b"admin" in kept
    assert token.removeprefix("rl_").encode() not in kept
    assert len(token) >= len("rl_") + 43  # 256 bits in base64


def test_the_first_token_is_made_once(app: FastAPI, token: str) -> None:
    assert token.startswith("rl_")
    assert auth.create_first(app.state.service.engine) is None


def test_a_tokens_name_is_taken_once(app: FastAPI) -> None:
    auth.create(app.state.service.engine, "ci", [Grant.parse("read")])
    with pytest.raises(errors.ConflictError, match="ci"):
        auth.create(app.state.service.engine, "ci", [Grant.parse("read")])


# --- problems ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(errors.tree()), ids=lambda kind: kind.code)
def test_every_error_crosses_the_wire(
    app: FastAPI, kind: type[errors.RankloomError], token: str, tmp_path: Path
) -> None:
    finding = Finding("TEN002", "B is missing", where="x.lora_B", fix="save again")

    def fail() -> None:
        raise kind("what, which", hint="next step", findings=[finding])

    app.router.routes.insert(0, APIRoute(f"{API}/bases", fail, methods=["GET"]))
    with TestClient(app, headers=bearer(token)) as client:
        response = client.get(f"{API}/bases")
    problem = problem_of(response)
    assert (problem.status, problem.code) == (kind.http_status, kind.code)
    registry = HttpRegistry("http://r", transport=_Replay(response))
    with pytest.raises(kind) as caught:
        registry.list_bases()
    registry.close()
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint) == ("what, which", "next step")
    assert caught.value.findings == (finding,)
    assert caught.value.request_id == response.headers["x-request-id"]


class _Replay(httpx.BaseTransport):
    """Gives the client an answer that the server really gave."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        found = self._response
        return httpx.Response(found.status_code, headers=found.headers, content=found.content)


def test_a_fault_of_our_own_tells_nothing_but_its_id(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        secret = "the password is swordfish"
        raise ZeroDivisionError(secret)

    app.router.routes.insert(0, APIRoute("/broken", fail))
    with TestClient(app) as client, caplog.at_level(logging.ERROR):
        response = client.get("/broken")
    problem = problem_of(response)
    assert (problem.status, problem.code) == (500, "internal")
    assert "swordfish" not in response.text
    assert "ZeroDivision" not in response.text
    assert problem.request_id
    assert problem.request_id in caplog.text
    assert "swordfish" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("PATCH", f"{API}/bases", 405, "invalid-request"),
        ("GET", f"{API}/adapters/default/UPPER", 422, "invalid-request"),
        ("GET", f"{API}/adapters/..%2F..%2Fetc/x", 404, "not-found"),
        ("GET", f"{API}/adapters/%2e%2e/x", 422, "invalid-request"),
        ("GET", f"{API}/adapters?limit=many", 422, "invalid-request"),
        ("GET", f"{API}/adapters?limit=0", 422, "invalid-request"),
        ("GET", f"{API}/adapters/default/x/resolve?alias=a&number=1", 422, "invalid-request"),
        ("GET", f"{API}/adapters/default/x/resolve?number=0", 422, "invalid-request"),
        ("GET", f"{API}/adapters/default/x/resolve?digest=md5:1", 422, "invalid-request"),
        ("GET", f"{API}/adapters/default/x/resolve?alias=", 404, "not-found"),
        ("POST", f"{API}/uploads/%00/publish", 404, "not-found"),
    ],
)
def test_bad_requests_are_problems(
    client: TestClient, token: str, method: str, path: str, status: int, code: str
) -> None:
    response = client.request(method, path, headers=bearer(token))
    assert (response.status_code, problem_of(response).code) == (status, code)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"manifest": {"schema": 2, "files": []}}',
        b'{"manifest": {"schema": 1, "files": [{"path": "../x", "size": 1, "digest": "d"}]}}',
        b'{"manifest": null, "surprise": 1}',
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
def test_bad_bodies_are_problems(client: TestClient, token: str, body: bytes) -> None:
    response = client.post(f"{API}/adapters/default/x/uploads", content=body, headers=bearer(token))
    assert response.status_code in {400, 422}
    assert problem_of(response).code == "invalid-request"
    assert len(response.content) < 2000, "an answer does not repeat the request"


def test_a_lock_that_is_no_json_is_a_problem(
    client: TestClient, token: str, tmp_path: Path
) -> None:
    manifest = manifest_of(write_adapter(tmp_path / "a")).model_copy(
        update={"lock": {"weight": "NUMBER"}}
    )
    body = UploadRequest(manifest=manifest).model_dump_json(by_alias=True)
    for number in ("NaN", "Infinity", '"\\ud800"'):
        response = client.post(
            f"{API}/adapters/default/x/uploads",
            content=body.replace('"NUMBER"', number),
            headers=bearer(token),
        )
        assert response.status_code == 422, number
        assert problem_of(response).code == "invalid-request"


def test_request_ids_are_ours_unless_given_in_good_form(client: TestClient) -> None:
    assert client.get("/healthz").headers["x-request-id"]
    given = client.get("/healthz", headers={"X-Request-Id": "trace-1"})
    assert given.headers["x-request-id"] == "trace-1"
    for bad in ("a b", "x" * 65, "a\tb"):
        answered = client.get("/healthz", headers={"X-Request-Id": bad})
        assert answered.headers["x-request-id"] != bad


def test_a_large_body_is_refused_before_it_is_read(client: TestClient, token: str) -> None:
    response = client.post(f"{API}/bases", content=b"x" * (MAX_BODY + 1), headers=bearer(token))
    assert response.status_code == 413
    problem_of(response)


def test_signatures_do_not_reach_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    with caplog.at_level(logging.DEBUG), served(settings) as (address, token):
        registry = HttpRegistry(address, token)
        version = push(registry, write_adapter(tmp_path / "a"))
        url = registry.blob_url(NAME, version.digest, "adapter_config.json")
        assert urllib3.request("GET", url).status == 200
        registry.close()
    assert "/blobs/default/sha256/" in caplog.text
    ours = [record for record in caplog.records if record.name.startswith(("rankloom", "uvicorn"))]
    assert not any("signature" in record.getMessage() for record in ours)


# --- blobs and health --------------------------------------------------------------------------


def test_blob_urls_follow_the_address_that_the_client_used(
    app: FastAPI, client: TestClient, token: str, tmp_path: Path
) -> None:
    body = UploadRequest(manifest=manifest_of(write_adapter(tmp_path / "a")))
    response = client.post(
        f"{API}/adapters/default/x/uploads",
        content=body.model_dump_json(by_alias=True),
        headers={**bearer(token), "Host": "registry.example:8470"},
    )
    assert response.status_code == 201
    urls = [target["url"] for target in response.json()["missing"]]
    assert urls
    assert all(url.startswith("http://registry.example:8470/blobs/default/sha256/") for url in urls)


def test_a_public_url_wins(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", public_url="https://r.example/")
    app = create_app(settings)
    url = app.state.service.store.presign_get("sha256:" + "0" * 64)
    app.state.service.close()
    assert url.startswith("https://r.example/blobs/default/sha256/00/")


def test_a_blob_that_is_lost_is_not_found(app: FastAPI, client: TestClient) -> None:
    url = app.state.service.store.presign_get("sha256:" + "0" * 64)
    assert problem_of(client.get(url)).code == "not-found"


def test_two_servers_of_one_folder_sign_alike(tmp_path: Path) -> None:
    one, two = (create_app(Settings(data_dir=tmp_path / "data")) for _ in range(2))
    key = tmp_path / "data" / "signing.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert one.state.service.store.signer == two.state.service.store.signer
    one.state.service.close()
    two.state.service.close()


def test_health_tells_whether_database_and_store_answer(
    app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").status_code == 204
    engine = db.open_engine(db.sqlite_url(Path("/nowhere/registry.db")))
    service = app.state.service
    app.state.service = type(service)(engine, service.store, service.scratch)
    assert problem_of(client.get("/readyz")).code == "registry-unavailable"
    assert client.get("/healthz").status_code == 200
