"""Swaps on a live bfloat16 model of 1 GB, beside a copy of the touched tensors.

Nothing is timed before the swapped bits are those of the float64 sum, all but 100 in a million, and
the restored ones are the base's.

    python benchmarks/swap.py --threads 1
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rankloom.adapter.reader import read
from rankloom.composition import Composition, compose
from rankloom.digest import of_json
from rankloom.recipe.part import Part
from report import Timing, write

if TYPE_CHECKING:
    from collections.abc import Callable

RANK, LAYERS = 16, 4
MODULES = {"q": (4096, 4096), "k": (1024, 4096), "up": (14336, 4096), "down": (4096, 12288)}
MOST_OFF = 1e-4
"""Of the elements, a float32 sum rounds so many to the neighbour at most."""


def main() -> None:
    """Check, measure, print and keep the result as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    model = build()
    results: dict[str, Any] = {
        "threads": options.threads,
        "bytes": sum(parameter.nbytes for parameter in model.parameters()),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, dtype in {"bfloat16": torch.bfloat16, "float32": torch.float32}.items():
            pair = [adapter(Path(folder) / f"{name}-{seed}", dtype, seed) for seed in (1, 2)]
            results[f"one adapter, {name} factors"] = measure(model, pair, options.rounds)
    results["load while measuring"] = os.getloadavg()
    print(write(f"swap_{options.threads}", results, packages=("torch",)).read_text())


def build() -> nn.Module:
    """Return a model of linear layers."""
    generator = torch.Generator().manual_seed(0)
    model = nn.ModuleDict()
    for layer in range(LAYERS):
        for name, shape in MODULES.items():
            linear = nn.Linear(1, 1, bias=False, device="meta")
            values = torch.randn(shape, generator=generator).mul_(0.02).bfloat16()
            linear.weight = nn.Parameter(values, requires_grad=False)
            model[f"{name}{layer}"] = linear
    return model


def adapter(folder: Path, dtype: torch.dtype, seed: int) -> Composition:
    """Return a composition of one adapter, deltas of about 1 % of the weights."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(LAYERS):
        for name, (out, into) in MODULES.items():
            key = f"base_model.model.{name}{layer}.lora_"
            a = torch.randn(RANK, into, generator=generator) * 0.01
            tensors[f"{key}A.weight"] = a.to(dtype)
            b = torch.randn(out, RANK, generator=generator) * 0.005
            tensors[f"{key}B.weight"] = b.to(dtype)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = f'{{"peft_type": "LORA", "r": {RANK}, "lora_alpha": 16, "target_modules": ["q"]}}'
    (folder / "adapter_config.json").write_text(config)
    return compose([Part(read(folder), of_json(folder.name), folder.name)])


def measure(model: nn.Module, pair: list[Composition], rounds: int) -> dict[str, Any]:
    """Return seconds of swaps from one to the other and of copies, taken in turn."""
    parameters = [parameter.detach() for parameter in model.parameters()]
    before = [parameter.clone() for parameter in parameters]
    copies = [torch.empty_like(parameter) for parameter in parameters]

    def copy() -> None:
        for target, source in zip(copies, parameters, strict=True):
            target.copy_(source)

    factors = bare_factors(pair[0], list(model.keys()))

    def copy_and_add() -> None:
        for target, source, (b, a) in zip(copies, before, factors, strict=True):
            target.copy_(source).addmm_(b, a)

    handle = pair[0].apply(model)
    names = ("swap", "copy", "copy and addmm_", "back to the base")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        handle.swap(pair[(number + 1) % 2])
        if number == 0:
            off = check(model, before, pair[1])
            continue
        handle.swap(pair[number % 2])
        seconds["swap"].append(timed(lambda n=number: handle.swap(pair[(n + 1) % 2])))
        seconds["copy"].append(timed(copy))
        seconds["copy and addmm_"].append(timed(copy_and_add))
        seconds["back to the base"].append(timed(lambda: handle.swap(None)))
    handle.restore()
    if not all(torch.equal(one, two) for one, two in zip(parameters, before, strict=True)):
        sys.exit("the restored bits are not the base's")
    found = {name: Timing.of(some) for name, some in seconds.items()}
    ratio = found["swap"].median / found["copy"].median
    bare = found["copy and addmm_"].median / found["copy"].median
    ratios = {"swap in copies": round(ratio, 2), "copy and addmm_ in copies": round(bare, 2)}
    return {**found, **ratios, "share off": off}


def bare_factors(
    composition: Composition, names: list[str]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the factors in bfloat16, for torch alone: no scale, and no sum is looked through."""
    tensors = load_file(composition.parts[0].adapter.path / "adapter_model.safetensors")
    keys = [f"base_model.model.{name}.lora_" for name in names]
    return [
        (tensors[f"{key}B.weight"].bfloat16(), tensors[f"{key}A.weight"].bfloat16()) for key in keys
    ]


def check(model: nn.Module, before: list[torch.Tensor], composition: Composition) -> float:
    """Return the share of elements of one layer off the float64 sum; stop if it is too large."""
    name = "q0"
    tensors = composition.parts[0].adapter.path / "adapter_model.safetensors"
    factors = load_file(tensors)
    key = f"base_model.model.{name}.lora_"
    delta = factors[f"{key}B.weight"].double() @ factors[f"{key}A.weight"].double()
    exact = (before[0].double() + delta).bfloat16()
    off = float((exact != model.get_submodule(name).weight).double().mean())
    if off > MOST_OFF:
        sys.exit(f"{off:.1e} of the elements are not the float64 sum rounded once")
    return off


def timed(work: Callable[[], object]) -> float:
    """Return seconds on the wall."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
