"""Time of one apply carried out by threads and by processes, and what its digest costs.

All on this machine, in turns, after one that counts for nothing. No figure is printed before all of
them gave the same digest, which ``sha256sum`` finds too.

    python benchmarks/apply_executors.py --gigabytes 2 --rounds 5
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from apply_checkpoint import write_adapter, write_base
from rankloom.adapter.reader import read
from rankloom.composition import Part, compose
from rankloom.digest import of_json
from report import Timing, write

WAYS: dict[str, dict[str, Any]] = {
    "threads": {"on": "threads"},
    "threads, with the digest": {"on": "threads", "digest": True},
    "processes": {"on": "processes"},
    "processes, with the digest": {"on": "processes", "digest": True},
}
SHA256SUM = "LC_ALL=C sha256sum *.safetensors | sha256sum"


def apply(folder: Path, way: str, workers: int) -> tuple[float, str | None]:
    """Apply once; return the seconds and the digest, if it was asked for."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    os.sync()  # what the last one left to be written would slow this one down
    parts = [Part(read(folder / name), of_json(name), name) for name in ("one", "two")]
    began = time.perf_counter()
    composition = compose(parts, [1.0, -0.5])
    report = composition.apply_to(folder / "base", out, workers=workers, **WAYS[way])
    return time.perf_counter() - began, report.digest


def hashed(folder: Path) -> tuple[float, str]:
    """Return seconds and result of the digest as other programs compute it."""
    began = time.perf_counter()
    shell = ["sh", "-c", SHA256SUM]
    printed = subprocess.check_output(shell, cwd=folder / "out", text=True)
    return time.perf_counter() - began, f"sha256:{printed.split()[0]}"


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all ways in turns."""
    seconds: dict[str, list[float]] = {way: [] for way in [*WAYS, "sha256sum afterwards"]}
    digests = set()
    apply(folder, "threads", options.workers)
    for _ in range(options.rounds):
        for way in WAYS:
            took, digest = apply(folder, way, options.workers)
            seconds[way].append(took)
            digests |= {digest} - {None}
        took, digest = hashed(folder)
        seconds["sha256sum afterwards"].append(took)
        digests.add(digest)
    if len(digests) != 1:
        raise SystemExit(f"the digests differ: {digests}")
    size = sum(path.stat().st_size for path in (folder / "base").iterdir())
    return {"bytes": size, **{way: Timing.of(found) for way, found in seconds.items()}}


def main() -> None:
    """Measure, print and keep the result as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.workers)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_base(folder / "base", options.gigabytes)
        for seed, adapter in enumerate(("one", "two"), 1):
            write_adapter(folder / adapter, folder / "base", seed)
        results = {"workers": options.workers, **measure(folder, options)}
    print(write("apply_executors", results, ("torch",)).read_text())


if __name__ == "__main__":
    main()
