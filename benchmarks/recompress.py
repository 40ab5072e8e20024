"""Two adapters of rank 16 to one of rank 16: a 7B model's 224 targets, and one layer beside PEFT.

Nothing is timed before the result for the layer is as near to the dense sum as a matrix of rank 16
can be. PEFT's ``svd`` is held to the same measure, and timed once.

    python benchmarks/recompress.py --threads 2
"""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from rankloom.compose.factors.recompress import recompress
from rankloom.compose.factors.value import Factors
from report import write
from seven_b import LAYERS, RANK, SHAPES, factors, timed

SIZE, WEIGHTS = 4096, [1.0, 0.5]


def main() -> None:
    """Check, measure, print and keep the result as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    layer = [factors(SIZE, SIZE, seed) for seed in (1, 2)]
    mine = recompress(layer, WEIGHTS, rank=RANK).factors
    errors = {"least possible": least(layer), "rankloom": distance(mine, layer)}
    if errors["rankloom"] > (1 + 1e-6) * errors["least possible"] + 1e-6:
        sys.exit(f"the result is not the nearest one: {errors}")
    model = [
        [factors(*shape, 2 * number + which) for which in (0, 1)]
        for number in range(LAYERS)
        for shape in SHAPES
    ]

    def whole() -> None:
        for parts in model:
            recompress(parts, WEIGHTS, rank=RANK)

    results: dict[str, Any] = {
        "threads": options.threads,
        "relative error": errors,
        "one layer": timed(lambda: recompress(layer, WEIGHTS, rank=RANK), options.rounds),
        "224 targets": timed(whole, options.rounds),
    }
    module, work = prepare_peft(layer)
    results["PEFT svd, one layer"] = timed(work, 1)
    errors["PEFT svd"] = distance(by_peft(module), layer)
    results["load while measuring"] = os.getloadavg()
    print(write("recompress", results, packages=("torch", "peft")).read_text())


def least(parts: list[Factors]) -> float:
    """Return the least relative error, from the eigenvalues of ΔWᵀΔW's small twin."""
    b = torch.cat([w * part.b.double() for w, part in zip(WEIGHTS, parts, strict=True)], dim=1)
    a = torch.cat([part.a.double() for part in parts])
    squares = torch.linalg.eigvals((b.T @ b) @ (a @ a.T)).real.sort(descending=True).values
    return float((squares[RANK:].sum() / squares.sum()).sqrt())


def distance(found: Factors, parts: list[Factors]) -> float:
    """Return the relative error, from the dense float64 sum."""
    dense = [part.b.double() @ part.a.double() for part in (*parts, found)]
    delta = WEIGHTS[0] * dense[0] + WEIGHTS[1] * dense[1]
    return float((dense[2] - delta).norm() / delta.norm())


def prepare_peft(parts: list[Factors]) -> tuple[Any, Callable[[], object]]:
    """Return a module with both adapters, and what combines them by PEFT's ``svd``."""
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["0"])
    linear = torch.nn.Sequential(torch.nn.Linear(SIZE, SIZE, bias=False))
    model = get_peft_model(linear, config, adapter_name="n0")
    model.add_adapter("n1", config)
    module: Any = model.base_model.model[0]
    for number, part in enumerate(parts):
        module.lora_B[f"n{number}"].weight.data.copy_(part.b)
        module.lora_A[f"n{number}"].weight.data.copy_(part.a)
    options = {"combination_type": "svd", "svd_rank": RANK}
    return module, lambda: model.add_weighted_adapter(["n0", "n1"], WEIGHTS, "both", **options)


def by_peft(module: Any) -> Factors:  # noqa: ANN401 - a class of PEFT
    """Return the factors that PEFT made."""
    scale = module.scaling["both"]
    return Factors(scale * module.lora_B["both"].weight, module.lora_A["both"].weight)


if __name__ == "__main__":
    with torch.no_grad():
        main()
