"""Time and peak memory of TIES of four adapters on a bfloat16 checkpoint, and a gate of bytes.

No figure is printed unless one tensor of each shape has every byte that dense deltas give, which
are trimmed, elected and averaged as the paper says, one step after the other.

    python benchmarks/ties_checkpoint.py --gigabytes 2
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from apply_checkpoint import MODULES, PEAK, measure, write_adapter, write_base
from report import Timing, write

COUNT, DENSITY = 4, 0.2
WEIGHTS = (1.0, 0.5, 0.75, 1.0)

RANKLOOM = (
    PEAK
    + """
import sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch
from rankloom.adapter.reader import read
from rankloom.composition import Part, compose
from rankloom.digest import of_json
import rankloom.apply.checkpoint, rankloom.compose.compute
given = json.loads(sys.argv[1])
options = {"method": "ties", "parameters": {"density": given["density"]}}
torch.set_num_threads(given["threads"])
before = peak()
began = time.perf_counter()
parts = [Part(read(Path(one)), of_json(one), one) for one in given["adapters"]]
compose(parts, given["weights"], **options).apply_to(given["base"], given["out"])
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "peak_mib": peak(), "imports_mib": before}))
"""
)


def dense_ties(deltas: torch.Tensor) -> torch.Tensor:
    """Merge whole deltas, (N, out, in) float32."""
    weights = torch.tensor(WEIGHTS)[:, None, None]
    for delta in deltas:
        size = delta.abs()
        limit = size.flatten().sort(descending=True).values[int(DENSITY * delta.numel()) - 1]
        delta[size < limit] = 0
    votes = weights * deltas
    agrees = votes.sign() == torch.where(votes.sum(0) >= 0, 1, -1)
    share = (weights * agrees).sum(0)
    return torch.where(share > 0, (votes * agrees).sum(0) / share, 0)


def check(base: Path, out: Path, adapters: list[Path]) -> int:
    """Return how many tensors were compared, one of each shape.

    Raises:
        SystemExit: a byte differs.
    """
    factors = [load_file(path / "adapter_model.safetensors") for path in adapters]
    places = json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]
    names = {shape: module for module, shape in MODULES.items()}
    for module in names.values():
        name = f"model.layers.0.{module}.weight"
        key = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        deltas = [
            2 * (one[f"{key}B.weight"].double() @ one[f"{key}A.weight"].double()).float()
            for one in factors
        ]
        old, new = (_tensor(folder / places[name], name) for folder in (base, out))
        expected = (old.double() + dense_ties(torch.stack(deltas))).bfloat16()
        if off := int((expected.view(torch.int16) != new.view(torch.int16)).sum()):
            raise SystemExit(f"{off} elements of {name} are others than of dense deltas")
    return len(names)


def _tensor(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, "pt") as opened:
        return opened.get_tensor(name)


def main() -> None:
    """Measure, check, print and keep the result as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base, out = Path(folder) / "base", Path(folder) / "out"
        write_base(base, options.gigabytes)
        adapters = [Path(folder) / str(seed) for seed in range(COUNT)]
        for seed, path in enumerate(adapters):
            write_adapter(path, base, seed, torch.bfloat16)
        given = {
            "threads": options.threads,
            "adapters": [str(path) for path in adapters],
            "weights": WEIGHTS,
            "density": DENSITY,
            "base": str(base),
            "out": str(out),
        }
        found = measure(RANKLOOM, [json.dumps(given)])
        results = {
            "threads": options.threads,
            "adapters": COUNT,
            "bytes": sum(path.stat().st_size for path in base.iterdir()),
            "tensors with every byte of dense deltas": check(base, out, adapters),
            **{name: Timing.of([value]) for name, value in found.items()},
        }
    print(write("ties_checkpoint", results, ("torch",)).read_text())


if __name__ == "__main__":
    main()
