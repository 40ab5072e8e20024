"""The interference report on two 7B-shaped adapters of rank 16, 224 targets.

Nothing is timed before the figures of one target agree with their dense float64 definitions.

    python benchmarks/interference.py --threads 2
"""

import argparse
import os
import sys
from typing import Any

import torch

from rankloom.compose.interference.report import report
from rankloom.compose.interference.value import Part
from report import write
from seven_b import LAYERS, MODULES, factors, timed

WEIGHTS = {"language": 1.0, "task": -0.5}


def main() -> None:
    """Check, measure, print and keep the result as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {
        "threads": options.threads,
        "largest difference from the dense figures": check(),
    }
    targets = [
        (f"model.layers.{layer}.{module}.weight", parts(*shape, layer))
        for layer in range(LAYERS)
        for module, shape in MODULES.items()
    ]
    results["224 targets"] = timed(lambda: report(targets), options.rounds)
    results["load while measuring"] = os.getloadavg()
    print(write("interference", results, packages=("torch",)).read_text())


def parts(out: int, into: int, layer: int = 0) -> list[Part]:
    """Two adapters on one target."""
    return [
        Part(label, weight, factors(out, into, 2 * layer + number))
        for number, (label, weight) in enumerate(WEIGHTS.items())
    ]


def check() -> float:
    """Compare one target, all rows sampled, with the definitions; stop if they differ."""
    given = parts(2048, 1024)
    scope = report([("target", given)], rows=2048).total
    [pair] = scope.pairs
    x, y = (part.weight * (part.factors.b.double() @ part.factors.a.double()) for part in given)
    least = torch.minimum(x.abs(), y.abs())
    spaces = [torch.linalg.qr(part.factors.b.double()).Q for part in given]
    expected = {
        "cosine": (x * y).sum() / (x.norm() * y.norm()),
        "ratio": x.norm() / y.norm(),
        "cancellation": 1 - (x + y).square().sum() / (x.square().sum() + y.square().sum()),
        "sign_conflict": least[(x > 0) != (y > 0)].sum() / least.sum(),
        "overlap_out": (spaces[0].T @ spaces[1]).square().sum() / 16,
    }
    worst = max(abs(getattr(pair, name) - float(value)) for name, value in expected.items())
    if worst > 1e-10:
        sys.exit(f"the figures are {worst:.1e} away from the dense ones")
    return worst


if __name__ == "__main__":
    main()
