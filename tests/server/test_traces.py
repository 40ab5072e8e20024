"""Traces reach a real OTLP receiver, join the caller's, and carry no secret."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from rankloom_server import auth
from rankloom_server.access import Grant
from rankloom_server.app import API, create_app
from rankloom_server.settings import Settings

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Receiver(ThreadingHTTPServer):
    """Takes spans as OTLP over HTTP brings them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiving)
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def take(self, body: bytes) -> None:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {one.key: one.value.string_value for one in group.resource.attributes}
            self.services.add(named["service.name"])
            for scope in group.scope_spans:
                self.spans += scope.spans


class Receiving(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        self.server.take(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def attributes(span: Span) -> dict[str, str]:
    return {one.key: one.value.string_value for one in span.attributes}


def ask(tmp_path: Path, *paths: str, **headers: str) -> list[int]:
    app = create_app(Settings(data_dir=tmp_path / "data", collect_hours=0))
    token = auth.create(app.state.service.engine, "ci", [Grant.parse("read")])
    headers |= {"Authorization": f"Bearer {token}"}
    with TestClient(app) as client:  # its end sends what is left
        return [client.get(path, headers=headers).status_code for path in paths]


def test_a_request_and_its_statements_are_one_trace(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    with caplog.at_level(logging.INFO, logger="rankloom_server"):
        assert ask(tmp_path, f"{API}/adapters?query=s3cret", **given) == [200]
    spans = [one for one in receiver.spans if one.trace_id.hex() == TRACE]
    (root,) = [one for one in spans if one.kind == Span.SPAN_KIND_SERVER]
    statements = [one for one in spans if one.kind == Span.SPAN_KIND_CLIENT]
    assert root.parent_span_id.hex() == PARENT
    assert root.name == f"GET {API}/adapters"
    assert statements
    assert {one.parent_span_id for one in statements} == {root.span_id}
    read = [attributes(one) for one in statements if one.name == "SELECT"]
    assert all(one["db.system.name"] == "sqlite" for one in read)
    assert any("FROM adapter" in one["db.query.text"] for one in read)
    assert all(one.end_time_unix_nano >= one.start_time_unix_nano > 0 for one in spans)
    assert receiver.services == {"rankloom"}
    assert {getattr(one, "trace_id", None) for one in caplog.records} == {TRACE}


def test_no_span_holds_a_query_a_token_or_a_value(receiver: Receiver, tmp_path: Path) -> None:
    signed = "/blobs/default/sha256:" + "0" * 64 + "?signature=s3cret"
    ask(tmp_path, signed, f"{API}/adapters?query=s3cret")
    shown = "".join(map(str, receiver.spans))
    assert "blobs" in shown
    assert "signature" not in shown
    assert "query=" not in shown
    assert "Bearer" not in shown
    queries = [attributes(one).get("db.query.text", "") for one in receiver.spans]
    assert not any("s3cret" in one for one in queries)


def test_the_questions_of_machines_make_no_trace(receiver: Receiver, tmp_path: Path) -> None:
    ask(tmp_path, "/readyz", "/healthz", "/metrics")
    assert not [one for one in receiver.spans if one.kind == Span.SPAN_KIND_SERVER]


def test_a_failed_statement_is_marked(receiver: Receiver, tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path / "data", collect_hours=0))
    with TestClient(app), app.state.service.engine.connect() as connection:
        with pytest.raises(Exception, match="no such table"):
            connection.exec_driver_sql("SELECT 1 FROM nowhere")
        connection.exec_driver_sql("SELECT 2")
    found = {attributes(one)["db.query.text"]: one.status.code for one in receiver.spans}
    assert found["SELECT 1 FROM nowhere"] == 2  # STATUS_CODE_ERROR
    assert found["SELECT 2"] == 0


WITHOUT = """
import sys, pathlib
sys.modules["opentelemetry.sdk"] = None  # FastAPI brings the API itself
from fastapi.testclient import TestClient
from rankloom_server.app import create_app
from rankloom_server.settings import Settings

with TestClient(create_app(Settings(data_dir=pathlib.Path(sys.argv[1])))) as client:
    print(client.get("/healthz").status_code)
"""


@pytest.mark.parametrize("receiver", ["", "http://127.0.0.1:9"])
def test_a_server_without_its_sdk_serves_and_says_if_that_is_missed(
    tmp_path: Path, receiver: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT, tmp_path],
        env=os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "200\n"
    assert ("pip install 'rankloom[telemetry]'" in ran.stderr) == bool(receiver)
