"""Adapters and bases made by hand, with the float64 truth of what they are."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from rankloom.adapter.reader import read
from rankloom.digest import of_json
from rankloom.fingerprint import Fingerprint
from rankloom.recipe.part import Part

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LLAMA = {
    f"model.layers.{layer}.{name}": shape
    for layer in range(2)
    for name, shape in {
        "self_attn.q_proj": (48, 32),
        "self_attn.v_proj": (16, 32),
        "mlp.down_proj": (32, 80),
    }.items()
}
"""Modules of a small model with their (out, in)."""


@dataclass
class Case:
    """One adapter to be written."""

    shapes: Mapping[str, tuple[int, int]] = field(default_factory=lambda: LLAMA)
    rank: int = 4
    alpha: float = 8
    rslora: bool = False
    dtype: torch.dtype = torch.float32
    seed: int = 0
    ranks: Mapping[str, int] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        """Write it as PEFT would."""
        generator = torch.Generator().manual_seed(self.seed)
        tensors = {}
        for module, (out, in_) in self.shapes.items():
            rank = self.ranks.get(module, self.rank)
            a = torch.randn(rank, in_, generator=generator) * 0.05
            b = torch.randn(out, rank, generator=generator) * 0.05
            tensors[f"base_model.model.{module}.lora_A.weight"] = a.to(self.dtype)
            tensors[f"base_model.model.{module}.lora_B.weight"] = b.to(self.dtype)
        path.mkdir(parents=True)
        save_file(tensors, path / "adapter_model.safetensors", {"format": "pt"})
        config = {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.alpha,
            "use_rslora": self.rslora,
            "rank_pattern": dict(self.ranks),
            "target_modules": sorted({module.rpartition(".")[2] for module in self.shapes}),
            "base_model_name_or_path": "org/base",
            "task_type": "CAUSAL_LM",
        }
        (path / "adapter_config.json").write_text(json.dumps(config))
        return path


def deltas(path: Path, weight: float = 1.0) -> dict[str, torch.Tensor]:
    """Read a PEFT folder's deltas in float64 as the formula says, without rankloom."""
    config = json.loads((path / "adapter_config.json").read_text())
    tensors = load_file(path / "adapter_model.safetensors")
    found = {}
    for key, a in tensors.items():
        if ".lora_A." not in key:
            continue
        b = tensors[key.replace(".lora_A.", ".lora_B.")]
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        alpha, rank = config["lora_alpha"], a.shape[0]
        alpha = config.get("alpha_pattern", {}).get(_pattern(module), alpha)
        scale = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
        found[module] = weight * scale * (b.double() @ a.double())
    return found


def _pattern(module: str) -> str:
    return "^" + module.replace(".", r"\.")


def total(*parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add deltas module by module."""
    result: dict[str, torch.Tensor] = {}
    for part in parts:
        for module, delta in part.items():
            result[module] = result[module] + delta if module in result else delta
    return result


def part(path: Path, label: str = "", base: Fingerprint | None = None) -> Part:
    """Read a folder as a part of a composition."""
    adapter = read(path)
    return Part(adapter, of_json(str(path.name)), label or path.name, base)


def fingerprint(name: str, **levels: str) -> Fingerprint:
    """A made-up base's fingerprint: ``struct`` and the given levels, named by any text."""
    return Fingerprint(
        struct=of_json(name), **{level: of_json(text) for level, text in levels.items()}
    )


def write_base(
    path: Path,
    dtype: torch.dtype = torch.bfloat16,
    *,
    shards: int = 2,
    shapes: Mapping[str, tuple[int, int]] = LLAMA,
    **config: Any,  # noqa: ANN401 - JSON
) -> dict[str, torch.Tensor]:
    """Write a sharded checkpoint with the modules of ``shapes`` and some that nothing targets."""
    generator = torch.Generator().manual_seed(99)
    tensors = {
        f"{module}.weight": (torch.randn(shape, generator=generator) * 0.02).to(dtype)
        for module, shape in shapes.items()
    }
    tensors["model.embed_tokens.weight"] = torch.randn(64, 32, generator=generator).to(dtype)
    tensors["model.norm.weight"] = torch.ones(32, dtype=torch.float32)
    tensors["model.steps"] = torch.arange(3)
    path.mkdir(parents=True)
    names = sorted(tensors)
    places = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        here = {name: tensors[name] for name in names[number::shards]}
        save_file(here, path / file, {"format": "pt"})
        places |= dict.fromkeys(here, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    values = {"model_type": "llama", "torch_dtype": str(dtype).removeprefix("torch."), **config}
    (path / "config.json").write_text(json.dumps(values))
    (path / "tokenizer.json").write_text("{}")
    return tensors


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, by the safetensors library."""
    found = {}
    for file in sorted(path.glob("*.safetensors")):
        found |= load_file(file)
    return found
