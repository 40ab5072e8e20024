"""Deltas added to the weights of an 8B-shaped model on a GPU, beside a copy of the same bytes.

The check of correctness (``make gpu-check``) runs first, and a red one stops before any timing.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch

from rankloom_kernels import Term, Workspace, fold, merge_
from report import Timing, write

# Linear layers of one Llama-3-8B block: (out, in).
SHAPES = (
    (4096, 4096),
    (1024, 4096),
    (1024, 4096),
    (4096, 4096),
    (14336, 4096),
    (14336, 4096),
    (4096, 14336),
)
LAYERS, RANK, ROUNDS = 32, 16, 7


def main() -> None:
    """Time one block and write medians; the whole model is 32 of them."""
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: run this on a machine with one")
    results: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    weights = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for shape in SHAPES]
    copies = [torch.empty_like(weight) for weight in weights]

    def copy() -> None:
        for weight, target in zip(weights, copies, strict=True):
            target.copy_(weight)

    floor = timed(copy)
    results["copy"] = floor
    for count in (1, 2, 8):
        folded = [fold(random_terms(shape, count)) for shape in SHAPES]
        workspace = Workspace(1 << 28)

        def merge(folded: list[Any] = folded, workspace: Workspace = workspace) -> None:
            for weight, delta in zip(weights, folded, strict=True):
                merge_(weight, delta, workspace=workspace)

        timing = timed(merge)
        results[f"merge, {count} adapters"] = timing
        ratio = timing.median / floor.median
        print(f"{count} adapters: {timing.median * LAYERS * 1e3:.1f} ms, {ratio:.2f} x the copy")
    print(write("gpu_merge", results, packages=("torch",)))


def random_terms(shape: tuple[int, int], count: int) -> list[Term]:
    """Make deltas of rank 16 with different coefficients."""
    out, into = shape
    return [
        Term(
            torch.randn(out, RANK, device="cuda") * 1e-3,
            torch.randn(RANK, into, device="cuda") * 1e-3,
            1.0 + index,
        )
        for index in range(count)
    ]


def timed(work: Callable[[], None]) -> Timing:
    """Return seconds of ``work`` on the GPU, after a warm-up."""
    seconds = []
    for _ in range(ROUNDS + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return Timing.of(seconds[2:])


if __name__ == "__main__":
    main()
