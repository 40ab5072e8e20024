"""Everything that a LoRA adapter can hold: against PEFT in float64, and against the formula."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft.tuners.lora.config import BdLoraConfig, KasaConfig, MontecloraConfig, VeloraConfig

from lora_cases import Case, applied, changed, difference, write
from rankloom.change.kinds import FACTORS, FORMULAS
from rankloom.errors import IncompatibleError

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = ["emb", "lin", "nobias", "gpt", "line", "conv", "point", "cube"]
WEIGHTS = {f"{name}.weight" for name in LAYERS}
HEAD = {
    *("head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias"),
}

Options = dict[str, Any]
PATTERNS: Options = {"rank_pattern": {"lin": 3, "emb": 1}, "alpha_pattern": {"conv": 7, "emb": 5}}
BIASES = {f"{name}.bias" for name in ("lin", "line", "conv", "point", "cube")}
ALL_BIASES = BIASES | {"gpt.bias", "grouped.bias", "norm.bias", "mha.out_proj.bias"}

CASES: dict[str, tuple[Options, set[str]]] = {
    "every layer": ({"target_modules": LAYERS}, WEIGHTS),
    "rslora and patterns": ({"target_modules": LAYERS, "use_rslora": True, **PATTERNS}, WEIGHTS),
    "dora": ({"target_modules": LAYERS, "use_dora": True, **PATTERNS}, WEIGHTS),
    "lora_bias": (
        {"target_modules": ["lin", "conv", "gpt"], "lora_bias": True, "use_rslora": True},
        {f"{name}.{part}" for name in ("lin", "conv", "gpt") for part in ("weight", "bias")},
    ),
    "bias lora_only": (
        {"target_modules": ["lin", "conv"], "bias": "lora_only"},
        {"lin.weight", "lin.bias", "conv.weight", "conv.bias"},
    ),
    "bias all": (
        {"target_modules": ["lin", "mha"], "bias": "all", "modules_to_save": ["head"]},
        {"lin.weight", "mha.in_proj_weight", "mha.out_proj.weight"} | ALL_BIASES | HEAD,
    ),
    "bias all with dora": (
        {"target_modules": ["lin"], "bias": "all", "use_dora": True},
        {"lin.weight", "head.0.bias", "head.1.bias"} | ALL_BIASES,
    ),
    "modules_to_save": (
        {"target_modules": ["lin"], "modules_to_save": ["head", "norm", "emb"]},
        {"lin.weight", "norm.weight", "norm.bias", "emb.weight"} | HEAD,
    ),
    "attention": ({"target_modules": ["mha"]}, {"mha.in_proj_weight", "mha.out_proj.weight"}),
    "attention with patterns": (
        {"target_modules": ["mha"], "rank_pattern": {"mha": 3}, "alpha_pattern": {"mha": 5}},
        {"mha.in_proj_weight", "mha.out_proj.weight"},
    ),
    "tokens": (
        {"target_modules": ["lin"], "trainable_token_indices": {"emb": [5, 1]}},
        {"lin.weight", "emb.weight"},
    ),
    "experts": (
        {
            "target_modules": ["lin"],
            "target_parameters": ["experts.down_proj", "experts.gate_up_proj"],
            "rank_pattern": {"experts.down_proj": 1, "gate_up_proj": 3},
            "alpha_pattern": {"experts.gate_up_proj": 5},
        },
        {"lin.weight", "experts.gate_up_proj", "experts.down_proj"},
    ),
    "one parameter of experts": (
        {"target_modules": [], "target_parameters": ["down_proj"]},
        {"experts.down_proj"},
    ),
    "transposed experts and a matrix": (
        {"target_modules": [], "target_parameters": ["turned.gate_up_proj", "router.weight"]},
        {"turned.gate_up_proj", "router.weight"},
    ),
    "every layer and a parameter by its name": (
        {
            "target_modules": "all-linear",
            "exclude_modules": ["mha.out_proj"],
            "target_parameters": ["down_proj"],
        },
        {f"{name}.weight" for name in ("lin", "nobias", "gpt", "head.0")} | {"experts.down_proj"},
    ),
    "velora": (
        {"target_modules": ["lin"], "velora_config": VeloraConfig(num_groups=2)},
        {"lin.weight"},
    ),
    "monteclora": (
        {
            "target_modules": ["lin"],
            "monteclora_config": MontecloraConfig(num_samples=2, buffer_size=2),
        },
        {"lin.weight"},
    ),
    "orthogonal": (
        {"target_modules": ["lin"], "init_lora_weights": "orthogonal"},
        {"lin.weight"},
    ),
    "bdlora": (
        {
            "target_modules": ["lin", "nobias", "gpt"],
            "r": 4,
            "use_bdlora": BdLoraConfig(
                target_modules_bd_a=["lin"],
                target_modules_bd_b=["nobias"],
                nblocks=2,
                match_strict=False,
            ),
        },
        {"lin.weight", "nobias.weight", "gpt.weight"},
    ),
}


@pytest.mark.parametrize(("options", "names"), CASES.values(), ids=CASES)
def test_the_result_is_the_one_that_peft_merges(
    options: Options, names: set[str], tmp_path: Path
) -> None:
    case = write(tmp_path, **options)
    found = applied(case)
    assert changed(found, case.state) == names
    # Both compute in float64; values are of the order of 1.
    assert difference(found, case.merged()) < 1e-13


DECOMPOSED: dict[str, Options] = {
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora", "use_rslora": True},
    "kasa": {"kasa_config": KasaConfig()},
    "mica": {"init_lora_weights": "mica"},
}


@pytest.mark.parametrize("options", DECOMPOSED.values(), ids=DECOMPOSED)
def test_what_was_taken_off_the_base_is_what_peft_takes_off(
    options: Options, tmp_path: Path
) -> None:
    case = write(tmp_path, dtype=torch.float32, target_modules=["lin", "nobias"], **options)
    found, exact = applied(case), case.merged()
    assert changed(found, case.state) == {"lin.weight", "nobias.weight"}
    # PEFT decomposes in float32; the base without it would be off by 0.1.
    assert difference(found, exact) < 2e-6


# --- the formulas, written once more --------------------------------------------------------------


def scaled(case: Case, module: str, scale: float = 1.5) -> torch.Tensor:
    """s·B·A of a module, from the file; alpha 3 and rank 2 unless said otherwise."""
    tensors = case.tensors
    a, b = tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"]
    return scale * torch.einsum("or,r...->o...", b.flatten(1), a)


def test_convolutions_add_what_two_convolutions_in_a_row_compute(tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=["conv"])
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    tensors = case.tensors
    inner = torch.nn.functional.conv2d(x, tensors["conv.lora_A.weight"])
    wanted = 1.5 * torch.nn.functional.conv2d(inner, tensors["conv.lora_B.weight"])
    delta = applied(case)["conv.weight"] - case.state["conv.weight"]
    assert (torch.nn.functional.conv2d(x, delta) - wanted).abs().max() < 1e-12


def test_embeddings_add_the_transposed_product(tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=["emb"])
    a, b = case.tensors["emb.lora_embedding_A"], case.tensors["emb.lora_embedding_B"]
    wanted = case.state["emb.weight"] + 1.5 * (b @ a).T
    assert torch.allclose(applied(case)["emb.weight"], wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("module", ["lin", "conv"])
def test_dora_gives_every_output_its_length(module: str, tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=[module], use_dora=True)
    found = applied(case)[f"{module}.weight"]
    lengths = case.tensors[f"{module}.lora_magnitude_vector"].flatten()
    assert torch.allclose(found.flatten(1).norm(dim=1), lengths, rtol=0, atol=1e-13)
    direction = case.state[f"{module}.weight"] + scaled(case, module)
    cosine = torch.nn.functional.cosine_similarity(found.flatten(1), direction.flatten(1))
    assert torch.allclose(cosine, torch.ones_like(cosine), rtol=0, atol=1e-13)


def test_dora_gives_every_column_of_an_embedding_its_length(tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=["emb"], use_dora=True)
    found = applied(case)["emb.weight"]
    lengths = case.tensors["emb.lora_magnitude_vector"]
    assert torch.allclose(found.norm(dim=0), lengths, rtol=0, atol=1e-13)


def test_biases_of_b_are_scaled(tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=["lin"], lora_bias=True)
    wanted = case.state["lin.bias"] + 1.5 * case.tensors["lin.lora_B.bias"]
    assert torch.allclose(applied(case)["lin.bias"], wanted, rtol=0, atol=1e-14)


def test_kasa_keeps_the_largest_singular_values(tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=["lin"], kasa_config=KasaConfig())
    tensors = case.tensors
    diagonal = torch.diag(tensors["lin.lora_diag"])
    added = 1.5 * tensors["lin.lora_B.weight"] @ diagonal @ tensors["lin.lora_A.weight"]
    kept = applied(case)["lin.weight"] - added
    before = torch.linalg.svdvals(case.state["lin.weight"])
    # The decomposition is PEFT's, in float32.
    assert torch.allclose(torch.linalg.svdvals(kept)[:2], before[:2], rtol=0, atol=1e-6)
    assert torch.linalg.matrix_rank(kept, atol=1e-6) == 2


def test_pissa_takes_the_best_approximation_of_its_rank(tmp_path: Path) -> None:
    case = write(tmp_path, dtype=torch.float32, target_modules=["lin"], init_lora_weights="pissa")
    rest = applied(case)["lin.weight"] - scaled(case, "lin")
    before = torch.linalg.svdvals(case.state["lin.weight"])
    # The decomposition is PEFT's, in float32.
    assert torch.allclose(torch.linalg.svdvals(rest)[:2], before[2:4], rtol=0, atol=1e-6)
    assert torch.linalg.matrix_rank(rest, atol=1e-6) == 2


def test_olora_takes_the_scaled_projection_on_the_first_columns(tmp_path: Path) -> None:
    case = write(tmp_path, dtype=torch.float32, target_modules=["lin"], init_lora_weights="olora")
    weight = case.state["lin.weight"]
    rest = applied(case)["lin.weight"] - scaled(case, "lin")
    first = weight[:, :2]
    projection = first @ torch.linalg.solve(first.T @ first, first.T @ weight)
    assert torch.allclose(rest, weight - 1.5 * projection, rtol=0, atol=1e-12)


def test_a_mixture_of_experts_in_the_order_of_the_file(tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=[], target_parameters=["experts.down_proj"])
    a = case.tensors["experts.lora_A.weight"].view(3, 2, 5)
    b = case.tensors["experts.lora_B.weight"].view(4, 2, 3)
    found = applied(case)["experts.down_proj"]
    for expert in range(3):
        wanted = case.state["experts.down_proj"][expert] + 1.5 * b[:, :, expert] @ a[expert]
        assert torch.allclose(found[expert], wanted, rtol=0, atol=1e-14)


def test_attention_is_what_peft_computes_without_merging(tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=["mha"], lora_bias=True)
    before, found = case.state, applied(case)
    case.base.load_state_dict(found)
    x = torch.randn(3, 1, 4, dtype=torch.float64)
    with torch.no_grad():
        wanted = case.model.base_model.model.mha(x, x, x)[0]
        assert torch.allclose(case.base.mha(x, x, x)[0], wanted, rtol=0, atol=1e-13)
    out = "mha.base_layer.out_proj"
    twice = 2 * scaled(case, out)
    delta = found["mha.out_proj.weight"] - before["mha.out_proj.weight"]
    assert torch.allclose(delta, twice, rtol=0, atol=1e-14)
    assert torch.equal(found["mha.in_proj_bias"], before["mha.in_proj_bias"])


def test_rows_of_tokens_are_replaced_to_the_bit(tmp_path: Path) -> None:
    case = write(tmp_path, target_modules=["lin"], trainable_token_indices={"emb": [5, 1]})
    found = applied(case)["emb.weight"]
    rows = case.tensors["emb.token_adapter.trainable_tokens_delta"]
    assert torch.equal(found[[5, 1]], rows)
    others = [0, 2, 3, 4, 6, 7, 8]
    assert torch.equal(found[others], case.state["emb.weight"][others])


@pytest.mark.parametrize("case_name", ["every layer", "lora_bias", "tokens", "dora", "bdlora"])
def test_a_weight_multiplies_the_whole_change(case_name: str, tmp_path: Path) -> None:
    case = write(tmp_path, **CASES[case_name][0])
    before, once, thrice = case.state, applied(case), applied(case, weight=-3)
    expected = {name: before[name] - 3 * (once[name] - before[name]) for name in before}
    assert difference(thrice, expected) < 1e-12


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("bdlora", {"scale": 1.5, "side": "a", "blocks": 2}),
        ("bdlora", {"scale": -0.5, "side": "b", "blocks": 2}),
        ("lora_conv", {"scale": 0.25}),
    ],
)
def test_factors_are_those_of_the_formula(kind: str, options: Options) -> None:
    a, b = torch.randn(4, 3, 2).double(), torch.randn(6, 4, 1).double()
    if kind == "bdlora":
        a, b = (a[:, :, 0], b[:, :2, 0]) if options["side"] == "b" else (a[:, :2, 0], b[:, :, 0])
    delta = FORMULAS[kind]({"a": a, "b": b}, options, torch.empty(0))
    terms = FACTORS[kind]({"a": a, "b": b}, options)
    total = sum(term.coefficient * term.b @ term.a for term in terms)
    assert torch.allclose(total, delta.flatten(1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["pissa", "kasa", "olora"])
def test_a_base_that_does_not_determine_what_was_taken_off_is_refused(kind: str) -> None:
    weight = torch.eye(6, dtype=torch.float64)
    weight[:, 1] = weight[:, 0]  # singular values √2, 1, 1, 1, 1, 0
    tensors = {"a": torch.ones(2, 6).double(), "b": torch.ones(6, 2).double()}
    tensors["diagonal"] = torch.ones(2).double()
    with pytest.raises(IncompatibleError, match="CFG010"):
        FORMULAS[kind](tensors, {"scale": 1.0, "truncates": True}, weight)


@pytest.mark.parametrize("kind", ["dora", "dora_embedding", "kasa", "pissa", "olora"])
def test_a_base_of_another_shape_is_refused(kind: str) -> None:
    tensors = {"a": torch.ones(2, 6).double(), "b": torch.ones(5, 2).double()}
    tensors |= {"diagonal": torch.ones(2).double(), "magnitude": torch.ones(5).double()}
    with pytest.raises(IncompatibleError, match="BASE002"):
        FORMULAS[kind](tensors, {"scale": 1.0, "truncates": True}, torch.ones(7, 6).double())
