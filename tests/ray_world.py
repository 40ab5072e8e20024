"""A Ray cluster of three machines on this one; one of them is lost in the middle of a file.

A program of its own, since Ray takes over signals, threads and warnings of the process it is in:

    python tests/ray_world.py FOLDER BASE OUTPUT

FOLDER holds ``base`` and ``adapter``. What is left of the cluster applies once more, asked
from outside it, from BASE to OUTPUT in S3. Prints both digests as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from gate import Gate, lives
from servers import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable


def main(folder: Path, base: str, out: str) -> None:
    """Apply on three machines, of which the second is killed while all of them write."""
    gate = Gate(folder / "gate")
    # Set before Ray is imported. Without the second it takes another address than the loopback.
    local = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    os.environ.update(local, RAY_TMPDIR=str(folder / "ray"), **gate.environment)
    from ray.cluster_utils import Cluster

    [port] = free_ports(1)
    machine = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}
    first = {**machine, "include_dashboard": False, "ray_client_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=first)
    try:
        second, _ = [cluster.add_node(**machine) for _ in range(2)]
        os.environ["RAY_ADDRESS"] = cluster.address
        with ThreadPoolExecutor(1) as pool:
            kill = pool.submit(
                lose, gate, lambda: cluster.remove_node(second, allow_graceful=False)
            )
            found = [apply(folder, str(folder / "base"), str(folder / "ray-out"), "ray")]
            kill.result()
        found.append(apply(folder, base, out, f"ray://127.0.0.1:{port}"))
    finally:
        cluster.shutdown()
    left = [pid for pid in gate.seen() if lives(pid)]
    sys.stdout.write(json.dumps({"digests": found, "writers": len(gate.seen()), "left": left}))


def lose(gate: Gate, kill: Callable[[], None]) -> None:
    """Kill one of three that write, then let the others go on."""
    try:
        writing = gate.waiting(3)
        kill()
        end = time.monotonic() + 30  # a process notices after a while that its machine is gone
        while sum(map(lives, writing)) == 3:
            assert time.monotonic() < end, writing
            time.sleep(0.05)
    finally:
        gate.open()


def apply(folder: Path, base: str, out: str, on: str) -> str | None:
    """Apply the adapter on the cluster; return the digest."""
    from lowrank_cases import part
    from rankloom.composition import compose

    composition = compose([part(folder / "adapter")], [0.8])
    return composition.apply_to(base, out, on=on, digest=True).digest


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), *sys.argv[2:])
