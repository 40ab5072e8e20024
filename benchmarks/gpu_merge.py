"""Deltas added to the weights of an 8B-shaped model on a GPU, beside what else one would use.

The checks of correctness (``tests/gpu``) run first; on a red one nothing is timed or written. Every
figure is a median over the whole model, with the share of its floor: the time in which this card
copies as many bytes as must be read and written.

    python benchmarks/gpu_merge.py   # torch, triton, numpy, safetensors, pytest and a GPU
    TRITON_INTERPRET=1 python benchmarks/gpu_merge.py   # tiny matrices on the CPU; no figures
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rankloom_kernels import (
    Election,
    Fp8,
    Int4,
    Keep,
    Nf4,
    Term,
    dora_,
    elect_merge_,
    merge_many_,
    merge_quantised_,
    thresholds,
)
from report import Timing, write

ROOT = Path(__file__).parents[1]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
if INTERPRETED:
    sys.path.append(str(ROOT / "tests"))
    import interpreted  # noqa: F401 - bfloat16 as on a GPU

# Linear layers of one Llama-3-8B block: (out, in).
BLOCK = (
    (4096, 4096),
    (1024, 4096),
    (1024, 4096),
    (4096, 4096),
    (14336, 4096),
    (14336, 4096),
    (4096, 14336),
)
SHAPES = [(128, 128), (64, 128)] if INTERPRETED else list(BLOCK) * 32
RANK, ROUNDS, DENSITY = 16, 9, 0.2


class Case(NamedTuple):
    """One line of the report.

    Attributes:
        name: what is done.
        work: does it, to all weights.
        nbytes: that must be read and written.
    """

    name: str
    work: Callable[[], object]
    nbytes: int


def main() -> None:
    """Check, time every case, write the report."""
    if not INTERPRETED and not torch.cuda.is_available():
        sys.exit("no CUDA device: run this on a machine with one")
    gate()
    if INTERPRETED:
        for case in cases():
            case.work()
            print(f"{case.name}: ran in the interpreter, which times nothing", flush=True)
        return
    rate = copy_rate()
    results: dict[str, Any] = {
        "card": torch.cuda.get_device_name(),
        "copied bytes per second": round(rate),
    }
    for case in cases():
        timing = timed(case.work)
        share = case.nbytes / rate / timing.median
        results[case.name] = {"seconds": timing, "share of floor": round(share, 3)}
        print(f"{case.name}: {timing.median * 1e3:.2f} ms, {share:.0%} of its floor", flush=True)
    print(write("gpu_merge", results, packages=("torch", "triton")))


def gate() -> None:
    """Run the checks of correctness; end here if one is red."""
    checks = ROOT / "tests/gpu"
    command = [sys.executable, "-m", "pytest", "-q", "-c", checks / "pytest.ini"]
    done = subprocess.run([*command, "--rootdir", checks, checks], check=False)
    if done.returncode != 0:
        sys.exit("a check of correctness is red: nothing is timed")


def copy_rate() -> float:
    """Return how many bytes this device reads and writes in a second when it copies."""
    source = torch.empty(1 << 31, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * source.numel() / timed(lambda: target.copy_(source)).median


def timed(work: Callable[[], object]) -> Timing:
    """Return seconds of ``work`` on the device, after warming up."""
    seconds = []
    for _ in range(ROUNDS + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return Timing.of(seconds[2:])


def cases() -> Iterator[Case]:
    """Yield what is timed; what one case holds is freed before the next."""
    yield from dense_cases()
    yield from swap_cases()
    yield from quantised_cases()
    yield from ties_cases()
    if find_spec("peft") and not INTERPRETED:
        yield from peft_cases()


def weights() -> list[torch.Tensor]:
    """Make the model's weights."""
    return [torch.randn(s, device=DEVICE, dtype=torch.bfloat16) * 0.02 for s in SHAPES]


def adapters(count: int) -> list[list[Term]]:
    """Make ``count`` adapters of all weights, of different coefficients."""
    return [[term(shape, 0.5 + index / 4) for index in range(count)] for shape in SHAPES]


def term(shape: tuple[int, int], coefficient: float) -> Term:
    """Make one delta of bfloat16 factors."""
    options: dict[str, Any] = {"device": DEVICE, "dtype": torch.bfloat16}
    b = torch.randn(shape[0], RANK, **options) * 0.01
    return Term(b, torch.randn(RANK, shape[1], **options) * 0.01, coefficient)


def dense_cases() -> Iterator[Case]:
    """N adapters on bfloat16 weights: ours, ours without Triton, concatenated addmm_, DoRA."""
    model = weights()
    nbytes = 2 * sum(weight.nbytes for weight in model)
    for count in (1, 2, 8):
        terms = adapters(count)
        for backend in ("triton", "torch"):

            def merge(backend: Any = backend, terms: Any = terms) -> None:  # noqa: ANN401
                merge_many_(model, terms, backend=backend)

            yield Case(f"bf16, {count} adapters, {backend}", merge, nbytes)

        def concatenated(terms: list[list[Term]] = terms) -> None:
            for weight, some in zip(model, terms, strict=True):
                b = torch.cat([each.b * each.coefficient for each in some], dim=1)
                weight.addmm_(b, torch.cat([each.a for each in some]))

        yield Case(f"bf16, {count} adapters, concatenated addmm_", concatenated, nbytes)
    lengths = [torch.rand(shape[0], device=DEVICE) for shape in SHAPES]
    terms = adapters(1)

    def dora() -> None:
        for weight, some, length in zip(model, terms, lengths, strict=True):
            dora_(weight, some, length, backend="triton")

    yield Case("bf16, DoRA, triton", dora, nbytes)


def swap_cases() -> Iterator[Case]:
    """Weights from a pristine base and another adapter."""
    base, model, terms = weights(), weights(), adapters(1)
    nbytes = 2 * sum(weight.nbytes for weight in base)

    def swap() -> None:
        merge_many_(base, terms, outs=model, backend="triton")

    yield Case("bf16, swap from a base on the device, triton", swap, nbytes)


def quantised_cases() -> Iterator[Case]:
    """Two adapters on fp8 weights with block scales, on NF4, and on int4 as GPTQ stores it."""
    terms = adapters(2)
    for name in ("fp8", "nf4", "int4"):
        model = [quantised(name, weight) for weight in weights()]
        nbytes = 2 * sum(weight.codes.nbytes + weight.scale.nbytes for weight in model)

        def merge(model: list[Fp8 | Nf4 | Int4] = model) -> None:
            for weight, some in zip(model, terms, strict=True):
                merge_quantised_(weight, some, backend="triton")

        yield Case(f"{name}, 2 adapters, triton", merge, nbytes)


def quantised(name: str, weight: torch.Tensor) -> Fp8 | Nf4 | Int4:
    """Quantise a weight."""
    (rows, columns), values = weight.shape, weight.float()
    if name == "nf4":
        codes = torch.zeros(rows, columns // 2, dtype=torch.uint8, device=DEVICE)
        return Nf4(codes, torch.zeros(rows, columns // 64, device=DEVICE)).requantised(values)
    if name == "int4":
        codes = torch.zeros(columns // 8, rows, dtype=torch.int32, device=DEVICE).T
        group = (torch.arange(columns, device=DEVICE) // 128).to(torch.int32)
        scale = torch.zeros(columns // 128, rows, dtype=torch.float16, device=DEVICE).T
        return Int4(codes, scale, scale.to(torch.uint8), group).requantised(values)
    blocks = torch.ones(-(-rows // 128), -(-columns // 128), device=DEVICE)
    return Fp8(values.to(torch.float8_e4m3fn), blocks).requantised(values)


def ties_cases() -> Iterator[Case]:
    """TIES of four adapters: thresholds and merge."""
    model, terms, rule = (
        weights(),
        adapters(4),
        Election((1.0,) * 4, "unweighted", "total", "count"),
    )
    nbytes = 2 * sum(weight.nbytes for weight in model)
    bounds = [thresholds(some, [DENSITY] * 4, backend="triton") for some in terms]

    def find() -> None:
        for some in terms:
            thresholds(some, [DENSITY] * 4, backend="triton")

    def merge() -> None:
        for weight, some, bound in zip(model, terms, bounds, strict=True):
            elect_merge_(weight, some, Keep(bound), rule, backend="triton")

    yield Case("bf16, TIES of 4, thresholds, triton", find, nbytes)
    yield Case("bf16, TIES of 4, merge, triton", merge, nbytes)


def peft_cases() -> Iterator[Case]:
    """PEFT's merge of the same adapters, on one block and counted 32 times."""
    from peft import LoraConfig, get_peft_model

    for count in (1, 2, 8):
        with torch.device(DEVICE):
            linears = [
                torch.nn.Linear(into, out, bias=False, dtype=torch.bfloat16) for out, into in BLOCK
            ]
        names = [f"adapter{number}" for number in range(count)]
        config = LoraConfig(r=RANK, target_modules=[str(n) for n in range(len(BLOCK))])
        tuned = get_peft_model(torch.nn.Sequential(*linears), config, adapter_name=names[0])
        for name in names[1:]:
            tuned.add_adapter(name, config)

        def merge(tuned: Any = tuned, names: list[str] = names) -> None:  # noqa: ANN401
            for _ in range(len(SHAPES) // len(BLOCK)):
                tuned.base_model.merge_adapter(names)
                for module in tuned.modules():
                    if hasattr(module, "merged_adapters"):
                        module.merged_adapters = []

        nbytes = 4 * sum(out * into for out, into in SHAPES)
        yield Case(f"bf16, {count} adapters, PEFT", merge, nbytes)


if __name__ == "__main__":
    main()
