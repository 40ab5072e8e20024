"""Kinds with a delta of their own, against PEFT's merge in float64 and against closed forms."""

from __future__ import annotations

import copy
import math
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import PeftModel, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from peft_cases import edit_config, randomise
from rankloom.adapter.change import Computed, Rows
from rankloom.adapter.reader import inspect, read
from rankloom.change.kinds import FACTORS, FORMULAS
from rankloom.change.read import read_doubles
from rankloom.errors import AdapterError, IncompatibleError, UnsupportedAdapterError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from peft import PeftConfig

    from rankloom.adapter.change import Target

EXACT = 1e-12
"""Sums of some dozen terms of size one in float64, in another order."""

FLOAT = 2e-6
"""Where PEFT itself computes in float32 although the model is in float64."""

MATRICES = ("wide", "tall", "square")
KERNELS = ("line", "plane", "grouped", "point")


class Layers(nn.Module):
    """One layer of each sort and shape; it is never run."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(16, 8)
        self.tall = nn.Linear(8, 24, bias=False)
        self.square = nn.Linear(24, 24)
        self.gpt = Conv1D(24, 16)
        self.line = nn.Conv1d(4, 6, 3)
        self.plane = nn.Conv2d(4, 6, 3)
        self.grouped = nn.Conv2d(4, 6, (3, 2), groups=2)
        self.point = nn.Conv2d(4, 6, 1)
        self.rows = nn.Embedding(10, 6)
        self.odd = nn.Linear(7, 5)


def config(kind: str, targets: Iterable[str], **options: Any) -> PeftConfig:  # noqa: ANN401
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cls = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]
        made: PeftConfig = cls(target_modules=list(targets), **options)
    return made


def write(folder: Path, settings: PeftConfig) -> tuple[nn.Module, nn.Module]:
    """Write a random adapter; return its base and what PEFT makes of the files, in float64.

    The files are the oracle's input too: PEFT trains things that it does not save (AdaLoRA's
    ``ranknum``), and finds others anew from the base.
    """
    torch.manual_seed(0)
    base = Layers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(copy.deepcopy(base), settings)
        randomise(model, size=0.3)
        model.save_pretrained(folder)
        edit_config(folder, auto_mapping=None)  # it names this test, which no loader should import
        loaded = PeftModel.from_pretrained(copy.deepcopy(base), folder)
        return base.double(), loaded.double().merge_and_unload()


def delta(base: nn.Module, target: Target) -> torch.Tensor:
    """Return what a target adds to its parameter, as the module keeps it."""
    module = base.get_submodule(target.module)
    weight = getattr(module, target.parameter).detach()
    flip = isinstance(module, Conv1D) and weight.ndim == 2
    weight = weight.T if flip else weight
    change = target.change
    if isinstance(change, Rows):
        found = torch.zeros_like(weight)
        rows = torch.tensor(change.indices)
        found[rows] = read_doubles(change.value) - weight[rows]
        return found
    assert isinstance(change, Computed)
    assert change.shape in {None, tuple(weight.shape)}
    tensors = {name: read_doubles(entry) for name, entry in change.tensors.items()}
    if not change.needs_base:  # then only the shape may matter
        weight = torch.full_like(weight, math.nan)
    found = FORMULAS[change.kind](tensors, change.options, weight)
    assert found.dtype == torch.float64
    return found.T if flip else found


def check(folder: Path, settings: PeftConfig, tolerance: float = EXACT) -> None:
    """Every parameter is what PEFT makes of it, and all that PEFT changes are changed."""
    base, merged = write(folder, settings)
    found, wanted = dict(base.state_dict()), merged.state_dict()
    before = dict(found)
    for target in read(folder).targets:
        found[target.name] = before[target.name] + delta(base, target)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        error = (found[name] - tensor).abs().max()
        assert error <= tolerance, f"{name}: off by {error}"
        touched = not torch.equal(before[name], found[name])
        assert touched == (not torch.equal(before[name], tensor)), name
    assert any(not torch.equal(before[name], wanted[name]) for name in wanted)


ADALORA: dict[str, Any] = {
    "init_r": 4, "target_r": 2, "total_step": 10, "init_lora_weights": False, "lora_alpha": 6,
}  # fmt: skip
TUCKER = {"use_effective_conv2d": True}
BANK = {"vector_length": 4, "num_vectors": 12, "r": 2}
CASES: list[tuple[str, Iterable[str], dict[str, Any], float]] = [
    ("ADALORA", [*MATRICES, "gpt", "plane"], ADALORA, EXACT),
    ("LOHA", [*MATRICES, *KERNELS], {"r": 2, "alpha": 3}, EXACT),
    ("LOHA", [*MATRICES, *KERNELS], {"r": 2, "alpha": 3, **TUCKER}, EXACT),
    (
        "LOHA",
        MATRICES,
        {"r": 2, "alpha": 3, "rank_pattern": {"wide": 3}, "alpha_pattern": {"tall": 5}},
        EXACT,
    ),
    ("LOKR", [*MATRICES, *KERNELS], {"r": 2, "alpha": 3}, EXACT),
    ("LOKR", [*MATRICES, *KERNELS], {"r": 1, "alpha": 3, "decompose_both": True}, EXACT),
    ("LOKR", MATRICES, {"r": 1, "alpha": 5, "decompose_factor": 2, "decompose_both": True}, EXACT),
    ("LOKR", ["plane", "grouped", "point"], {"r": 1, "alpha": 3, **TUCKER}, EXACT),
    ("LOKR", ["wide", "tall"], {"r": 2, "alpha": 3, "rank_pattern": {"wide": 1}}, EXACT),
    ("VERA", [*MATRICES, "gpt"], {"r": 4}, EXACT),
    ("PVERA", [*MATRICES, "gpt"], {"r": 4}, EXACT),
    ("RANDLORA", [*MATRICES, "gpt"], {"r": 4}, EXACT),
    ("RANDLORA", [*MATRICES, "odd"], {"r": 3, "randlora_alpha": 9, "sparse": True}, EXACT),
    ("VBLORA", [*MATRICES, "gpt"], {**BANK, "topk": 3}, EXACT),
    # PEFT turns the weights back into logits in float32.
    ("VBLORA", MATRICES, {**BANK, "topk": 3, "save_only_topk_weights": True}, FLOAT),
    ("UNILORA", [*MATRICES, "gpt"], {"save_indices": True, "theta_d_length": 40}, EXACT),
    ("TINYLORA", [*MATRICES, "gpt", "rows"], {"weight_tying": 1.0, "u": 5}, EXACT),
    ("TINYLORA", ["wide"], {"u": 5}, EXACT),
    ("TINYLORA", [*MATRICES, "gpt", "rows", "odd"], {"u": 5}, EXACT),
    ("TINYLORA", [*MATRICES, "rows", "odd"], {"u": 5, "weight_tying": 0.5}, EXACT),
    ("TINYLORA", [*MATRICES, "rows"], {"u": 5, "weight_tying": 0.35}, EXACT),  # 2.6 groups
    ("TINYLORA", [*MATRICES, "rows"], {"u": 5, "weight_tying": 0.4, "projection_seed": 3}, EXACT),
    ("DELORA", MATRICES, {"r": 3, "rank_pattern": {"tall": 2}, "init_weights": False}, EXACT),
    ("GRALORA", [*MATRICES, "gpt"], {"r": 4, "alpha": 6, "hybrid_r": 2}, EXACT),
    ("GRALORA", MATRICES, {"r": 8, "gralora_k": 4}, EXACT),
    ("SHIRA", MATRICES, {"r": 1}, EXACT),
    ("C3A", MATRICES, {"block_size": 4, "block_size_pattern": {"square": 8}}, FLOAT),
    ("FOURIERFT", [*MATRICES, "gpt", "odd"], {"n_frequency": 10, "scaling": 7.5}, FLOAT),
    ("FOURIERFT", MATRICES, {"n_frequency": 9, "n_frequency_pattern": {"square": 20}}, FLOAT),
    ("WAVEFT", [*MATRICES, "gpt", "odd"], {"n_frequency": 20}, EXACT),
    ("WAVEFT", MATRICES, {"n_frequency": 9, "use_idwt": False, "random_loc_seed": 3}, EXACT),
    ("WAVEFT", [*MATRICES, "odd"], {"n_frequency": 9, "proportional_parameters": True}, EXACT),
    ("BEFT", ["wide", "square"], {}, EXACT),
    ("SUPERTUNING", MATRICES, {"sparsity": 0.5}, EXACT),
    ("SUPERTUNING", MATRICES, {"sparsity": 0.5, "r": 2, "lora_alpha": 3}, EXACT),
    ("SUPERTUNING", MATRICES, {"sparsity": 0.5, "select_top": False}, EXACT),
    ("DEFT", [*MATRICES, "gpt"], {"r": 4, "alpha": 6}, FLOAT),
    ("DEFT", [*MATRICES, "gpt"], {"r": 4, "decomposition_method": "qr"}, FLOAT),
    ("DEFT", [*MATRICES, "odd"], {"r": 6, "para": True}, FLOAT),
    ("OSF", MATRICES, {"effective_rank": 4, "init_weights": False}, EXACT),
    ("PEANUT", MATRICES, {"r": 4, "depth": 2, "act_fn": "gelu", "scaling": 0.5}, EXACT),
    ("PEANUT", MATRICES, {"r": 4, "act_fn": "tanh"}, EXACT),
    ("FROD", [*MATRICES, "gpt"], {"progressbar": False, "sparse_rate": 0.1}, EXACT),
    ("TRAINABLE_TOKENS", ["rows"], {"token_indices": [7, 0, 3]}, EXACT),
]


@pytest.mark.parametrize(
    ("kind", "targets", "options", "tolerance"),
    CASES,
    ids=[f"{n}-{c[0]}" for n, c in enumerate(CASES)],
)
def test_each_kind_is_what_peft_merges(
    tmp_path: Path, kind: str, targets: Iterable[str], options: dict[str, Any], tolerance: float
) -> None:
    check(tmp_path, config(kind, targets, **options), tolerance)


def test_every_kind_of_this_room_has_a_case() -> None:
    tested = {kind.lower() for kind, *_ in CASES}
    ours = {"adalora", "loha", "lokr", "vera", "pvera", "randlora", "vblora", "unilora", "tinylora"}
    ours |= {"delora", "gralora", "shira", "c3a", "fourierft", "waveft", "beft", "supertuning"}
    assert ours | {"deft", "osf", "peanut", "frod"} <= tested & FORMULAS.keys()


def one(folder: Path, settings: PeftConfig) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the delta of an adapter of one module, and the tensors of its file by last names."""
    base, _ = write(folder, settings)
    (target,) = read(folder).targets
    tensors = load_file(folder / "adapter_model.safetensors")
    names = {key.removeprefix("base_model.model.").partition(".")[2] for key in tensors}
    assert names
    return delta(base, target), {
        key.removeprefix("base_model.").removeprefix("model.wide."): value.double()
        for key, value in tensors.items()
    }


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=EXACT)


def test_adalora_by_the_paper(tmp_path: Path) -> None:
    found, file = one(tmp_path, config("ADALORA", ["wide"], **ADALORA))
    wanted = torch.zeros(8, 16, dtype=torch.float64)
    for singular in range(4):
        outer = torch.outer(file["lora_B"][:, singular], file["lora_A"][singular])
        wanted += 6 / (4 + 1e-5) * file["lora_E"][singular, 0] * outer
    close(found, wanted)


def test_adalora_with_pruned_ranks_keeps_its_first_scale(tmp_path: Path) -> None:
    base, _ = write(tmp_path, config("ADALORA", ["wide", "tall", "square"], **ADALORA))
    path = tmp_path / "adapter_model.safetensors"
    file = load_file(path)
    kept = {"wide": [True, False, True, False], "tall": [False] * 4, "square": [True] * 4}
    for module, mask in kept.items():
        for name in ("lora_A", "lora_E"):
            key = f"base_model.model.{module}.{name}"
            file[key] = file[key][torch.tensor(mask)].contiguous()
        key = f"base_model.model.{module}.lora_B"
        file[key] = file[key][:, torch.tensor(mask)].contiguous()
    save_file(file, path)
    pattern = {f"{module}.lora_E": mask for module, mask in kept.items()}
    edit_config(tmp_path, rank_pattern=pattern)
    for target in read(tmp_path).targets:
        key = f"base_model.model.{target.module}.lora_"
        a, b, e = (file[key + name].double() for name in "ABE")
        close(delta(base, target), 6 / (4 + 1e-5) * b @ torch.diag(e[:, 0]) @ a)


def test_loha_by_the_paper(tmp_path: Path) -> None:
    found, file = one(tmp_path, config("LOHA", ["wide"], r=2, alpha=3))
    wanted = torch.tensor(
        [
            [
                3 / 2 * math.prod(
                    float(file[f"hada_w{n}_a"][i].dot(file[f"hada_w{n}_b"][:, j])) for n in (1, 2)
                )
                for j in range(16)
            ]
            for i in range(8)
        ],
        dtype=torch.float64,
    )  # fmt: skip
    close(found, wanted)


def test_lokr_is_blocks_of_the_second_matrix(tmp_path: Path) -> None:
    found, file = one(tmp_path, config("LOKR", ["wide"], r=4, alpha=3))
    first, second = file["lokr_w1"], file["lokr_w2"]
    rows = [torch.cat([value * second for value in row], dim=1) for row in first]
    close(found, 3 / 4 * torch.cat(rows))


def test_lokr_with_a_core_for_a_kernel_of_one_dimension() -> None:
    """PEFT itself cannot multiply these: torch's product fails on their strides."""
    torch.manual_seed(0)
    shapes = {"lokr_w1": (2, 3), "lokr_t2": (2, 2, 5, 1), "lokr_w2_a": (2, 4), "lokr_w2_b": (2, 6)}
    tensors = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    found = FORMULAS["lokr"](tensors, {"scale": 1.5}, torch.zeros(8, 18, 5))
    wanted = torch.zeros(8, 18, 5, dtype=torch.float64)
    for place in range(5):
        core = tensors["lokr_t2"][:, :, place, 0]
        second = tensors["lokr_w2_a"].T @ core @ tensors["lokr_w2_b"]
        for row in range(8):
            for column in range(18):
                first = tensors["lokr_w1"][row // 4, column // 6]
                wanted[row, column, place] = 1.5 * first * second[row % 4, column % 6]
    close(found, wanted)


def test_vera_by_the_paper(tmp_path: Path) -> None:
    found, file = one(tmp_path, config("VERA", ["wide"], r=4))
    b, d = torch.diag(file["vera_lambda_b"]), torch.diag(file["vera_lambda_d"])
    close(found, b @ file["vera_B"] @ d @ file["vera_A"])


def test_c3a_is_a_circular_correlation(tmp_path: Path) -> None:
    found, file = one(tmp_path, config("C3A", ["wide"], block_size=4))
    kernel, inputs = file["c3a_kernel"], torch.randn(16, dtype=torch.float64)
    wanted = torch.zeros(8, dtype=torch.float64)
    for row in range(2):
        for column in range(4):
            for place in range(4):
                for step in range(4):
                    value = inputs[4 * column + (place + step) % 4]
                    wanted[4 * row + place] += kernel[row, column, step] * value / 16
    close(found @ inputs, wanted)


def test_fourierft_is_a_sum_of_waves(tmp_path: Path) -> None:
    settings = config("FOURIERFT", ["wide"], n_frequency=3, scaling=7.5)
    found, file = one(tmp_path, settings)
    places = torch.randperm(8 * 16, generator=torch.Generator().manual_seed(777))[:3]
    row, column = torch.meshgrid(torch.arange(8.0), torch.arange(16.0), indexing="ij")
    wanted = torch.zeros(8, 16, dtype=torch.float64)
    for place, value in zip(places.tolist(), file["fourierft_spectrum"], strict=True):
        angle = (
            2 * math.pi * (row.double() * (place // 16) / 8 + column.double() * (place % 16) / 16)
        )
        wanted += 7.5 * value * torch.cos(angle) / (8 * 16)
    close(found, wanted)


def test_waveft_keeps_the_length_of_its_coefficients(tmp_path: Path) -> None:
    """Haar's transform is orthogonal, so no sign or place can be lost in it."""
    found, file = one(tmp_path, config("WAVEFT", ["wide"], n_frequency=30, scaling=2.0))
    close(found.norm(), 2 * file["waveft_spectrum"].norm())


def test_delora_has_the_norm_of_its_bound(tmp_path: Path) -> None:
    settings = config("DELORA", ["wide"], r=1, init_weights=False)
    found, file = one(tmp_path, settings)
    wanted = file["delora_lambda"].abs()[0]
    close((found / file["delora_w_norm"]).norm(), wanted)


def test_shira_adds_to_the_named_elements_only(tmp_path: Path) -> None:
    found, file = one(tmp_path, config("SHIRA", ["wide"], r=1))
    rows, columns = file["shira_indices"].long()
    close(found[rows, columns], file["shira_weight"])
    assert int((found != 0).sum()) == 24


def test_gralora_with_one_block_is_lora(tmp_path: Path) -> None:
    found, file = one(tmp_path, config("GRALORA", ["wide"], r=4, alpha=6, gralora_k=1))
    close(found, 6 / 4 * file["gralora_B"][0].T @ file["gralora_A"][0].T)


def test_vblora_mixes_the_best_vectors(tmp_path: Path) -> None:
    found, file = one(tmp_path, config("VBLORA", ["wide"], **BANK, topk=2))
    bank = file["vblora_vector_bank"]

    def mixture(logits: torch.Tensor) -> torch.Tensor:
        best = logits.argsort(descending=True)[:2]
        weights = logits[best].exp() / logits[best].exp().sum()
        return weights @ bank[best]

    a = torch.stack([torch.cat([mixture(t) for t in row]) for row in file["vblora_logits_A"]])
    b = torch.cat(
        [torch.stack([mixture(t) for t in row], dim=1) for row in file["vblora_logits_B"]]
    )
    close(found, b @ a)


@pytest.mark.parametrize(
    ("kind", "targets", "options"),
    [
        ("ADALORA", MATRICES, {"init_r": 4, "target_r": 2, "total_step": 10}),
        ("DELORA", MATRICES, {"r": 3, "init_weights": False}),
        ("GRALORA", MATRICES, {"r": 8, "alpha": 5, "gralora_k": 4}),
        ("GRALORA", MATRICES, {"r": 4, "alpha": 5, "gralora_k": 2, "hybrid_r": 3}),
        ("LOHA", MATRICES, {"r": 3, "alpha": 5}),
        ("LOHA", ["plane", "grouped", "line"], {"r": 2, "alpha": 5, **TUCKER}),
        ("UNILORA", MATRICES, {"save_indices": True}),
        ("VBLORA", MATRICES, BANK),
    ],
)
def test_factors_multiply_to_the_delta(
    tmp_path: Path, kind: str, targets: Iterable[str], options: dict[str, Any]
) -> None:
    base, _ = write(tmp_path, config(kind, targets, **options))
    for target in read(tmp_path).targets:
        change = target.change
        assert isinstance(change, Computed)
        tensors = {name: read_doubles(entry) for name, entry in change.tensors.items()}
        terms = FACTORS[change.kind](tensors, change.options)
        product = sum(term.coefficient * term.b @ term.a for term in terms)
        assert isinstance(product, torch.Tensor)
        close(product, delta(base, target).flatten(1))


def test_waveft_checks_how_many_coefficients_there_are_in_all(tmp_path: Path) -> None:
    options = {"n_frequency": 9, "proportional_parameters": True, "init_weights": False}
    write(tmp_path, config("WAVEFT", [*MATRICES, "odd"], **options))
    assert len(read(tmp_path).targets) == 4
    for wrong in (7, 11):
        edit_config(tmp_path, n_frequency=wrong)
        [finding] = inspect(tmp_path).findings
        assert finding.rule == "TEN003"


REFUSED: list[tuple[str, list[str], dict[str, Any], str]] = [
    ("VERA", ["wide"], {"r": 4, "save_projection": False}, "save_projection=True"),
    ("PVERA", ["wide"], {"r": 4, "save_projection": False}, "save_projection=True"),
    ("RANDLORA", ["wide"], {"r": 4, "save_projection": False}, "save_projection=True"),
    ("TINYLORA", ["wide"], {"save_projection": False}, "save_projection=True"),
    ("UNILORA", ["wide"], {}, "save_indices=True"),
    ("FROD", ["wide"], {"progressbar": False, "save_projection": False}, "save_projection=True"),
    ("SUPERTUNING", ["wide"], {"save_precomputed_indices": False}, "save_precomputed_indices=True"),
    ("WAVEFT", ["wide"], {"n_frequency": 5, "wavelet_family": "db2"}, "merge the adapter"),
    ("PVERA", ["wide"], {"r": 4, "sample_at_inference": True}, "merge the adapter"),
]


@pytest.mark.parametrize(("kind", "targets", "options", "remedy"), REFUSED)
def test_what_the_file_leaves_to_a_seed_is_refused(
    tmp_path: Path, kind: str, targets: list[str], options: dict[str, Any], remedy: str
) -> None:
    write(tmp_path, config(kind, targets, **options))
    with pytest.raises(UnsupportedAdapterError, match="CFG012") as caught:
        read(tmp_path)
    assert remedy in caught.value.hint


def refused(folder: Path, base: nn.Module) -> bool:
    """Tell whether an adapter is refused by its headers, the base's shapes, or its formula."""
    adapter = inspect(folder).adapter
    if adapter is None:
        return True
    for target in adapter.targets:
        weight = getattr(base.get_submodule(target.module), target.parameter)
        change = target.change
        assert isinstance(change, Computed)
        if change.shape not in {None, tuple(weight.shape)}:
            return True
        try:
            delta(base, target)
        except (IncompatibleError, AdapterError):
            return True
    return False


MAY_BE_LARGER = ("base_model.vera_", "base_model.pvera_", "base_model.randlora_")
"""Projections are cut to each layer's size, and PEFT shares them with larger adapters."""


LENGTH_IS_FREE = {("WAVEFT", "proportional_parameters")}
"""Then PEFT computes the number of coefficients from all layers of the base."""


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (kind, options)
        for kind, _, options, _ in CASES
        if kind != "TRAINABLE_TOKENS" and not {(kind, name) for name in options} & LENGTH_IS_FREE
    ],
)
def test_a_lost_or_misshapen_tensor_is_refused(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    """For each tensor: gone, one row more, one column more, an axis more."""
    base, _ = write(tmp_path, config(kind, ["wide"], **options))
    path = tmp_path / "adapter_model.safetensors"
    file = load_file(path)
    assert not refused(tmp_path, base)
    for key, tensor in file.items():
        longer = torch.cat([tensor, tensor[-1:]])
        wider = torch.cat([tensor, tensor[..., -1:]], dim=-1).contiguous()
        grown = () if key.startswith(MAY_BE_LARGER) else (longer, wider)
        for changed in (None, *grown, tensor[None].contiguous()):
            left = {name: value for name, value in file.items() if name != key}
            save_file(left if changed is None else {**left, key: changed}, path)
            shape = "gone" if changed is None else tuple(changed.shape)
            assert refused(tmp_path, base), f"{key} is {shape}"


@pytest.mark.parametrize("kind", sorted({case[0] for case in CASES}))
def test_a_tensor_of_nobody_is_refused(tmp_path: Path, kind: str) -> None:
    _, targets, options, _ = next(case for case in CASES if case[0] == kind)
    write(tmp_path, config(kind, targets, **options))
    path = tmp_path / "adapter_model.safetensors"
    file = load_file(path)
    for key in ("base_model.model.wide.novel", "base_model.novel"):
        save_file({**file, key: torch.zeros(2)}, path)
        with pytest.raises(AdapterError, match=r"TEN009|TEN001"):
            read(tmp_path)


@pytest.mark.parametrize(("kind", "targets", "options", "_tolerance"), CASES[::2])
def test_a_base_of_another_shape_is_refused(
    tmp_path: Path, kind: str, targets: Iterable[str], options: dict[str, Any], _tolerance: float
) -> None:
    write(tmp_path, config(kind, targets, **options))
    for target in read(tmp_path).targets:
        change = target.change
        if isinstance(change, Rows) or change.kind in {"fourierft", "waveft"}:
            continue  # a spectrum fits every shape that is large enough
        assert isinstance(change, Computed)
        tensors = {name: read_doubles(entry) for name, entry in change.tensors.items()}
        strange = torch.zeros(3, 3, dtype=torch.float64)
        with pytest.raises(IncompatibleError, match="BASE002"):
            FORMULAS[change.kind](tensors, change.options, strange)


def test_copies_of_a_projection_that_differ_are_refused(tmp_path: Path) -> None:
    base, _ = write(tmp_path, config("RANDLORA", ["wide"], r=4))
    path = tmp_path / "adapter_model.safetensors"
    file = load_file(path)
    key = "base_model.model.wide.randlora_A"
    assert key in file
    save_file({**file, key: file[key] + 1}, path)
    (target,) = read(tmp_path).targets
    with pytest.raises(AdapterError, match="randlora_A"):
        delta(base, target)


def test_a_vector_of_another_length_than_the_config_says_is_refused(tmp_path: Path) -> None:
    write(tmp_path, config("TINYLORA", ["wide"], u=5))
    edit_config(tmp_path, u=6)
    with pytest.raises(AdapterError, match="TEN003"):
        read(tmp_path)


def test_a_vector_of_an_unknown_module_is_refused(tmp_path: Path) -> None:
    base, _ = write(tmp_path, config("TINYLORA", MATRICES, u=5))
    edit_config(tmp_path, projection_seed=43)  # one module's P then stands at another's number
    found = []
    for target in read(tmp_path).targets:
        try:
            delta(base, target)
        except AdapterError as error:
            found.append(str(error))
    assert len(found) == 1
    assert "tinylora_P" in found[0]
