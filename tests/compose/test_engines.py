"""A saved composition is the same change to every engine, whatever of the config it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from transformers import MixtralConfig, MixtralForCausalLM

from engine_rules import VLLM_RANKS, plain, vllm
from lowrank_cases import LLAMA, Case, deltas, part, total
from peft_cases import apply, merged_by_peft, write
from rankloom.composition import compose

if TYPE_CHECKING:
    from pathlib import Path

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ranks=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    alphas=st.lists(st.integers(1, 64), min_size=3, max_size=3),
    own=st.integers(1, 40),
    rslora=st.booleans(),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
)
def test_all_engines_add_the_sum(
    tmp_path_factory: pytest.TempPathFactory,
    ranks: list[int],
    alphas: list[int],
    own: int,
    rslora: bool,
    dtype: torch.dtype,
) -> None:
    folder = tmp_path_factory.mktemp("case")
    shapes = [{Q: (5, 7), DOWN: (3, 2)}, {DOWN: (3, 2)}, LLAMA]
    paths = [
        Case(dict(shapes[i]), rank, alphas[i], rslora and i == 0, dtype, i, {Q: own}).write(
            folder / str(i)
        )
        for i, rank in enumerate(ranks[:2])
    ]
    saved = compose([part(path) for path in paths], [1.5, -0.5][: len(paths)]).save(folder / "out")
    terms = [deltas(path, weight) for path, weight in zip(paths, [1.5, -0.5], strict=False)]
    largest = max(ranks[0] + (ranks[1] if ranks[1:] else 0), own)
    served = vllm(saved, max_lora_rank=min(rank for rank in VLLM_RANKS if rank >= largest))
    for found in (served, plain(saved)):
        for module, delta in total(*terms).items():
            # The terms may cancel, so the bound is of their magnitudes: roundings of 2^-24.
            bound = 1e-6 * sum(term[module].abs().max() for term in terms if module in term)
            assert (found[module] - delta).abs().max() <= bound


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT warns of what the second leaves alone
def test_experts_of_different_ranks_are_kept(tmp_path: Path) -> None:
    """Which parameter has which rank only the base tells; of one rank they need not be told."""
    size = {"hidden_size": 32, "num_attention_heads": 4, "vocab_size": 50, "intermediate_size": 24}
    both, found, parts, base = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], [], [], None
    for seed, names in enumerate([both, both[:1]]):
        torch.manual_seed(0)
        model = MixtralForCausalLM(
            MixtralConfig(**size, num_hidden_layers=1, num_local_experts=3, num_key_value_heads=2)
        )
        config = LoraConfig(r=2 + seed, target_modules=["q_proj"], target_parameters=names)
        written = write(tmp_path / str(seed), model, config, seed=seed)
        parts.append(written.adapter)
        base, before = written.base, written.before
        found.append(merged_by_peft(written, tmp_path / f"exact{seed}"))
    saved = compose([part(path) for path in parts], [1.5, -0.5]).save(tmp_path / "saved")
    assert base is not None
    merged = apply(base, tmp_path / "out", saved)
    for key, first in found[0].items():
        wanted = before[key] + 1.5 * (first - before[key]) - 0.5 * (found[1][key] - before[key])
        # One rounding to float32 of each coefficient·B and of the sum.
        assert (merged[key].double() - wanted).abs().max() <= 2e-6 + 2e-6 * wanted.abs().max(), key
