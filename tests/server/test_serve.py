"""The server as a process: what it prints, how it starts and ends, who may share its folder."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3

from adapter_folder import push, write_adapter
from rankloom.ref import AdapterName, VersionRef
from rankloom.registry.http import HttpRegistry
from rankloom_server import db
from rankloom_server.__main__ import main
from rankloom_server.service import open_embedded
from servers import running_server

NAME = AdapterName("default", "zh-lang")
_PROGRAM = [sys.executable, "-W", "error", "-m", "rankloom_server"]


def _environment(data_dir: Path, **settings: str) -> dict[str, str]:
    names = {f"RANKLOOM_SERVER_{name.upper()}": value for name, value in settings.items()}
    return {**os.environ, "RANKLOOM_SERVER_DATA_DIR": str(data_dir), **names}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A server on a port of its own choice."""
    running = subprocess.Popen(
        _PROGRAM,
        env=_environment(tmp_path / "data", port="0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield running
    running.kill()
    running.communicate()


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    found = re.fullmatch(
        r"rankloom registry on (http://127\.0\.0\.1:[1-9]\d*)\n", server.stdout.readline()
    )
    assert found
    return found[1]


def test_it_prints_where_it_is_and_then_answers(server: subprocess.Popen[str]) -> None:
    url = _address(server)
    # At once: what is printed is true already.
    assert urllib3.request("GET", f"{url}/healthz", retries=False).status == 200
    assert server.stdout is not None
    token = re.fullmatch(r"admin token \(shown once\): (rl_[\w-]{43})\n", server.stdout.readline())
    assert token
    registry = HttpRegistry(url, token[1])
    assert registry.list_adapters().items == ()
    registry.close()


def test_answers_do_not_wait_for_acknowledgements(server: subprocess.Popen[str]) -> None:
    pool = urllib3.PoolManager()
    url = f"{_address(server)}/healthz"
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        pool.request("GET", url, retries=False)
        seconds.append(time.perf_counter() - started)
    # A delayed acknowledgement takes 40 ms, the answer 1 ms; after the first few each one would
    # wait, so a busy machine cannot hide the difference.
    assert min(seconds[10:]) < 0.03


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(server: subprocess.Popen[str], number: signal.Signals) -> None:
    _address(server)
    server.send_signal(number)
    assert server.wait(15) == 0


def test_a_request_that_has_begun_is_finished(server: subprocess.Popen[str]) -> None:
    url = _address(server)
    assert server.stdout is not None
    token = server.stdout.readline().split()[-1]
    body = b'{"name": "b", "fingerprint": {"struct": "sha256:' + b"0" * 64 + b'"}}'

    def slowly() -> Iterator[bytes]:
        yield body[:10]
        time.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        yield body[10:]

    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    response = urllib3.request(
        "POST", f"{url}/api/v1/bases", body=slowly(), headers=headers, retries=False
    )
    assert response.status == 200
    assert server.wait(15) == 0


def test_the_token_is_shown_once(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as (_, first):
        assert first
    with running_server(tmp_path / "data") as (url, again):
        assert again == ""
        registry = HttpRegistry(url, first)
        assert registry.list_bases() == ()
        registry.close()


def test_a_port_that_is_taken_is_an_error_with_a_next_step(
    server: subprocess.Popen[str], tmp_path: Path
) -> None:
    port = _address(server).rpartition(":")[2]
    done = subprocess.run(
        _PROGRAM,
        env=_environment(tmp_path / "other", port=port),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert port in done.stderr
    assert "another port" in done.stderr
    assert "Traceback" not in done.stderr
    assert "rl_" not in done.stdout, "a token that nobody can use must not be spent"


def test_the_embedded_registry_shares_the_folder_with_a_server(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as (url, token):
        served, embedded = HttpRegistry(url, token), open_embedded(tmp_path / "data")
        folders = [write_adapter(tmp_path / f"a{seed}", seed=seed) for seed in range(4)]
        for index, folder in enumerate(folders):
            push(embedded if index % 2 else served, folder)
        shown = served.show(NAME)
        assert shown == embedded.show(NAME)
        assert [version.number for version in shown.versions] == [4, 3, 2, 1]
        for registry, scheme in ((served, "http:"), (embedded, "file:")):
            found = registry.resolve(VersionRef(NAME, alias="latest")).version
            where = registry.blob_url(NAME, found.digest, "adapter_config.json")
            assert where.startswith(scheme)
            registry.close()


def test_after_a_kill_nothing_is_lost(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as (url, token):
        registry = HttpRegistry(url, token)
        version = push(registry, write_adapter(tmp_path / "a"))
        registry.close()
    old, young = (tmp_path / "data" / "scratch" / name for name in ("old", "young"))
    for left in (old, young):
        left.mkdir()
    os.utime(old, (0, 0))
    with running_server(tmp_path / "data") as (url, _):
        registry = HttpRegistry(url, token)
        assert registry.resolve(VersionRef(NAME, alias="latest")).version == version
        registry.close()
    assert not old.exists(), "what a killed verification left would fill the disk"
    assert young.exists(), "this may belong to another server that runs"


# --- the other commands ------------------------------------------------------------------------


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; give its exit code and what it printed."""

    def call(data_dir: Path, *arguments: str, **settings: str) -> tuple[int, str, str]:
        with monkeypatch.context() as environment:
            for name, value in {"data_dir": str(data_dir), **settings}.items():
                environment.setenv(f"RANKLOOM_SERVER_{name.upper()}", value)
            code = main(list(arguments))
        return code, *capsys.readouterr()

    return call


def test_migrate_makes_the_schema_and_may_be_repeated(
    run: Run, database_url: str, tmp_path: Path
) -> None:
    for _ in range(2):
        assert run(tmp_path, "migrate", database_url=database_url) == (0, "", "")
    engine = db.open_engine(database_url)
    with db.read(engine) as connection:
        assert db.revision(connection) == db.HEAD
    engine.dispose()


def test_tokens_are_made_and_revoked(run: Run, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    token = run(data_dir, "token", "ci", "read", "push")[1].strip()
    with running_server(data_dir) as (url, first):
        assert first == "", "there was a token already"
        registry = HttpRegistry(url, token)
        push(registry, write_adapter(tmp_path / "a"))
        registry.close()
    assert run(data_dir, "token", "ci", "read")[0] == 5
    assert run(data_dir, "revoke", "ci")[0] == 0
    assert run(data_dir, "revoke", "ci")[0] == 4
    assert run(data_dir, "token", "x", "everything")[0] == 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"store": "ftp://x"}, "STORE"),
        ({"url_seconds": "1"}, "URL_SECONDS"),
        ({"signing_key": "short"}, "SIGNING_KEY"),
    ],
)
def test_wrong_settings_are_named(
    run: Run, tmp_path: Path, settings: dict[str, str], named: str
) -> None:
    code, _, said = run(tmp_path, "migrate", **settings)
    assert code == 2
    assert f"RANKLOOM_SERVER_{named}: " in said


def test_a_database_that_does_not_answer_is_named(run: Run, tmp_path: Path) -> None:
    code, _, said = run(tmp_path, "migrate", database_url="postgresql://nobody@127.0.0.1:1/x")
    assert code == 3
    assert "database does not answer" in said
