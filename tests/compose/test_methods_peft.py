"""Methods on what PEFT wrote: experts, embeddings, convolutions, kinds without factors."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import LoHaConfig, LoraConfig
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GptOssConfig, GptOssForCausalLM

from lowrank_cases import part, read_checkpoint
from peft_cases import write
from rankloom.composition import Composition, compose
from rankloom.errors import UnsupportedAdapterError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peft import PeftConfig

pytestmark = pytest.mark.filterwarnings("ignore:BASE001")
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def gpt_oss() -> nn.Module:
    """A model whose experts are one stack in memory and on disk."""
    config = GptOssConfig(
        hidden_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=30,
        num_hidden_layers=1,
        intermediate_size=24,
        num_local_experts=3,
        head_dim=8,
    )
    return GptOssForCausalLM(config)


def gpt2() -> nn.Module:
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=30, n_positions=8)
    return GPT2LMHeadModel(config)


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.plane = nn.Embedding(20, 12), nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def two(
    folder: Path, build: Callable[[], nn.Module], config: Callable[[], PeftConfig]
) -> tuple[Path, list[Path]]:
    """Write a float64 base and two adapters of ranks 2 and 3."""
    adapters = []
    for seed in (1, 2):
        torch.manual_seed(0)
        one = config()
        one.r = 1 + seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = write(
                folder / str(seed), build(), one, seed=seed, size=0.3, dtype=torch.float64
            )
        adapters.append(written.adapter.rename(folder / f"adapter-{seed}"))
    return folder / "1/base", adapters


def added(base: Path, composition: Composition, out: Path) -> dict[str, torch.Tensor]:
    """What a composition adds to each tensor of a base."""
    composition.apply_to(base, out)
    before, after = read_checkpoint(base), read_checkpoint(out)
    return {
        key: after[key] - before[key] for key in before if not torch.equal(before[key], after[key])
    }


def slerp(x: torch.Tensor, y: torch.Tensor, t: float) -> torch.Tensor:
    angle = torch.acos((x * y).sum() / (x.norm() * y.norm()))
    return (torch.sin((1 - t) * angle) * x + torch.sin(t * angle) * y) / torch.sin(angle)


def trimmed_sum(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """magnitude_prune of density 0.5, literally."""
    kept = []
    for delta in (x, y):
        limit = delta.abs().flatten().sort(descending=True).values[delta.numel() // 2 - 1]
        kept.append(torch.where(delta.abs() >= limit, delta, 0.0))
    return kept[0] + kept[1]


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], PeftConfig]]] = {
    "experts": (gpt_oss, lambda: LoraConfig(target_parameters=list(EXPERTS))),
    "(in, out)": (gpt2, lambda: LoraConfig(target_modules=["c_attn", "c_proj"])),
    "embedding": (Table, lambda: LoraConfig(target_modules=["table"])),
}
METHODS: dict[str, tuple[dict[str, Any], Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
    "slerp": ({"t": 0.3}, lambda x, y: slerp(x, y, 0.3)),
    "magnitude_prune": ({"density": 0.5}, trimmed_sum),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_each_matrix_is_combined_by_itself(tmp_path: Path, name: str, method: str) -> None:
    """Of a stack of experts each; stored in either orientation."""
    base, folders = two(tmp_path, *CASES[name])
    parts = [part(folder) for folder in folders]
    one, other = (
        added(base, compose([item]), tmp_path / f"alone {n}") for n, item in enumerate(parts)
    )
    parameters, dense = METHODS[method]
    composition = compose(parts, method=method, parameters=parameters)
    found = added(base, composition, tmp_path / "out")
    assert found.keys() == one.keys()
    for key, delta in found.items():
        matrices = zip(
            *(
                values.flatten(0, -3) if values.ndim > 2 else values[None]
                for values in (delta, one[key], other[key])
            ),
            strict=True,
        )
        for mine, x, y in matrices:
            # Elements of the tile engine are float32, of grids of 24 bits.
            assert (mine - dense(x, y)).abs().max() <= 1e-6 * x.abs().max(), key


@pytest.mark.parametrize("rank", [2, "auto", "energy=0.9"])
@pytest.mark.parametrize("name", CASES)
def test_a_rank_for_every_form_is_saved_and_read_again(
    tmp_path: Path, name: str, rank: object
) -> None:
    base, folders = two(tmp_path, *CASES[name])
    composition = compose([part(folder) for folder in folders], [1, -0.5], rank=rank)
    found = added(base, composition, tmp_path / "out")
    saved = composition.save(tmp_path / "saved")
    again = added(base, compose([part(saved)]), tmp_path / "again")
    exact = added(base, compose([part(f) for f in folders], [1, -0.5]), tmp_path / "exact")
    for key, delta in found.items():
        assert (again[key] - delta).abs().max() <= 1e-6 * delta.abs().max()
    missing = sum(float((exact[key] - found[key]).square().sum()) for key in exact)
    norm = sum(float(delta.square().sum()) for delta in exact.values())
    assert composition.errors.total.missing**2 == pytest.approx(missing, abs=1e-9)
    assert composition.errors.total.norm**2 == pytest.approx(norm)


def test_kinds_without_factors_are_refused_by_name_and_summed(tmp_path: Path) -> None:
    base, folders = two(tmp_path, gpt_oss, lambda: LoHaConfig(target_modules=["q_proj"]))
    parts = [part(folder) for folder in folders]
    message = r"slerp combines factors, and what .* does to .*q_proj.weight \(loha\) has none"
    with pytest.raises(UnsupportedAdapterError, match=message) as caught:
        compose(parts, method="slerp", parameters={"t": 0.5})
    assert "exact" in caught.value.hint
    mean = added(base, compose(parts, method="linear"), tmp_path / "mean")
    half = added(base, compose(parts, [0.5, 0.5]), tmp_path / "half")
    ranked = compose(parts, [0.5, 0.5], rank=1)  # what has no factors stays as it is
    assert not ranked.errors
    assert all(torch.equal(mean[key], half[key]) for key in half)


def test_a_convolution_is_no_matrix(tmp_path: Path) -> None:
    _, folders = two(tmp_path, Table, lambda: LoraConfig(target_modules=["plane"]))
    with pytest.raises(UnsupportedAdapterError, match="lora"):
        compose([part(folder) for folder in folders], method="nuslerp")
