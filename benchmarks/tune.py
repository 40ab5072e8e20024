"""What a trial of a search for weights costs besides its evaluation, on 1 GB of bfloat16.

Two adapters of rank 16 on all seven matrices of eight layers of Llama's shapes. Nothing is timed
before a trial was compared with the float64 sum, and the base with its own bits.

    python benchmarks/tune.py --threads 2
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from rankloom import sdk
from report import Timing, write

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROBE = "model.layers.3.mlp.up_proj"


def main() -> None:
    """Check, measure, print and keep the result as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--trials", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RANKLOOM_HOME"] = f"{folder}/home"
        os.environ.pop("RANKLOOM_URL", None)
        results = measure(Path(folder), options.trials)
    results |= {"threads": options.threads, "load while measuring": os.getloadavg()}
    print(write("tune", results, packages=("torch", "transformers", "cmaes")).read_text())


def measure(folder: Path, trials: int) -> dict[str, Any]:
    """Time trials that evaluate nothing, and compositions that keep nothing between them."""
    model, adapters = make(folder)
    before = digest(model)
    started = time.perf_counter()
    seen: list[tuple[float, torch.Tensor]] = []

    def evaluate(found: nn.Module) -> float:
        weight = found.get_submodule(PROBE).weight
        seen.append((time.perf_counter() - started, weight[:8].detach().clone()))
        return float(-len(seen))

    tuned = sdk.tune(adapters, evaluate=evaluate, model=model, trials=trials)
    if digest(model) != before:
        sys.exit("the base has not its own bits again")
    check(model, adapters, tuned.trials[-1].weights, seen[-1][1])
    ends = [moment for moment, _ in seen]
    steps = [late - early for early, late in zip(ends[-trials:], ends[-trials + 1 :], strict=False)]
    return {
        "parameters": sum(one.numel() for one in model.parameters()),
        "base alone, each adapter alone, first composition": ends[3],
        "a trial more": Timing.of(steps),
        "applying without what is kept": Timing.of(repeated(lambda: apply(adapters, model))),
    }


def make(folder: Path) -> tuple[nn.Module, list[Path]]:
    """Return a random model that lies in a folder, too, and two adapters that fit it."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=8,
        num_attention_heads=16,
        num_key_value_heads=16,
        vocab_size=16000,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder / "base")
    names = []
    lora = LoraConfig(r=16, target_modules=MODULES, init_lora_weights=False)
    for name in ("one", "two"):
        wrapped = get_peft_model(model, lora)
        wrapped.save_pretrained(folder / name)
        model = wrapped.unload()
        names.append(folder / name)
    return model.eval(), names


def check(
    model: nn.Module, adapters: list[Path], weights: tuple[float, ...], found: torch.Tensor
) -> None:
    """Stop if some rows of a trial are not the float64 sum, rounded once."""
    exact = model.get_submodule(PROBE).weight[:8].detach().double()
    for folder, weight in zip(adapters, weights, strict=True):
        tensors = load_file(folder / "adapter_model.safetensors")
        b, a = (tensors[f"base_model.model.{PROBE}.lora_{leaf}.weight"].double() for leaf in "BA")
        exact = exact + weight * 8 / 16 * (b[:8] @ a)
    wrong = (found != exact.to(found.dtype)).double().mean().item()
    if wrong > 1e-3:  # float32 sums on the way: a tie may fall to the other side
        sys.exit(f"{wrong:.2%} of the elements of a trial are not the exact sum")


def digest(model: nn.Module) -> str:
    """Return the digest of all parameters."""
    found = hashlib.sha256()
    for tensor in model.state_dict().values():
        found.update(tensor.view(torch.int16).numpy())
    return found.hexdigest()


def apply(adapters: list[Path], model: nn.Module) -> None:
    """Compose anew, and apply and restore once."""
    with sdk.compose(adapters, [0.5, 0.7]).apply(model):
        pass


def repeated(step: Callable[[], None], rounds: int = 5) -> list[float]:
    """Return the seconds of each round."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
