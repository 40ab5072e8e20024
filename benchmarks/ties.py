"""TIES of four adapters on one 4096 x 4096 target, beside the same from dense deltas.

Each run is a process of its own with one thread, which reads its peak resident set from the kernel.
No time is printed before the result was compared with float64.

    python benchmarks/ties.py --rounds 3
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from report import Timing, write

SIZE, RANK, COUNT, DENSITY = 4096, 16, 4, 0.2
WEIGHTS = (1.0, 0.5, 0.75, 1.0)

START = """
import json, sys, time
import torch
torch.set_num_threads(1)
size, rank, count, density, weights = json.loads(sys.argv[1])
generator = torch.Generator().manual_seed(0)
b = [torch.randn(size, rank, generator=generator) * 0.01 for _ in range(count)]
a = [torch.randn(rank, size, generator=generator) * 0.01 for _ in range(count)]

def peak():
    [line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024

before = peak()
"""

END = """
print(json.dumps({
    "seconds": seconds, "cpu_seconds": cpu, "peak_mib": after, "peak_of_imports_mib": before,
}))
"""

RANKLOOM = """
from rankloom.compose.factors.value import Factors
from rankloom.compose.tiles.methods import combine
before = peak()
parts = [Factors(*pair) for pair in zip(b, a)]
options = {"density": density, "sign_election": "unweighted", "divide_by": "count"}
weight = torch.zeros(256, size)
wall, cpu = time.perf_counter(), time.process_time()
result = combine("ties", parts, weights, options)
for row in range(0, size, 256):
    rows = result.rows(row, row + 256)
    weight.copy_(rows)
seconds, cpu, after = time.perf_counter() - wall, time.process_time() - cpu, peak()
if len(sys.argv) > 2:
    torch.save(result.rows(0, size), sys.argv[2])
"""

DENSE = """
wall, cpu = time.perf_counter(), time.process_time()
trimmed = []
for left, right in zip(b, a):
    delta = left @ right
    kept = torch.topk(delta.abs().view(-1), int(density * delta.numel())).indices
    mask = torch.zeros(delta.numel())
    mask[kept] = 1
    trimmed.append(delta * mask.view(delta.shape))
stack = torch.stack(trimmed)
sign = torch.where(stack.sum(0) >= 0, 1, -1)
agrees = stack.sign() == sign
total = (stack * torch.tensor(weights)[:, None, None] * agrees).sum(0)
result = total / agrees.sum(0).clamp(min=1)
seconds, cpu, after = time.perf_counter() - wall, time.process_time() - cpu, peak()
"""

PEFT = """
from peft.utils.merge_utils import ties
before = peak()
wall, cpu = time.perf_counter(), time.process_time()
result = ties([left @ right for left, right in zip(b, a)], torch.tensor(weights), density)
seconds, cpu, after = time.perf_counter() - wall, time.process_time() - cpu, peak()
"""

MASKS = """
from rankloom_kernels.masks import kept, stream_key
def best(work):
    times = []
    for _ in range(5):
        wall = time.process_time()
        for _ in range(128):
            work()
        times.append(time.process_time() - wall)
    return min(times)
rates = torch.full((1 << 17,), 0.2)
key = stream_key(0, "adapter", "target")
print(json.dumps({
    "kept": best(lambda: kept(key, 0, 1 << 17, 0.2)),
    "torch.bernoulli": best(lambda: torch.bernoulli(rates)),
}))
"""


def run(script: str, save: Path | None = None) -> dict[str, float]:
    """Run a contender in a process of its own; return what it measured of itself."""
    case = json.dumps([SIZE, RANK, COUNT, DENSITY, WEIGHTS])
    arguments = [case, *([str(save)] if save else [])]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


def check(found: Path) -> dict[str, float]:
    """Compare a result with dense float64 deltas; end the program if it is wrong.

    Where a float64 delta is within 1e-6 of its threshold, or a vote within 1e-6 of a tie, float32
    may decide otherwise; such elements are counted.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    b = [torch.randn(SIZE, RANK, generator=generator) * 0.01 for _ in range(COUNT)]
    a = [torch.randn(RANK, SIZE, generator=generator) * 0.01 for _ in range(COUNT)]
    shape = (SIZE, SIZE)
    doubt = torch.zeros(shape, dtype=torch.bool)
    votes, mass = torch.zeros(shape).double(), torch.zeros(shape).double()
    trimmed = []
    for left, right in zip(b, a, strict=True):
        delta = left.double() @ right.double()
        kept = int(DENSITY * delta.numel())
        limit = delta.abs().view(-1).kthvalue(delta.numel() - kept + 1).values
        doubt |= (delta.abs() - limit).abs() <= 1e-6 * limit
        delta[delta.abs() < limit] = 0
        trimmed.append(delta)
        votes += delta
        mass += delta.abs()
    doubt |= (votes.abs() <= 1e-6 * mass) & (mass > 0)
    sign = votes.ge(0).double() * 2 - 1
    total, divisor = torch.zeros(shape).double(), torch.zeros(shape).double()
    for delta, weight in zip(trimmed, WEIGHTS, strict=True):
        agrees = delta * sign > 0
        total += weight * delta * agrees
        divisor += agrees
    truth = total / divisor.clamp(min=1)
    result = torch.load(found).double()
    wrong = int(((result.sign() != truth.sign()) & ~doubt).sum())
    error = ((result - truth).abs() / truth.abs().clamp(min=1e-30))[(truth != 0) & ~doubt]
    figures = {
        "elements in doubt": int(doubt.sum()) / doubt.numel(),
        "elements kept or signed otherwise": wrong,
        "largest relative error": float(error.max()),
    }
    if wrong or figures["elements in doubt"] > 1e-5 or figures["largest relative error"] > 1e-6:
        raise SystemExit(f"the result is wrong: {figures}")
    return figures


def main() -> None:
    """Check, measure in turns, print and keep the result as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    scripts = {
        "rankloom": START + RANKLOOM + END,
        "dense deltas and torch.topk": START + DENSE + END,
        "peft.utils.merge_utils.ties": START + PEFT + END,
    }
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "result.pt"
        run(scripts["rankloom"], saved)
        results: dict[str, Any] = {"accuracy": check(saved)}
    # More than one process for each core makes wall seconds long; cpu seconds bear it better.
    results["load average of the machine before"] = [round(load, 1) for load in os.getloadavg()]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in scripts}
    for _ in range(options.rounds):
        for name, script in scripts.items():
            runs[name].append(run(script))
    for name, found in runs.items():
        results[name] = {key: Timing.of([one[key] for one in found]) for key in found[0]}
    ours = results["rankloom"]
    for name in list(scripts)[1:]:
        results[f"times faster than {name}"] = {
            key: round(results[name][key].median / ours[key].median, 1)
            for key in ("seconds", "cpu_seconds")
        }
    results["masks, cpu seconds per 16.8 million elements"] = run(START + MASKS)
    print(write("ties", results, ("torch", "peft")).read_text())


if __name__ == "__main__":
    main()
