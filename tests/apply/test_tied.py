"""Tied embeddings, resized vocabularies and new heads, judged by PEFT's model before merging."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from lowrank_cases import part, read_checkpoint
from peft_cases import apply, save_model, write
from rankloom.composition import compose
from rankloom.errors import IncompatibleError

if TYPE_CHECKING:
    from pathlib import Path

    from peft_cases import Written

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 50}
TOKENS = torch.arange(20)[None]
CASES: dict[str, dict[str, Any]] = {
    "embedding": {"target_modules": ["embed_tokens"]},
    "head": {"target_modules": ["lm_head"]},
    "both": {"target_modules": ["lm_head", "embed_tokens"]},
    "saved embedding": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "saved head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [1, 7]},
}


def llama(**options: Any) -> LlamaForCausalLM:  # noqa: ANN401 - of LlamaConfig
    torch.manual_seed(0)
    config = LlamaConfig(**SMALL, intermediate_size=48, **{"tie_word_embeddings": True, **options})
    return LlamaForCausalLM(config)


def seq_cls(module: str) -> LoraConfig:
    return LoraConfig(r=4, target_modules=[module], task_type="SEQ_CLS")


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:  # noqa: ANN401 - PEFT's or transformers' model
    return model.eval()(TOKENS).logits


def loads(kind: Any, folder: Path, **options: Any) -> PreTrainedModel:  # noqa: ANN401
    """Load a checkpoint in which nothing is missing and nothing is too much."""
    model, info = kind.from_pretrained(folder, output_loading_info=True, **options)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model


def same(written: Written, folder: Path, kind: Any = AutoModelForCausalLM) -> None:  # noqa: ANN401
    expected = logits(written.model)
    # A tiny float32 model: some hundred roundings of 2^-24 of the largest logit.
    bound = 1e-5 * expected.abs().max()
    assert (logits(loads(kind, folder)) - expected).abs().max() <= bound


@pytest.mark.parametrize("size", ["50GB", "10KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("case", CASES)
def test_each_tied_module_has_its_own_change(tmp_path: Path, case: str, size: str) -> None:
    written = write(tmp_path, llama(), LoraConfig(r=4, **CASES[case]), max_shard_size=size)
    found = apply(written, tmp_path / "out")
    same(written, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert ("lm_head.weight" in found) == (case != "tokens")
    assert config["tie_word_embeddings"] == (case == "tokens")
    if size != "50GB":
        index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
        assert index["weight_map"].keys() == found.keys()
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())


def test_untied_bases_stay_as_they_are(tmp_path: Path) -> None:
    model = llama(tie_word_embeddings=False)
    written = write(tmp_path, model, LoraConfig(r=4, target_modules=["embed_tokens"]))
    found = apply(written, tmp_path / "out")
    same(written, tmp_path / "out")
    assert torch.equal(found["lm_head.weight"], written.before["lm_head.weight"])
    one, two = (tmp_path / name / "config.json" for name in ("base", "out"))
    assert one.read_bytes() == two.read_bytes()


def test_what_else_the_flag_ties_gets_its_own_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**SMALL, intermediate_size=48))
    config = LoraConfig(r=4, target_modules=["word_embeddings"])
    written = write(tmp_path, model, config)
    found = apply(written, tmp_path / "out")
    same(written, tmp_path / "out", AutoModelForMaskedLM)
    new = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    assert found.keys() - written.before.keys() == new


def test_compositions_of_tied_changes(tmp_path: Path) -> None:
    folders = {}
    for number, case in enumerate(["embedding", "head", "tokens"]):
        config = LoraConfig(r=4, **CASES[case])
        folders[case] = write(tmp_path / case, llama(), config, seed=number)
        folders[case].adapter = folders[case].adapter.rename(tmp_path / f"{case} adapter")
    adapters = [written.adapter for written in folders.values()]
    base_folder, out = folders["head"].base, tmp_path / "out"
    found = apply(base_folder, out, *adapters, weights=[0.5, -1, 1])
    alone = {case: apply(written, tmp_path / case / "out") for case, written in folders.items()}
    base = read_checkpoint(base_folder)["model.embed_tokens.weight"].double()
    tokens = alone["tokens"]["model.embed_tokens.weight"].double() - base
    embedding = alone["embedding"]["model.embed_tokens.weight"].double() - base
    head = alone["head"]["lm_head.weight"].double() - base
    for name, exact in {
        "model.embed_tokens.weight": base + 0.5 * embedding + tokens,
        "lm_head.weight": base - head + tokens,
    }.items():
        assert (found[name].double() - exact).abs().max() < 1e-6  # two roundings of values below 4


def grown(tmp_path: Path, **options: Any) -> Written:  # noqa: ANN401
    """An adapter that was trained after the vocabulary was resized, and the base before."""
    model = llama(**options)
    save_model(model, tmp_path / "small")
    model.resize_token_embeddings(57, mean_resizing=False)
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    written = write(tmp_path, model, config)
    written.base = tmp_path / "small"
    return written


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("size", [57, 43])
def test_a_vocabulary_of_another_size(tmp_path: Path, size: int, *, tied: bool) -> None:
    model = llama(tie_word_embeddings=tied)
    save_model(model, tmp_path / "small")
    model.resize_token_embeddings(size, mean_resizing=False)
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    written = write(tmp_path, model, config)
    found = apply(tmp_path / "small", tmp_path / "out", written.adapter)
    assert found["model.embed_tokens.weight"].shape == (size, 32)
    same(written, tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["vocab_size"] == size


def test_half_a_resized_vocabulary_is_refused(tmp_path: Path) -> None:
    model = llama(tie_word_embeddings=False)
    save_model(model, tmp_path / "small")
    model.resize_token_embeddings(57, mean_resizing=False)
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    written = write(tmp_path, model, config)
    with pytest.raises(IncompatibleError, match=r"BASE002 .*embed_tokens.*57.*lm_head"):
        apply(tmp_path / "small", tmp_path / "out", written.adapter)


def test_new_rows_have_no_weight_but_one(tmp_path: Path) -> None:
    written = grown(tmp_path, tie_word_embeddings=False)
    with pytest.raises(IncompatibleError, match=r"BASE002 .*\(50, 32\).*\(57, 32\)"):
        apply(written, tmp_path / "out", weights=[0.5])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "BASE001|MRG004")
        twice = compose([part(written.adapter), part(written.adapter, "b")], [0.25, 0.75])
        twice.apply_to(written.base, tmp_path / "twice")
    alone = apply(written, tmp_path / "alone")
    found = read_checkpoint(tmp_path / "twice")
    assert torch.equal(found["lm_head.weight"], alone["lm_head.weight"])


@pytest.mark.parametrize("labels", [2, 3])
def test_a_head_that_the_base_does_not_have(tmp_path: Path, labels: int) -> None:
    base = llama(tie_word_embeddings=False)
    save_model(base, tmp_path / "lm")
    model = LlamaForSequenceClassification.from_pretrained(
        tmp_path / "lm", num_labels=labels, pad_token_id=0
    )
    written = write(tmp_path, model, seq_cls("q_proj"))
    found = apply(tmp_path / "lm", tmp_path / "out", written.adapter)
    assert found["score.weight"].shape == (labels, 32)
    merged, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True, pad_token_id=0
    )
    assert not info["missing_keys"]
    assert info["unexpected_keys"] == {"lm_head.weight"}  # as of the base itself
    expected = logits(written.model)
    assert (logits(merged) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_head_beside_a_backbone_without_prefix(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(**SMALL, intermediate_size=48, num_labels=3)
    model = BertForSequenceClassification(config)
    save_model(model.bert, tmp_path / "backbone")
    written = write(tmp_path, model, seq_cls("query"))
    apply(tmp_path / "backbone", tmp_path / "out", written.adapter)
    merged = loads(AutoModelForSequenceClassification, tmp_path / "out")
    expected = logits(written.model)
    assert (logits(merged) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_head_with_another_weight_is_refused(tmp_path: Path) -> None:
    base = llama(tie_word_embeddings=False)
    save_model(base, tmp_path / "lm")
    model = LlamaForSequenceClassification.from_pretrained(tmp_path / "lm", pad_token_id=0)
    written = write(tmp_path, model, seq_cls("q_proj"))
    with pytest.raises(IncompatibleError, match=r"TEN005 .*score\.weight"):
        apply(tmp_path / "lm", tmp_path / "out", written.adapter, weights=[0.5])


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
        {"target_modules": ["q_proj"], "trainable_token_indices": [3, 51, 56]},
    ],
    ids=["factors", "DoRA", "tokens"],
)
def test_a_grown_embedding_that_is_adapted_besides(tmp_path: Path, options: dict[str, Any]) -> None:
    model = llama()
    save_model(model, tmp_path / "small")
    model.resize_token_embeddings(57, mean_resizing=False)
    written = write(tmp_path, model, LoraConfig(r=4, **options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT says that it saves the embedding
        written.model.save_pretrained(written.adapter, save_embedding_layers=True)
    apply(tmp_path / "small", tmp_path / "out", written.adapter)
    same(written, tmp_path / "out")
