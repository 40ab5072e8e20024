"""Compositions of every kind as PEFT folders: kept where PEFT has a form, refused where not."""

from __future__ import annotations

import copy
import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import (
    BdLoraConfig,
    DeloraConfig,
    IA3Config,
    LNTuningConfig,
    LoKrConfig,
    LoraConfig,
    PeftModel,
    VBLoRAConfig,
)
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from lowrank_cases import part, read_checkpoint
from peft_cases import apply, merged_by_peft, write
from rankloom.composition import compose
from rankloom.errors import IncompatibleError, UnsupportedAdapterError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peft import PeftConfig

    from peft_cases import Written

SMALL = {"hidden_size": 32, "num_attention_heads": 4, "vocab_size": 50, "num_key_value_heads": 2}
ONE = {"num_hidden_layers": 1, "intermediate_size": 48}


def llama() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**SMALL, **ONE, attention_bias=True))


def mixtral() -> nn.Module:
    return MixtralForCausalLM(MixtralConfig(**SMALL, **ONE, num_local_experts=4))


def gpt_oss() -> nn.Module:
    return GptOssForCausalLM(GptOssConfig(**SMALL, **ONE, num_local_experts=4, head_dim=8))


def gpt2() -> nn.Module:
    config = GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=50, n_positions=32)
    return GPT2LMHeadModel(config)


class Normed(nn.Module):
    """One linear layer, and a norm that has run, so that its counter is not 0."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 4), nn.BatchNorm1d(4)
        self(torch.randn(3, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.norm(self.linear(x))
        return found


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.planes, self.line = nn.Conv2d(3, 8, 3), nn.Conv1d(4, 6, 1)
        self.linear, self.table, self.norm = nn.Linear(8, 5), nn.Embedding(11, 6), nn.LayerNorm(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def lora(*modules: str, **options: Any) -> Callable[[], LoraConfig]:  # noqa: ANN401
    return lambda: LoraConfig(r=4, target_modules=list(modules), **options)


EXPERTS = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
KEPT: dict[str, tuple[Callable[[], nn.Module], Callable[[], PeftConfig]]] = {
    "layers and embedding": (llama, lora("embed_tokens", "q_proj")),
    "(in, out)": (gpt2, lora("c_attn", "c_proj")),
    "experts": (mixtral, lora("q_proj", **EXPERTS)),
    "experts (in, out)": (gpt_oss, lora(**EXPERTS)),
    "convolutions": (Plain, lora("planes", "line", "linear", "table")),
    "saved modules": (llama, lora("q_proj", modules_to_save=["lm_head", "input_layernorm"])),
    "a batch norm and its counter": (Normed, lora("linear", modules_to_save=["norm"])),
    "biases": (llama, lora("q_proj", bias="all")),
    "tokens": (llama, lora("q_proj", trainable_token_indices=[1, 7])),
    "DeLoRA": (llama, lambda: DeloraConfig(r=4, target_modules=["q_proj"])),
    "VB-LoRA": (
        llama,
        lambda: VBLoRAConfig(r=2, num_vectors=8, vector_length=8, target_modules=["q_proj"]),
    ),
    "BD-LoRA": (
        llama,
        lora("q_proj", "o_proj", use_bdlora=BdLoraConfig(["q_proj"], ["o_proj"], nblocks=2)),
    ),
}
REFUSED: dict[str, tuple[Callable[[], PeftConfig], str]] = {
    "DoRA": (lora("q_proj", use_dora=True), r"q_proj\.weight: dora is no product"),
    "bias of B": (lora("q_proj", lora_bias=True), r"q_proj\.bias: it is no module's weight"),
    "(IA)³": (lambda: IA3Config(target_modules=["q_proj"], feedforward_modules=[]), "q_proj"),
    "norms": (lambda: LNTuningConfig(target_modules=["norm"]), "only replaces modules"),
    "LoKr": (lambda: LoKrConfig(r=4, target_modules=["q_proj"]), "lokr is no product"),
}


def case(folder: Path, model: nn.Module, config: PeftConfig, *, seed: int = 0) -> Written:
    written = write(folder, model, config, seed=seed)
    written.adapter = written.adapter.rename(folder / f"adapter-{seed}")
    return written


@pytest.mark.parametrize("name", KEPT)
def test_what_is_saved_is_the_adapter_again(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    build, config = KEPT[name]
    model = build()
    fresh = copy.deepcopy(model)
    written = case(tmp_path, model, config())
    exact = merged_by_peft(written, tmp_path / "exact")
    saved = compose([part(written.adapter)]).save(tmp_path / "saved")
    found = apply(written.base, tmp_path / "out", saved)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of ties and of what it finds missing
        written.model = PeftModel.from_pretrained(fresh.eval(), saved)
    by_peft = merged_by_peft(written, tmp_path / "by peft")
    for key, wanted in exact.items():
        bound = 2e-6 + 2e-6 * wanted.abs().max()
        assert (found[key].double() - wanted).abs().max() <= bound, key
        assert (by_peft[key].double() - wanted).abs().max() <= bound, key
    assert any(not torch.equal(found[key], written.before[key]) for key in found)


@pytest.mark.parametrize("name", ["layers and embedding", "experts", "convolutions", "BD-LoRA"])
def test_two_of_different_ranks_are_saved_as_their_sum(tmp_path: Path, name: str) -> None:
    build, config = KEPT[name]
    parts = []
    for seed in (1, 2):
        torch.manual_seed(0)
        one = config()
        if name != "BD-LoRA":  # its blocks divide the rank
            one.r = 2 + seed
        parts.append(case(tmp_path / str(seed), build(), one, seed=seed))
    adapters, base = [written.adapter for written in parts], parts[0].base
    weights = [1.5, -0.5]  # the embedding's own values, which both have, count once in all
    saved = compose([part(folder) for folder in adapters], weights).save(tmp_path / "saved")
    found = apply(base, tmp_path / "found", saved)
    wanted = apply(base, tmp_path / "wanted", *adapters, weights=weights)
    for key, tensor in wanted.items():
        assert (found[key] - tensor).abs().max() <= 4e-6 * (1 + tensor.abs().max()), key


@pytest.mark.parametrize("name", REFUSED)
def test_what_peft_has_no_form_for_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    config, why = REFUSED[name]
    written = case(tmp_path, llama(), config())
    composition = compose([part(written.adapter)])
    with pytest.raises(UnsupportedAdapterError, match=f"PEFT has no form .*{why}") as caught:
        composition.save(tmp_path / "saved")
    assert "apply" in caught.value.hint
    assert not (tmp_path / "saved").exists()
    apply(written, tmp_path / "out")


def test_values_that_replace_are_saved_with_weight_1_only(tmp_path: Path) -> None:
    written = case(tmp_path, llama(), lora("q_proj", modules_to_save=["lm_head"])())
    for weights in ([0.5], [2]):
        composition = compose([part(written.adapter)], weights)
        with pytest.raises(UnsupportedAdapterError, match=r"lm_head\.weight: .* weight 1"):
            composition.save(tmp_path / f"{weights}")


@pytest.mark.filterwarnings("ignore:MRG004")
def test_an_embeddings_own_values_need_weight_1_or_to_stay_away(tmp_path: Path) -> None:
    build, config = KEPT["layers and embedding"]
    written = case(tmp_path, build(), config())
    whole = part(written.adapter)
    compose([whole] * 10, [0.1] * 10).save(tmp_path / "ten tenths")
    refused = r"embed_tokens\.weight: .* have weight 1.5, .* only weight 1"
    with pytest.raises(UnsupportedAdapterError, match=refused) as caught:
        compose([whole], [1.5]).save(tmp_path / "no")
    assert "save_embedding_layers=False" in caught.value.hint
    assert "loractl apply" in caught.value.hint
    written.model.save_pretrained(tmp_path / "without", save_embedding_layers=False)
    saved = compose([part(tmp_path / "without")], [1.5]).save(tmp_path / "saved")
    found = apply(written.base, tmp_path / "found", saved)
    wanted = apply(written.base, tmp_path / "wanted", written.adapter, weights=[1.5])
    for key, tensor in wanted.items():
        assert (found[key] - tensor).abs().max() <= 4e-6 * (1 + tensor.abs().max()), key


def test_two_that_replace_the_same_are_refused_unless_they_agree(tmp_path: Path) -> None:
    config = {"modules_to_save": ["lm_head"]}
    one, two = (
        case(tmp_path / str(seed), llama(), lora("q_proj", **config)(), seed=seed)
        for seed in (1, 2)
    )
    with pytest.raises(
        IncompatibleError, match=r"MRG005 adapter-1 and adapter-2 .*lm_head\.weight"
    ):
        compose([part(one.adapter), part(two.adapter)])
    compose([part(one.adapter), part(two.adapter)], [1, 0])  # one of them is not there
    other = case(tmp_path / "3", llama(), lora("v_proj")(), seed=3)
    compose([part(one.adapter), part(other.adapter)])


def test_rows_may_meet_where_they_differ(tmp_path: Path) -> None:
    def tokens(seed: int, rows: list[int]) -> Written:
        config = lora("q_proj", trainable_token_indices=rows)()
        return case(tmp_path / str(seed), llama(), config, seed=seed)

    one, two, three = tokens(1, [1, 7]), tokens(2, [7, 8]), tokens(3, [2, 9])
    with pytest.raises(IncompatibleError, match=r"MRG005 .*embed_tokens\.weight"):
        compose([part(one.adapter), part(two.adapter)])
    found = apply(one.base, tmp_path / "out", one.adapter, three.adapter)
    own = {w.adapter: apply(one.base, w.adapter.parent / "out", w.adapter) for w in (one, three)}
    name = "model.embed_tokens.weight"
    assert torch.equal(found[name][[1, 7]], own[one.adapter][name][[1, 7]])
    assert torch.equal(found[name][[2, 9]], own[three.adapter][name][[2, 9]])
    assert torch.equal(found[name][10:], read_checkpoint(one.base)[name][10:])


def test_the_plan_shows_every_kind(tmp_path: Path) -> None:
    configs = {
        "experts": lora("q_proj", **EXPERTS)(),
        "others": lora("v_proj", modules_to_save=["lm_head"], trainable_token_indices=[3])(),
        "dora": lora("k_proj", use_dora=True)(),
    }
    written = [
        case(tmp_path / name, mixtral(), config, seed=seed)
        for seed, (name, config) in enumerate(configs.items())
    ]
    parts = [part(one.adapter, name) for one, name in zip(written, configs, strict=True)]
    text = str(compose(parts[:2], [1, 0.5]).plan)
    assert "mlp.experts.gate_up_proj (4, 96, 32) rank 4: 2·experts (r=4)" in text
    assert "lm_head.weight (50, 32): 0.5·others (saved)" in text
    assert "embed_tokens.weight: 0.5·others (tokens)" in text
    plan = compose(parts[2:]).plan
    assert plan.rank is None
    assert "1·dora (dora)" in str(plan)


def test_factors_in_float64_stay_float64(tmp_path: Path) -> None:
    torch.manual_seed(0)
    written = write(tmp_path, Plain(), lora("linear", "table")(), dtype=torch.float64)
    saved = compose([part(written.adapter)]).save(tmp_path / "saved")
    assert {t.dtype for t in read_checkpoint(saved).values()} == {torch.float64}
    exact = merged_by_peft(written, tmp_path / "exact")
    found = apply(written.base, tmp_path / "out", saved)
    for key, wanted in exact.items():
        assert (found[key] - wanted).abs().max() <= 1e-13, key
    assert json.loads((saved / "adapter_config.json").read_text())["lora_alpha"] == 4
