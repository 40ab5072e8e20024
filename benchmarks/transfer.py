"""What the measurements of downloads and of uploads share: blobs, a store, runs that take turns.

Every client runs in a process of its own, so that its memory is its own. A script calls
:func:`compare` with a plan, and in the process that this starts, :func:`child`.
"""

import hashlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MIB = 1 << 20
CASES = {"1 x 1 GiB": (1, 1024 * MIB), "200 x 8 MiB": (200, 8 * MIB)}
RUNS = 3
WORKERS = 4
MEMORY = "/dev/shm"  # noqa: S108 - the RAM disk, in which each run makes a folder of its own
"""A RAM disk: what is measured is the client, not this machine's disk."""

Plan = dict[str, Any]
Client = Callable[[Plan], Callable[[], None]]
"""Takes a plan, imports what it needs and returns what is timed."""


def compare(
    plan: Plan, clients: tuple[str, ...], nbytes: int, runs: int = RUNS
) -> dict[str, dict[str, float]]:
    """Return MiB/s and MiB of memory of each client, of runs that took turns."""
    seen: dict[str, list[tuple[float, float]]] = {client: [] for client in clients}
    for _ in range(runs):
        for client in clients:
            seen[client].append(_run(plan, client))
    return {client: _summary(runs, nbytes) for client, runs in seen.items()}


def _summary(runs: list[tuple[float, float]], nbytes: int) -> dict[str, float]:
    rates = sorted(nbytes / MIB / seconds for seconds, _ in runs)
    return {
        "mib_per_s": round(statistics.median(rates), 1),
        "slowest": round(rates[0], 1),
        "fastest": round(rates[-1], 1),
        "rss_mib_over_interpreter": round(max(rss for _, rss in runs), 1),
    }


def _run(plan: Plan, client: str) -> tuple[float, float]:
    """Run a client in a process of its own; return seconds and MiB beyond a bare interpreter."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as target:
        given = json.dumps({**plan, "client": client, "target": target})
        command = [sys.executable, sys.argv[0], "--child"]
        done = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True)
    said = json.loads(done.stdout)
    return said["seconds"], said["rss"]


def child(clients: Mapping[str, Client], check: Callable[[Plan], None]) -> None:
    """Do what the plan on standard input says; ``check`` it; print seconds and memory."""
    plan = json.load(sys.stdin)
    bare = _peak_mib()
    work = clients[plan["client"]](plan)
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    rss = _peak_mib() - bare
    check(plan)
    print(json.dumps({"seconds": seconds, "rss": rss}))


def _peak_mib() -> float:
    """Return this process's largest resident set in MiB (getrusage's is its parent's at first)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


@contextmanager
def seaweedfs() -> Iterator[Plan]:
    """Start an S3 server; give what boto3's client is made with as ``s3``, and ``bucket``."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from servers import ACCESS_KEY, BUCKET, SECRET_KEY, running_seaweedfs

    with running_seaweedfs() as server:
        s3 = {
            "endpoint_url": server.endpoint,
            "aws_access_key_id": ACCESS_KEY,
            "aws_secret_access_key": SECRET_KEY,
            "region_name": "us-east-1",
        }
        yield {"s3": s3, "bucket": BUCKET}


def blob(folder: Path, size: int) -> str:
    """Write random bytes under their digest's hex; return it."""
    sha = hashlib.sha256()
    with (folder / "new").open("wb") as stream:
        for _ in range(size // MIB):
            data = os.urandom(MIB)
            sha.update(data)
            stream.write(data)
    (folder / "new").rename(folder / sha.hexdigest())
    return sha.hexdigest()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
