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
from typing import Any, NamedTuple

MIB = 1 << 20
CASES = {"1 x 1 GiB": (1, 1024 * MIB), "200 x 8 MiB": (200, 8 * MIB)}
RUNS = 3
WORKERS = 4
MEMORY = "/dev/shm"  # noqa: S108 - the RAM disk, in which each run makes a folder of its own
"""A RAM disk: what is measured is the client, not this machine's disk."""

Plan = dict[str, Any]
Client = Callable[[Plan], Callable[[], None]]
"""Takes a plan, imports what it needs and returns what is timed."""


class Run(NamedTuple):
    """Seconds, MiB beyond a bare interpreter, and seconds of processors: ours and the servers'."""

    seconds: float
    rss: float
    computed: float
    served: float


def compare(
    plan: Plan, clients: tuple[str, ...], nbytes: int, runs: int = RUNS
) -> dict[str, dict[str, float]]:
    """Return MiB/s, MiB of memory and the processor's time of each client; runs took turns."""
    seen: dict[str, list[Run]] = {client: [] for client in clients}
    for _ in range(runs):
        for client in clients:
            seen[client].append(_run(plan, client))
    return {client: _summary(runs, nbytes) for client, runs in seen.items()}


def _summary(runs: list[Run], nbytes: int) -> dict[str, float]:
    rates = sorted(nbytes / MIB / run.seconds for run in runs)
    computed = statistics.median(run.computed for run in runs)
    served = statistics.median(run.served for run in runs)
    return {
        "mib_per_s": round(statistics.median(rates), 1),
        "slowest": round(rates[0], 1),
        "fastest": round(rates[-1], 1),
        "rss_mib_over_interpreter": round(max(run.rss for run in runs), 1),
        "client_cpu_ms_per_mib": round(1000 * computed * MIB / nbytes, 2),
        "servers_cpu_ms_per_mib": round(1000 * served * MIB / nbytes, 2),
    }


def _run(plan: Plan, client: str) -> Run:
    """Run a client in a process of its own."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as target:
        given = json.dumps({**plan, "client": client, "target": target})
        command = [sys.executable, sys.argv[0], "--child"]
        done = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True)
    return Run(**json.loads(done.stdout))


def child(clients: Mapping[str, Client], check: Callable[[Plan], None]) -> None:
    """Do what the plan on standard input says; ``check`` it; print seconds and memory."""
    plan = json.load(sys.stdin)
    bare = _peak_mib()
    work = clients[plan["client"]](plan)
    others, computed, began = _cpu_of_servers(), time.process_time(), time.perf_counter()
    work()
    run = Run(
        seconds=time.perf_counter() - began,
        computed=time.process_time() - computed,
        served=_cpu_of_servers() - others,
        rss=_peak_mib() - bare,
    )
    check(plan)
    print(json.dumps(run._asdict()))


def _cpu_of_servers() -> float:
    """Return the processors' seconds of all that the parent of this process has started."""
    ticks, mine = 0, [os.getppid()]
    while mine:
        found = [int(pid) for pid in _read(f"/proc/{mine.pop()}/task/*/children").split()]
        mine += found
        for pid in found:
            if pid != os.getpid():
                fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:13]))  # user and system
    return ticks / os.sysconf("SC_CLK_TCK")


def _read(pattern: str) -> str:
    """Return the text of all files of a pattern."""
    paths = Path("/").glob(pattern.removeprefix("/"))
    return "".join(path.read_text() for path in paths)


def _peak_mib() -> float:
    """Return this process's largest resident set in MiB (getrusage's is its parent's at first)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


@contextmanager
def seaweedfs() -> Iterator[Plan]:
    """Start an S3 server; give what boto3's client is made with as ``s3``, and ``bucket``.

    Its files are on the RAM disk too, in volumes that are rarely full.
    """
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from servers import ACCESS_KEY, BUCKET, SECRET_KEY, running_seaweedfs

    with running_seaweedfs(Path(MEMORY), volume_mib=1024) as server:
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
