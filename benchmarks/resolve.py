"""Resolving over HTTP: ours, one row without our code, and MLflow, in one run.

Each server has one worker and answers 16 connections of wrk in turn. Ours checks a token, counts,
and writes its log; the hand-written peer does nothing but the lookup, in the same database. Before
anything is timed, each answer is checked.

::

    python benchmarks/resolve.py --database sqlite --mlflow /path/to/mlflow
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

import report
from rankloom.registry.http import HttpRegistry
from rankloom.registry.wire import AliasRequest, ResolvedVersion

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from adapter_folder import push, write_adapter
from servers import answers, free_ports, process, running_postgres, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 16
NAME = "zh-lang"
PATH = f"/api/v1/adapters/default/{NAME}/resolve?alias=prod"
_RATE = re.compile(r"Requests/sec:\s+([0-9.]+)")
_BAD = re.compile(r"Non-2xx|Socket errors")


class Target:
    """A server that is asked."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.token = token

    def get(self) -> Any:  # noqa: ANN401 - JSON
        """Return one answer."""
        response = httpx.get(self.url, headers=dict(self._headers()))
        response.raise_for_status()
        return response.json()

    def _headers(self) -> Iterator[tuple[str, str]]:
        if self.token:
            yield "authorization", f"Bearer {self.token}"

    def rate(self, seconds: int) -> float:
        """Return requests per second."""
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
        for name, value in self._headers():
            command += ["-H", f"{name}: {value}"]
        said = subprocess.run([*command, self.url], capture_output=True, text=True, check=True)
        if _BAD.search(said.stdout):
            sys.exit(f"answers were refused, so nothing is said:\n{said.stdout}")
        (rate,) = _RATE.findall(said.stdout)
        return float(rate)


@contextlib.contextmanager
def ours(folder: Path, settings: dict[str, str]) -> Iterator[tuple[Target, str]]:
    """Run our server with one adapter; give also the digest that is right."""
    with running_server(folder, **settings) as (url, token):
        registry = HttpRegistry(url, token)
        version = push(registry, write_adapter(folder / "adapter"), NAME)
        registry.set_alias(version.adapter, "prod", AliasRequest(digest=version.digest))
        registry.close()
        target = Target(url + PATH, token)
        if ResolvedVersion.model_validate(target.get()).version != _with_alias(version):
            sys.exit("our answer is wrong, so nothing is timed")
        yield target, version.digest


def _with_alias(version: Any) -> Any:  # noqa: ANN401
    return version.model_copy(update={"aliases": ("prod",)})


@contextlib.contextmanager
def peer(folder: Path, database: str, digest: str) -> Iterator[Target]:
    """Run the hand-written application on the database that our server has."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(__file__).parent)]
    command += ["--port", str(port), "--no-access-log", "--log-level", "warning"]
    command += ["--lifespan", "off", "resolve_peer:app"]
    env = {"PEER_DATABASE": database}
    with process(command, folder / "peer.log", lambda: answers(url + PATH), env=env):
        target = Target(url + PATH)
        if target.get()["digest"] != digest:
            sys.exit("the peer's answer is wrong, so nothing is timed")
        yield target


@contextlib.contextmanager
def mlflow(program: str, folder: Path, database: str) -> Iterator[Target]:
    """Run MLflow with one registered model, whose version an alias names."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database, "--artifacts-destination", str(folder / "art")]
    env = {"MLFLOW_DISABLE_TELEMETRY": "true", "HOME": str(folder)}
    with process(command, folder / "mlflow.log", lambda: answers(f"{url}/health"), env=env):
        api = f"{url}/api/2.0/mlflow"
        for path, body in (
            ("registered-models/create", {"name": NAME}),
            ("model-versions/create", {"name": NAME, "source": "s3://bucket/x"}),
            ("registered-models/alias", {"name": NAME, "alias": "prod", "version": "1"}),
        ):
            httpx.post(f"{api}/{path}", json=body, timeout=60).raise_for_status()
        target = Target(f"{api}/registered-models/alias?name={NAME}&alias=prod")
        if target.get()["model_version"]["version"] != "1":
            sys.exit("MLflow's answer is wrong, so nothing is timed")
        yield target


def run(kind: str, program: str | None, seconds: int, rounds: int) -> dict[str, Any]:
    """Measure all of them in turn, on one kind of database."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours_at, mlflow_at = str(folder / "data" / "registry.db"), f"sqlite:///{folder}/mlflow.db"
        settings: dict[str, str] = {}
        if kind == "postgresql":
            server = stack.enter_context(running_postgres())
            ours_at = server.new_database()
            mlflow_at = server.url.replace("postgresql://", "postgresql+psycopg2://")
            settings = {"database_url": ours_at}
        target, digest = stack.enter_context(ours(folder / "data", settings))
        targets = {"ours": target, "one row": stack.enter_context(peer(folder, ours_at, digest))}
        if program:
            targets["mlflow"] = stack.enter_context(mlflow(program, folder, mlflow_at))
        for one in targets.values():
            one.rate(1)  # warm
        rates: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, one in targets.items():
                rates.setdefault(name, []).append(one.rate(seconds))
    return _summary(rates)


def _summary(rates: dict[str, list[float]]) -> dict[str, Any]:
    middle = {name: statistics.median(found) for name, found in rates.items()}
    ratios = {f"ours / {name}": round(middle["ours"] / rate, 3) for name, rate in middle.items()}
    del ratios["ours / ours"]
    per_second = {name: [round(rate, 1) for rate in sorted(found)] for name, found in rates.items()}
    return {"connections": CONNECTIONS, "requests per second": per_second, "ratios": ratios}


def main() -> None:
    """Measure the database that was asked for, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--mlflow", metavar="PROGRAM", help="its command, in another environment")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed")
    results = run(given.database, given.mlflow, given.seconds, given.rounds)
    if given.mlflow:
        said = subprocess.run(
            [given.mlflow, "--version"], capture_output=True, text=True, check=True
        )
        results["mlflow"] = said.stdout.strip()
    path = report.write(f"resolve_{given.database}", results, ["uvicorn", "fastapi", "psycopg"])
    print(path.read_text())


if __name__ == "__main__":
    main()
