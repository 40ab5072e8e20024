"""Time and peak memory of applying two adapters to a checkpoint, beside ``cp``, PEFT and mergekit.

Each measurement runs in a process of its own, which reads its peak resident set from the kernel;
its clock starts when its imports are done. Contenders take turns, and nothing is left to be written
to the disk when one begins. No figure is printed before the output of a run was compared with the
float64 sum.

    python benchmarks/apply_checkpoint.py --sizes 2 6 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from report import Timing, write

if TYPE_CHECKING:
    import torch

HIDDEN, INNER, KEYS, RANK = 2048, 5504, 512, 16
MODULES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
VOCAB = 32000
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": VOCAB,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "rms_norm_eps": 1e-5,
}
WEIGHTS = (1.0, -0.5)


def write_base(folder: Path, gigabytes: float) -> None:
    """Write a bfloat16 checkpoint of the llama form in shards of about 500 MB."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    generator = torch.Generator().manual_seed(0)

    def weight(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) * 0.02).bfloat16()

    per_layer = sum(out * in_ for out, in_ in MODULES.values()) * 2
    layers = max(1, round((gigabytes * 1e9 - VOCAB * HIDDEN * 4) / per_layer))
    shards: list[dict[str, torch.Tensor]] = [
        {
            "model.embed_tokens.weight": weight(VOCAB, HIDDEN),
            "lm_head.weight": weight(VOCAB, HIDDEN),
        }
    ]
    places: dict[str, str] = {}

    def flush(number: int) -> None:
        name = f"model-{number:05}.safetensors"
        save_file(shards[-1], folder / name, {"format": "pt"})
        places.update(dict.fromkeys(shards[-1], name))
        shards[-1] = {}

    number = 1
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for module, shape in MODULES.items():
            shards[-1][f"{prefix}.{module}.weight"] = weight(*shape)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shards[-1][f"{prefix}.{norm}.weight"] = torch.ones(HIDDEN, dtype=torch.bfloat16)
        if sum(tensor.nbytes for tensor in shards[-1].values()) > 500e6:
            flush(number)
            number += 1
    shards[-1]["model.norm.weight"] = torch.ones(HIDDEN, dtype=torch.bfloat16)
    flush(number)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))


def write_adapter(folder: Path, base: Path, seed: int, dtype: torch.dtype | None = None) -> None:
    """Write a rank 16 adapter on every linear module, deltas of about 1 % of the weights.

    Its factors are float32, as PEFT's are, or of another dtype.
    """
    import torch
    from safetensors.torch import save_file

    layers = json.loads((base / "config.json").read_text())["num_hidden_layers"]
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(layers):
        for module, (out, in_) in MODULES.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            a = torch.randn(RANK, in_, generator=generator) * 0.01
            b = torch.randn(out, RANK, generator=generator) * 0.002
            tensors[f"{name}.lora_A.weight"] = a.to(dtype or torch.float32)
            tensors[f"{name}.lora_B.weight"] = b.to(dtype or torch.float32)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 32,
        "target_modules": sorted(module.rpartition(".")[2] for module in MODULES),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


PEAK = """
import json
def peak():
    [line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024
"""

# Memory that a virtual machine has free is with its host, and getting it back takes longer than all
# the rest; a process that takes and leaves it right before is the same help to everyone.
TAKE = """
import os, subprocess, sys
def take(base):
    size = 1.5 * sum(entry.stat().st_size for entry in os.scandir(base))
    code = f"x = bytearray(b'1') * {int(size)}"
    subprocess.run([sys.executable, "-c", code], check=True)
"""

RANKLOOM = (
    PEAK
    + TAKE
    + """
import sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from rankloom.adapter.reader import read
from rankloom.composition import Part, compose
from rankloom.digest import of_json
import rankloom.apply.checkpoint, rankloom.compose.compute
import torch
torch.set_num_threads(int(sys.argv[1]))
base, out, *adapters = map(Path, sys.argv[2:])
take(base)
began = time.perf_counter()
parts = [Part(read(path), of_json(path.name), path.name) for path in adapters]
compose(parts, [1.0, -0.5]).apply_to(base, out)
print(json.dumps({"seconds": time.perf_counter() - began, "peak_mib": peak()}))
"""
)

PEFT = (
    PEAK
    + """
import sys, time, warnings
warnings.simplefilter("ignore")
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
torch.set_num_threads(int(sys.argv[1]))
base, out, one, two = sys.argv[2:]
began = time.perf_counter()
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
model = PeftModel.from_pretrained(model, one, adapter_name="one")
model.load_adapter(two, adapter_name="two")
model.add_weighted_adapter(["one", "two"], [1.0, -0.5], "both", combination_type="cat")
model.set_adapter("both")
model.delete_adapter("one")
model.delete_adapter("two")
model.merge_and_unload().save_pretrained(out)
print(json.dumps({"seconds": time.perf_counter() - began, "peak_mib": peak()}))
"""
)

MERGEKIT = (
    PEAK
    + """
import sys, time
from pathlib import Path
import torch, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
torch.set_num_threads(int(sys.argv[1]))
base, out, one, two = sys.argv[2:]
began = time.perf_counter()
models = [{"model": f"{base}+{path}", "parameters": {"weight": weight}}
          for path, weight in ((one, 1.0), (two, -0.5))]
config = {"merge_method": "task_arithmetic", "base_model": base, "dtype": "bfloat16",
          "models": models}
options = MergeOptions(lora_merge_cache=out + "-cache", copy_tokenizer=False, quiet=True)
run_merge(MergeConfiguration.model_validate(config), out, options)
print(json.dumps({"seconds": time.perf_counter() - began, "peak_mib": peak()}))
"""
)

COPY = (
    TAKE
    + """
import json, time
take(sys.argv[2])
began = time.perf_counter()
subprocess.run(["cp", "-r", *sys.argv[2:4]], check=True)
seconds = time.perf_counter() - began
subprocess.run(["sync", *(entry.path for entry in os.scandir(sys.argv[3]))], check=True)
print(json.dumps({"seconds": seconds, "synced": time.perf_counter() - began}))
"""
)


def measure(script: str, arguments: list[str], python: str = sys.executable) -> dict[str, float]:
    """Run a script in a process of its own; return what it measured of itself."""
    os.sync()  # what the last one left to be written would slow this one down
    done = subprocess.run(
        [python, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


# What any program does that has the bytes in its own memory for a moment and leaves files that
# survive a power cut, as ours do; the time beyond this is arithmetic.
THROUGH = (
    TAKE
    + """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
BUFFER, PIECE = 1 << 20, 128 << 10
base, out = map(Path, sys.argv[2:4])
def through(path):
    buffer = memoryview(bytearray(BUFFER))
    source, new = os.open(path, os.O_RDONLY), os.open(out / path.name, os.O_CREAT | os.O_WRONLY)
    size = os.fstat(source).st_size
    os.posix_fallocate(new, 0, size)
    for start in range(0, size, BUFFER):
        count = os.preadv(source, [buffer], start)
        for at in range(0, count, PIECE):
            os.pwrite(new, buffer[at : min(at + PIECE, count)], start + at)
        os.posix_fadvise(new, start, count, os.POSIX_FADV_DONTNEED)
    os.fsync(new)
take(base)
began = time.perf_counter()
out.mkdir()
with ThreadPoolExecutor(int(sys.argv[1])) as pool:
    list(pool.map(through, base.glob("*.safetensors")))
print(json.dumps({"seconds": time.perf_counter() - began}))
"""
)


CHECKED = 4
"""One layer in so many is compared; of the others only that nothing else was changed."""


def check(base: Path, out: Path, adapters: list[Path]) -> float:
    """Return which share of the compared elements is not the float64 sum rounded once."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    factors = [load_file(path / "adapter_model.safetensors") for path in adapters]
    places = {}
    for file in out.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            places.update(dict.fromkeys(opened.keys(), file))
    wrong = count = 0
    for file in sorted(base.glob("*.safetensors")):
        for name, weight in load_file(file).items():
            with safe_open(places[name], "pt") as opened:
                after = opened.get_tensor(name)
            key = f"base_model.model.{name.removesuffix('.weight')}.lora_"
            if f"{key}A.weight" not in factors[0]:
                wrong += int((weight != after).sum())
                continue
            if int(name.split(".")[2]) % CHECKED:
                continue
            exact = weight.double()
            for tensors, factor in zip(factors, WEIGHTS, strict=True):
                a, b = tensors[f"{key}A.weight"], tensors[f"{key}B.weight"]
                exact += factor * 2 * (b.double() @ a.double())
            wrong += int((after != exact.bfloat16()).sum())
            count += weight.numel()
    return wrong / count


def prepare(folder: Path, gigabytes: float) -> tuple[Path, Path, list[Path]]:
    """Return base, output and adapters; those that are to be read are made where they are not."""
    base, adapters = folder / "base", [folder / "one", folder / "two"]
    if not base.exists():
        write_base(base, gigabytes)
        for seed, path in enumerate(adapters, 1):
            write_adapter(path, base, seed)
    return base, folder / "out", adapters


def run_size(folder: Path, gigabytes: float, options: argparse.Namespace) -> dict[str, object]:
    """Measure all contenders on one checkpoint, interleaved."""
    base, out, adapters = prepare(folder, gigabytes)
    arguments = [str(value) for value in (options.threads, base, out, *adapters)]
    scripts = {"cp": COPY, "bytes only": THROUGH, "rankloom": RANKLOOM}
    scripts |= others(gigabytes, options)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in scripts}
    wrong: dict[str, float] = {}
    for number in range(options.rounds):
        for name, script in scripts.items():
            if name in OTHERS and number >= options.others_rounds:
                continue
            python = options.mergekit if name == "mergekit" else sys.executable
            runs[name].append(measure(script, arguments, python))
            if number == 0 and name in {"rankloom", *OTHERS}:
                wrong[name] = check(base, out, adapters)
            for path in (out, folder / "out-cache"):
                shutil.rmtree(path, ignore_errors=True)
    if wrong["rankloom"] > 1e-4:
        raise SystemExit(f"rankloom is wrong on {wrong['rankloom']:.2e} of the elements")
    return {
        "bytes": sum(path.stat().st_size for path in base.iterdir()),
        "share of elements that are not the rounded float64 sum": wrong,
        "seconds of rankloom to those of the cp before it": paired(runs["rankloom"], runs["cp"]),
        "the same, once the disk has what cp wrote": paired(
            runs["rankloom"], [{"seconds": run["synced"]} for run in runs["cp"]]
        ),
        "to reading and writing its bytes": paired(runs["rankloom"], runs["bytes only"]),
        **{name: summary(found) for name, found in runs.items()},
    }


OTHERS = {"peft": PEFT, "mergekit": MERGEKIT}


def others(gigabytes: float, options: argparse.Namespace) -> dict[str, str]:
    """Return the scripts of the other programs that this checkpoint is not too large for."""
    if gigabytes > options.others_up_to:
        return {}
    return {name: OTHERS[name] for name in options.others}


def paired(runs: list[dict[str, float]], before: list[dict[str, float]]) -> float:
    """Return the median of the ratios of neighbours."""
    ratios = [one["seconds"] / two["seconds"] for one, two in zip(runs, before, strict=True)]
    return round(statistics.median(ratios), 3)


def summary(runs: list[dict[str, float]]) -> dict[str, object]:
    """Median and spread of several runs."""
    keys = runs[0].keys()
    return {key: Timing.of([run[key] for run in runs]) for key in keys}


def main() -> None:
    """Measure, print and keep the result as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[2, 6], help="GB of checkpoint")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--others-up-to", type=float, default=2, help="GB up to which others run too"
    )
    parser.add_argument("--others-rounds", type=int, default=1)
    parser.add_argument("--others", nargs="*", choices=OTHERS, default=["peft"])
    parser.add_argument(
        "--mergekit", default=sys.executable, help="a Python that has it (no constraint of ours)"
    )
    parser.add_argument("--folder", type=Path, help="keeps bases and adapters for the next time")
    parser.add_argument("--name", default="apply_checkpoint", help="of the result")
    options = parser.parse_args()
    results: dict[str, object] = {
        "threads": options.threads,
        "rounds": options.rounds,
        "load average of the machine before": os.getloadavg(),
    }
    for gigabytes in options.sizes:
        with tempfile.TemporaryDirectory() as made:
            folder = options.folder / f"{gigabytes:g}" if options.folder else Path(made)
            folder.mkdir(parents=True, exist_ok=True)
            results[f"{gigabytes:g} GB"] = run_size(folder, gigabytes, options)
    print(write(options.name, results, ("torch", "peft", "transformers")).read_text())


if __name__ == "__main__":
    main()
