"""Deltas added to one matrix on one thread of the CPU, beside a copy of the matrix and PEFT.

The gate comes first: what is timed was compared with the float64 sum rounded once, for one to eight
adapters. Beside it torch's own ``addmm_`` of factors that are joined already, without coefficients
where they are bfloat16; nobody looks through its sums. PEFT runs twice: as users run it, and
warm, that is with a heap that gives no memory back, so that only its arithmetic counts.

    python benchmarks/apply_kernels.py
"""

import copy
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model

from rankloom_kernels import Folded, Term, Workspace, fold, merge_, merge_reference
from report import write

SIZE, RANK, RUNS, LARGEST_SHARE = 4096, 16, 15, 1e-4
CASES = {
    "bfloat16 factors of one scale": (1, torch.bfloat16, [2.0]),
    "unequal scales": (2, torch.bfloat16, [2.0, -1.4]),
    "float32 factors": (2, torch.float32, [2.0, 2.0]),
}
WARM = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}


def seconds(*works: Callable[[], object]) -> list[float]:
    """Return the median time of each call, taken in turns, after two turns that don't count."""
    taken: list[list[float]] = []
    for _ in range(RUNS + 2):
        taken.append([])
        for work in works:
            began = time.perf_counter()
            work()
            taken[-1].append(time.perf_counter() - began)
    return [statistics.median(times) for times in zip(*taken[2:], strict=True)]


def terms(count: int, dtype: torch.dtype, scales: list[float], size: int = SIZE) -> list[Term]:
    """Make deltas of about 1 % of the weights."""
    generator = torch.Generator().manual_seed(count)
    return [
        Term(
            (torch.randn(size, RANK, generator=generator) * 0.001).to(dtype),
            (torch.randn(RANK, size, generator=generator) * 0.02).to(dtype),
            scales[number % len(scales)],
        )
        for number in range(count)
    ]


def gate(dtype: torch.dtype, scales: list[float]) -> float:
    """Return the largest share of wrong elements for one to eight adapters.

    Raises:
        SystemExit: it is larger than promised.
    """
    weight = (torch.randn(1024, 1024) * 0.02).bfloat16()
    worst = 0.0
    for count in (1, 2, 4, 8):
        some = terms(count, dtype, scales, 1024)
        off = merge_(weight.clone(), some) != merge_reference(weight, some).bfloat16()
        worst = max(worst, float(off.double().mean()))
    if worst > LARGEST_SHARE:
        raise SystemExit(f"wrong on {worst:.1e} of the elements")
    return worst


def peft_seconds(count: int) -> float:
    """Return the time in which PEFT merges that many adapters into one layer."""
    model = torch.nn.Sequential(torch.nn.Linear(SIZE, SIZE, bias=False, dtype=torch.bfloat16))
    config = LoraConfig(r=RANK, target_modules=["0"], init_lora_weights=False)
    wrapped = get_peft_model(model, copy.deepcopy(config), "0")
    for number in range(1, count):
        wrapped.add_adapter(str(number), copy.deepcopy(config))
    layer = wrapped.base_model.model[0]
    names = [str(number) for number in range(count)]

    def merge() -> None:
        layer.merge(adapter_names=names)
        layer.merged_adapters.clear()

    return seconds(merge)[0]


def bare_addmm(weight: torch.Tensor, folded: Folded, dtype: torch.dtype) -> Callable[[], object]:
    """Return what torch alone does with the same product: the least that its users may hope for."""
    changed = weight.clone()
    if dtype == torch.bfloat16:
        b, a = folded.raw_b.to(dtype), folded.a.to(dtype)
        return lambda: changed.addmm_(b, a)
    rows = Workspace().rows(weight.shape[1], dtype)
    tile = torch.empty(rows, weight.shape[1])

    def add() -> None:
        for start in range(0, len(changed), rows):
            part = changed[start : start + rows]
            total = tile[: len(part)].copy_(part)
            part.copy_(total.addmm_(folded.b[start : start + rows], folded.a))

    return add


def measure() -> dict[str, object]:
    """Time every case in this process."""
    torch.set_num_threads(1)
    weight, workspace = (torch.randn(SIZE, SIZE) * 0.02).bfloat16(), Workspace()
    target = torch.empty_like(weight)
    found: dict[str, object] = {}
    for name, (count, dtype, scales) in CASES.items():
        worst = gate(dtype, scales)
        folded = fold(terms(count, dtype, scales), for_bfloat16=True)

        def merge(folded: Folded = folded) -> None:
            merge_(weight, folded, workspace=workspace)

        bare = bare_addmm(weight, folded, dtype)
        works = (merge, lambda: target.copy_(weight), bare)
        ours, floor, torchs = (1e3 * taken for taken in seconds(*works))
        peft = peft_seconds(count) * 1e3
        found[name] = {
            "adapters": count,
            "share of wrong elements": worst,
            "ms": ours,
            "copy ms": floor,
            "to a copy": ours / floor,
            "addmm_ to a copy": torchs / floor,
            "PEFT ms": peft,
            "PEFT to ours": peft / ours,
        }
    return found


def main() -> None:
    """Measure in two processes, print and keep the result as JSON."""
    if "--here" in sys.argv:
        print(json.dumps(measure()))
        return
    results = {"bfloat16 products": torch.cpu.get_capabilities().get("avx512_bf16", False)}
    for name, environment in {"as users run it": {}, "warm": WARM}.items():
        command = [sys.executable, __file__, "--here"]
        done = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        results[name] = json.loads(done.stdout.splitlines()[-1])
    print(write("apply_kernels", results, ("torch", "peft")).read_text())


if __name__ == "__main__":
    main()
