"""What a LoRA adapter's folder holds besides plain factors: read, or refused by name."""

from __future__ import annotations

import copy
import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from folders import PREFIX, adapter, factors, tensor
from lora_cases import Case, applied, by_name, config_of, difference, write
from peft_cases import edit_config, randomise
from rankloom.adapter import reader
from rankloom.adapter.change import Replacement, Rows
from rankloom.errors import AdapterError, UnsupportedAdapterError
from rankloom.finding import Finding, Severity
from rankloom.validate import validate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Options = dict[str, Any]


def refusal(folder: Path) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        reader.read(folder)
    return caught.value


def errors(found: tuple[Finding, ...]) -> set[str]:
    return {finding.rule for finding in found if finding.severity is Severity.ERROR}


def rewrite(
    case: Case, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    """Write the tensors of an adapter again, changed."""
    path = case.folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)


def renamed(case: Case, *pairs: tuple[str, str]) -> None:
    """Replace parts of the keys."""

    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for old, new in pairs:
            tensors = {key.replace(old, new): value for key, value in tensors.items()}
        return tensors

    rewrite(case, change)


# --- forms of other versions ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "pairs"),
    [
        (
            {"target_modules": ["lin", "emb", "conv"], "use_dora": True},
            [("lora_magnitude_vector", "lora_magnitude_vector.weight")],
        ),
        (
            {"target_modules": ["lin"], "modules_to_save": ["head"]},
            [("head.", "head.modules_to_save.default.")],
        ),
        (
            {"target_modules": ["lin"], "modules_to_save": ["norm"]},
            [("norm.", "norm.modules_to_save.")],
        ),
        ({"target_modules": ["lin"], "bias": "lora_only"}, [(".base_layer.bias", ".bias")]),
    ],
    ids=["dora", "modules_to_save", "modules_to_save without a name", "bias"],
)
def test_keys_of_older_versions_mean_the_same(
    options: Options, pairs: list[tuple[str, str]], tmp_path: Path
) -> None:
    case = write(tmp_path, **options)
    renamed(case, *pairs)
    assert difference(applied(case), case.merged()) < 1e-13


def test_the_adapters_name_does_not_matter(tmp_path: Path) -> None:
    options = {"target_modules": ["lin"], "modules_to_save": ["head"], "bias": "all"}
    case = write(tmp_path, adapter_name="other", **options)
    assert difference(applied(case), case.merged()) < 1e-13


def test_values_of_the_base_itself_are_never_put_in(tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=["lin"], modules_to_save=["head"], bias="all")
    rewrite(
        case,
        lambda tensors: {
            key: value
            for key, value in tensors.items()
            if "head" not in key or "original_module" in key
        },
    )
    assert not [name for name in by_name(case.folder) if name.startswith("head")]


@pytest.mark.parametrize("value", ["all-linear", None])
def test_parameters_are_told_from_layers_by_their_shape_if_need_be(
    value: str | None, tmp_path: Path
) -> None:
    case = write(tmp_path, target_modules=["lin"], target_parameters=["down_proj"])
    edit_config(case.folder, target_modules=value)
    assert by_name(case.folder).keys() == {"lin.weight", "experts.down_proj"}


def test_a_folder_of_adapters_says_where_they_are(tmp_path: Path) -> None:
    write(tmp_path, adapter_name="other", target_modules=["lin"])
    error = refusal(tmp_path)
    assert "other" in error.message
    assert "give its path" in str([finding.fix for finding in error.findings])


# --- what is left out says so ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"modules_to_save": ["head"], "bias": "all"}, "repeat"),
        ({"velora_config": peft.tuners.lora.config.VeloraConfig(num_groups=2)}, "velora_embed"),
    ],
)
def test_nothing_is_left_out_silently(options: Options, word: str, tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=["lin"], **options)
    found = reader.read(case.folder)
    told = [finding.message for finding in found.findings]
    assert any(word in message for message in told)
    read = {target.name for target in found.targets}
    for key in case.tensors:
        assert any(part in key for part in ("lora_", "modules_to_save", "original_module")) or (
            key.replace(".base_layer", "") in read or any(key in message for message in told)
        )


# --- refused by name ------------------------------------------------------------------------------

LIN: Options = {"target_modules": ["lin"]}


def without(part: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda tensors: {key: value for key, value in tensors.items() if part not in key}


def with_shape(part: str, *shape: int) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda tensors: {
        key: torch.ones(shape).double() if part in key else value for key, value in tensors.items()
    }


BROKEN: list[tuple[str, Options, Callable[[dict[str, torch.Tensor]], Any]]] = [
    ("TEN002", {"target_modules": ["emb"]}, without("embedding_B")),
    ("TEN004", {"target_modules": ["emb"]}, with_shape("embedding_A", 3, 9)),
    ("TEN004", {"target_modules": ["conv"]}, with_shape("lora_A", 3, 3, 3, 3)),
    ("TEN009", {"target_modules": ["conv"]}, with_shape("lora_B", 4, 2, 3, 1)),
    ("CFG007", {"target_modules": ["lin", "conv"], "use_dora": True}, without("lin.lora_mag")),
    ("TEN003", {**LIN, "use_dora": True}, with_shape("magnitude", 4)),
    ("TEN002", {"target_modules": ["lin", "conv"], "lora_bias": True}, without("lin.lora_B.bias")),
    ("TEN003", {**LIN, "lora_bias": True}, with_shape("lora_B.bias", 6, 1)),
    ("TEN002", {**LIN, "kasa_config": peft.tuners.lora.config.KasaConfig()}, without("lora_diag")),
    ("TEN003", {**LIN, "trainable_token_indices": {"emb": [1]}}, with_shape("tokens_delta", 2, 4)),
    ("CFG007", {**LIN, "trainable_token_indices": {"emb": [1]}}, without("tokens_delta")),
    ("TEN002", {"target_modules": ["mha"]}, without("mha.lora_")),
    (
        "TEN004",
        {"target_modules": [], "target_parameters": ["experts.down_proj"]},
        with_shape("lora_A", 5, 5),
    ),
    (
        "TEN009",
        {
            **LIN,
            "use_bdlora": peft.tuners.lora.config.BdLoraConfig(
                target_modules_bd_a=["lin"], nblocks=2
            ),
        },
        with_shape("lora_B", 6, 1),
    ),
]


@pytest.mark.parametrize(("rule", "options", "change"), BROKEN, ids=range(len(BROKEN)))
def test_each_broken_tensor_gets_its_rule(
    rule: str, options: Options, change: Callable[[Any], Any], tmp_path: Path
) -> None:
    case = write(tmp_path, **options)
    rewrite(case, change)
    assert errors(refusal(case.folder).findings) == {rule}


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ("CFG001", {"bias": "some"}),
        ("CFG001", {"modules_to_save": "head"}),
        ("CFG001", {"trainable_token_indices": [1, 1]}),
        ("CFG001", {"trainable_token_indices": {"emb": [-1]}}),
        ("CFG001", {"target_parameters": "experts.down_proj"}),
        ("CFG001", {"use_bdlora": {"nblocks": 0}}),
        ("CFG001", {"use_bdlora": {"blocks": 2}}),
        ("CFG009", {"layer_replication": [[0, 2], [1, 2]]}),
        ("CFG012", {"alora_invocation_tokens": [1]}),
        ("CFG012", {"arrow_config": {"top_k": 2}}),
        ("CFG012", {"use_qalora": True, "qalora_group_size": 1}),
        ("CFG012", {"enable_lora": [True, False, True]}),
        ("CFG010", {"init_lora_weights": "olora", "fan_in_fan_out": True}),
        ("CFG010", {"init_lora_weights": "pissa", "target_parameters": ["q_proj.weight"]}),
    ],
    ids=str,
)
def test_options_that_cannot_be_applied_are_refused_with_the_next_step(
    rule: str, fields: Options, tmp_path: Path
) -> None:
    error = refusal(adapter(tmp_path / "a", **fields))
    assert errors(error.findings) == {rule}
    assert isinstance(error, UnsupportedAdapterError) == (rule != "CFG001")
    assert any(name in error.message for name in fields)
    assert error.hint


def test_qalora_means_the_shape_that_its_factors_have(tmp_path: Path) -> None:
    """On a quantised layer A has a column for each group, so that no unquantised base fits it."""
    targets, plain = (
        reader.read(adapter(tmp_path / name, **options)).targets
        for name, options in (("a", {"use_qalora": True}), ("b", {}))
    )
    assert [one.change.shape for one in targets] == [one.change.shape for one in plain]


def test_a_grouped_convolution_says_why(tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=["grouped"])
    error = refusal(case.folder)
    assert isinstance(error, UnsupportedAdapterError)
    assert "2 groups" in error.message


@pytest.mark.parametrize(
    "key", ["norm.weight", "lin.bias", "head.0.weight", "q_proj.lora_C.weight", "lin.lora_diag"]
)
def test_tensors_that_the_config_does_not_explain_are_refused(key: str, tmp_path: Path) -> None:
    tensors = {**factors(), PREFIX + key: tensor(np.zeros((2, 2), np.float32))}
    error = refusal(adapter(tmp_path / "a", tensors))
    assert errors(error.findings) == {"TEN009"}
    assert key in error.message


@pytest.mark.parametrize("names", [["head", "body"], ["classifier", "head"]])
def test_saved_modules_without_tensors_are_a_warning(names: list[str], tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=["lin"], modules_to_save=["head"])
    edit_config(case.folder, modules_to_save=names)
    found = reader.read(case.folder).findings
    warned = [f.message for f in found if f.severity is Severity.WARNING]
    assert [message for message in warned if "body" in message] == warned
    assert bool(warned) == ("body" in names)


def test_biases_that_an_older_version_lost_are_a_warning(tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=["lin"], bias="lora_only")
    rewrite(case, without("bias"))
    found = reader.read(case.folder).findings
    assert [(f.rule, f.severity) for f in found] == [("CFG007", Severity.WARNING)]


def test_parameters_whose_order_nothing_tells_are_left_to_the_base(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second = torch.nn.Parameter(torch.randn(6, 4))
            self.first = torch.nn.Parameter(torch.randn(5, 3))

    def net() -> torch.nn.Module:
        return torch.nn.ModuleDict({"pair": Two()})

    names = ["pair.first", "pair.second"]
    case = write(tmp_path, net=net, target_modules=[], target_parameters=names)
    targets = [target for found in by_name(case.folder).values() for target in found]
    assert {(t.module, t.parameter) for t in targets} == {("pair", "")}
    assert {t.candidates for t in targets} == {("first", "second"), ("second", "first")}
    edit_config(case.folder, alpha_pattern={"first": 9})
    error = refusal(case.folder)
    assert "first or second" in error.message


# --- config and tensors name the same modules -----------------------------------------------------

COVERED: dict[str, Options] = {
    "saved": {"target_modules": ["lin"], "modules_to_save": ["head"]},
    "saved and targeted": {"target_modules": ["lin", "norm"], "modules_to_save": ["norm", "head"]},
    "biases": {"target_modules": ["lin"], "bias": "all"},
    "tokens": {"target_modules": ["lin"], "trainable_token_indices": {"emb": [1]}},
    "attention": {"target_modules": ["mha"]},
    "attention by an expression": {"target_modules": "mha|lin", "lora_bias": True},
    "parameters": {"target_modules": ["lin"], "target_parameters": ["experts.down_proj"]},
    "parameters only": {"target_modules": [], "target_parameters": ["experts.down_proj"]},
    "all layers": {"target_modules": "all-linear", "target_parameters": ["down_proj"]},
    "excluded": {"target_modules": ["lin", "conv"], "exclude_modules": ["conv"]},
    "dora": {"target_modules": ["lin", "emb", "conv"], "use_dora": True},
}


@pytest.mark.parametrize("options", COVERED.values(), ids=COVERED)
def test_modules_that_target_modules_need_not_name_are_no_error(
    options: Options, tmp_path: Path
) -> None:
    case = write(tmp_path, **options)
    report = validate(case.folder)
    assert {found.rule for found in report.errors} <= {"BASE001", "TEN007"}  # no name, float64


# --- embeddings of a transformers model -----------------------------------------------------------


def llama(*, tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=16, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def save(folder: Path, *, tied: bool, resize: int | None = None, **options: Any) -> Path:  # noqa: ANN401
    """Save an adapter of a model that lies on disk, so that PEFT sees whether its size changed."""
    llama(tied=tied).save_pretrained(folder / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LlamaForCausalLM.from_pretrained(folder / "base")
        if resize:
            model.resize_token_embeddings(resize)
        config = peft.LoraConfig(r=2, lora_alpha=3, **options)
        wrapped = peft.get_peft_model(model, config)
        randomise(wrapped)
        wrapped.save_pretrained(folder / "adapter")
    edit_config(folder / "adapter", base_model_name_or_path="acme/tiny")
    return folder / "adapter"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("resize", [None, 20])
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["embed_tokens", "lm_head"], "use_dora": True},
        {"target_modules": ["q_proj"], "trainable_token_indices": [3, 1]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
        {
            "target_modules": ["q_proj"],
            "modules_to_save": ["lm_head"],
            "ensure_weight_tying": True,
        },
    ],
    ids=str,
)
def test_every_way_to_train_an_embedding_is_read(
    options: Options, resize: int | None, *, tied: bool, tmp_path: Path
) -> None:
    if not tied and options.get("ensure_weight_tying"):
        options = {**options, "ensure_weight_tying": False}
    folder = save(tmp_path, tied=tied, resize=resize, **copy.deepcopy(options))
    report = validate(folder)
    assert not errors(report.findings), report.findings
    targets = by_name(folder)
    for key, value in load_file(folder / "adapter_model.safetensors").items():
        if key.endswith(".weight") and "lora_" not in key and "original" not in key:
            name = key.removeprefix(PREFIX).replace(".base_layer", "")
            name = name.replace(".token_adapter", "").replace(".modules_to_save", "")
            replaced = [t.change for t in targets[name] if isinstance(t.change, Replacement)]
            assert [change.shape for change in replaced] == [tuple(value.shape)]
    if "trainable_token_indices" in options:
        [target] = targets["model.embed_tokens.weight"]
        rows = target.change.rows if isinstance(target.change, Replacement) else target.change
        assert isinstance(rows, Rows)
        assert rows.indices == (3, 1)
    assert json.dumps(config_of(folder))


def test_factors_of_any_dtype_are_read(tmp_path: Path) -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        case = write(tmp_path / str(dtype), target_modules=["lin", "emb"])
        rewrite(case, lambda tensors, to=dtype: {k: v.to(to) for k, v in tensors.items()})
        assert len(reader.read(case.folder).targets) == 2
    rewrite(case, lambda tensors: {k: v.to(torch.float8_e4m3fn) for k, v in tensors.items()})
    assert errors(refusal(case.folder).findings) == {"TEN007"}
