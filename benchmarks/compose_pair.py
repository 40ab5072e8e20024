"""Two adapters of a 7B model, from the command: the plan, and a saved sum with its replay.

python benchmarks/compose_pair.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rankloom import sdk
from rankloom.compose import save as saving
from report import Timing, write
from seven_b import LAYERS, MODULES, RANK, factors


def main() -> None:
    """Measure, print and keep the result as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        pair = [adapter(Path(name) / str(seed), seed) for seed in (1, 2)]
        results: dict[str, Any] = {
            "plan": plan(pair, options.rounds),
            "save": save(pair, Path(name), options.rounds),
        }
    results["load while measuring"] = os.getloadavg()
    print(write("compose_pair", results, packages=("torch",)).read_text())


def adapter(folder: Path, seed: int) -> Path:
    """Write an adapter of 224 targets in bfloat16."""
    tensors = {}
    for layer in range(LAYERS):
        for number, (module, shape) in enumerate(MODULES.items()):
            found = factors(*shape, seed=1000 * seed + 7 * layer + number)
            key = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{key}.lora_A.weight"] = found.a.bfloat16()
            tensors[f"{key}.lora_B.weight"] = found.b.bfloat16()
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    modules = sorted({name.rpartition(".")[2] for name in MODULES})
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 32, "target_modules": modules}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def plan(pair: list[Path], rounds: int) -> dict[str, Any]:
    """Time ``loractl compose --plan`` from its start to its end."""
    start = "from loractl.main import main; main()"
    command = [sys.executable, "-c", start, "compose", *map(str, pair), "--plan"]
    environment = {**os.environ, "RANKLOOM_HOME": str(pair[0].parent)}
    seconds = []
    for _ in range(rounds + 1):  # the first one fills the page cache
        began = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        seconds.append(time.perf_counter() - began)
    if done.stdout.count(b"\n") < LAYERS * len(MODULES):
        sys.exit("the plan lacks targets")
    imported = [*command[:1], "-X", "importtime", *command[1:]]
    found = subprocess.run(imported, env=environment, capture_output=True, check=True)
    modules = {line.rpartition(b"|")[2].strip() for line in found.stderr.splitlines()}
    return {"wall": Timing.of(seconds[1:]), "imports torch": b"torch" in modules}


def save(pair: list[Path], folder: Path, rounds: int) -> dict[str, Any]:
    """Time saving the sum, and the part of it that compares what was written."""
    whole, replays = [], []
    real = saving.replay

    def replay(*given: Any) -> int:  # noqa: ANN401 - as it was called
        began = time.perf_counter()
        compared = real(*given)
        replays.append(time.perf_counter() - began)
        return compared

    saving.replay = replay
    for number in range(rounds):
        began = time.perf_counter()
        sdk.compose(pair, [1, 0.5]).save(folder / f"out-{number}")
        whole.append(time.perf_counter() - began)
    share = Timing.of(replays).median / Timing.of(whole).median
    return {"wall": Timing.of(whole), "replay": Timing.of(replays), "share": round(share, 4)}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    main()
