"""Kinds whose change depends on the base, against PEFT's own merge in float64."""

from __future__ import annotations

import copy
import json
import math
import warnings
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
from peft import get_peft_model
from peft.tuners.boft import layer as boft_layer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from peft_cases import edit_config, randomise
from rankloom.adapter.change import Computed, Replacement
from rankloom.adapter.reader import read
from rankloom.change.kinds import FORMULAS
from rankloom.change.read import read_finite
from rankloom.errors import AdapterError, IncompatibleError, UnsupportedAdapterError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rankloom.adapter.change import Target

WIDE = (1.0, 0.5, -0.25)
"""Sizes of the noise, so that no formula is tested near the identity only."""


class Layers(nn.Module):
    """One layer of each sort; it is never run."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 8)
        self.plain = nn.Linear(8, 12, bias=False)
        self.odd = nn.Linear(10, 6)
        self.gpt = Conv1D(8, 12)
        self.one = nn.Conv2d(8, 12, 1)
        self.conv = nn.Conv2d(4, 6, 3)
        self.grouped = nn.Conv2d(8, 6, 3, groups=2)
        self.line = nn.Conv1d(4, 6, 3)
        self.cube = nn.Conv3d(2, 4, (1, 2, 3))
        self.emb = nn.Embedding(20, 12)
        self.norm = nn.LayerNorm(12)
        self.batch = nn.BatchNorm2d(6)


def write(folder: Path, config: peft.PeftConfig) -> tuple[nn.Module, nn.Module]:
    """Write a random adapter; return its base and what PEFT makes of it, in float64."""
    torch.manual_seed(0)
    base = Layers().double().eval()
    nn.init.normal_(base.gpt.bias)  # zeros would hide what multiplies them
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(copy.deepcopy(base), config).double().eval()
        randomise(model, size=0.3)
        model.save_pretrained(folder)
        edit_config(folder, auto_mapping=None)  # it names this test, which no loader should import
        merged = copy.deepcopy(model).merge_and_unload()
    return base, merged


def applied(base: nn.Module, target: Target) -> torch.Tensor | None:
    """Return W′ as the module keeps it, or ``None`` if the base has no such parameter."""
    module = base.get_submodule(target.module)
    weight = getattr(module, target.parameter)
    change = target.change
    if isinstance(change, Replacement):
        return read_finite(change.value)
    assert isinstance(change, Computed)
    if weight is None:
        assert change.if_present
        return None
    flip = isinstance(module, Conv1D) and target.parameter == "weight"
    weight = weight.detach().T if flip else weight.detach()
    tensors = {name: read_finite(entry).double() for name, entry in change.tensors.items()}
    tensors |= {f"base.{name}": getattr(module, name).detach() for name in change.reads}
    if change.shape is not None:
        assert tuple(weight.shape) == change.shape
    delta = FORMULAS[change.kind](tensors, change.options, weight)
    assert delta.dtype == torch.float64
    return (weight + delta).T if flip else weight + delta


def check(
    folder: Path, config: peft.PeftConfig, changed: set[str], tolerance: float = 1e-12
) -> None:
    """Compare with PEFT; by default as closely as sums of a dozen terms in another order can be."""
    base, merged = write(folder, config)
    before, wanted = base.state_dict(), merged.state_dict()
    found = dict(before)
    for target in read(folder).targets:
        value = applied(base, target)
        if value is not None:
            found[target.name] = value
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance, msg=name)
    assert {name for name in before if not torch.equal(before[name], found[name])} == changed


BOTH = {"linear.weight", "linear.bias"}


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        (
            peft.IA3Config(target_modules=["linear", "plain", "gpt"], feedforward_modules=[]),
            BOTH | {"plain.weight", "gpt.weight", "gpt.bias"},
        ),
        (
            peft.IA3Config(
                target_modules=["linear", "plain", "gpt", "conv", "grouped", "cube"],
                feedforward_modules=["linear", "gpt", "conv", "grouped", "cube"],
            ),
            {f"{name}.weight" for name in ("linear", "plain", "gpt", "conv", "grouped", "cube")},
        ),
        (
            peft.IA3Config(target_modules=["conv", "grouped"], feedforward_modules=[]),
            {f"{name}.{part}" for name in ("conv", "grouped") for part in ("weight", "bias")},
        ),
        (
            peft.IA3Config(target_modules=".*(linear|plain)", feedforward_modules=".*ain"),
            BOTH | {"plain.weight"},
        ),
    ],
)
def test_ia3(tmp_path: Path, config: peft.PeftConfig, changed: set[str]) -> None:
    check(tmp_path, config, changed)


def oft(**options: Any) -> peft.OFTConfig:  # noqa: ANN401 - of PEFT
    size = {} if "r" in options else {"oft_block_size": 4}
    return peft.OFTConfig(
        **{"target_modules": ["linear", "plain", "one", "emb"], **size, **options}
    )


@pytest.mark.parametrize(
    "config",
    [
        oft(),
        oft(use_cayley_neumann=False),
        *[oft(num_cayley_neumann_terms=terms) for terms in (1, 2, 3, 4, 6, 7)],
        oft(block_share=True),
        oft(coft=True, eps=0.5, use_cayley_neumann=False),
        oft(coft=True, eps=0.5, block_share=True),
        oft(r=2, oft_block_size=0),
        oft(oft_block_size=5),
    ],
)
def test_oft(tmp_path: Path, config: peft.OFTConfig) -> None:
    changed = {f"{name}.weight" for name in ("linear", "plain", "one", "emb")}
    tolerance = 1e-7 if config.coft else 1e-12  # PEFT takes √blocks of COFT in float32
    check(tmp_path, config, changed if config.num_cayley_neumann_terms > 1 else set(), tolerance)


def test_oft_of_a_larger_kernel_is_refused(tmp_path: Path) -> None:
    base, _ = write(tmp_path, oft(target_modules=["conv"]))
    with pytest.raises(UnsupportedAdapterError, match="overlapping patches"):
        applied(base, read(tmp_path).targets[0])


@pytest.mark.parametrize("version", ["0.17.1", None])
def test_oft_of_other_series_is_refused(tmp_path: Path, version: str | None) -> None:
    write(tmp_path, oft())
    edit_config(tmp_path, peft_version=version)
    with pytest.raises(UnsupportedAdapterError, match=r"before PEFT 0\.18"):
        read(tmp_path)
    edit_config(tmp_path, use_cayley_neumann=False)
    assert read(tmp_path).targets


def test_oft_of_the_first_parametrisation_is_refused(tmp_path: Path) -> None:
    write(tmp_path, oft())
    path = tmp_path / "adapter_config.json"
    path.write_text(path.read_text().replace('"oft_block_size": 4,', ""))
    with pytest.raises(UnsupportedAdapterError, match="oft_block_size"):
        read(tmp_path)


@pytest.mark.parametrize(
    "options", [{"boft_block_size": 4}, {"boft_block_size": 0, "boft_block_num": 2}]
)
def test_boft(tmp_path: Path, options: dict[str, int]) -> None:
    names = ["linear", "plain", "one", "conv"]
    config = peft.BOFTConfig(target_modules=names, **options)
    check(tmp_path, config, {f"{name}.weight" for name in names})


class BlockDiagonal:
    """What PEFT's CUDA kernel computes, on any device."""

    @staticmethod
    def apply(blocks: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.block_diag(*factor) for factor in blocks])


@pytest.fixture
def _butterflies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(boft_layer, "get_fbd_cuda", lambda: True)
    monkeypatch.setattr(boft_layer, "FastBlockDiag", BlockDiagonal)
    return


@pytest.mark.usefixtures("_butterflies")
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("factors", [2, 3])
def test_boft_of_several_factors(tmp_path: Path, factors: int, size: int) -> None:
    class Wide(Layers):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 6)

    config = peft.BOFTConfig(
        target_modules=["linear"], boft_block_size=size, boft_n_butterfly_factor=factors
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "Layers", Wide)
        check(tmp_path, config, {"linear.weight"})


@pytest.mark.parametrize("gram_schmidt", [False, True])
@pytest.mark.parametrize("rank", [1, 3, 4])
def test_hra(tmp_path: Path, rank: int, *, gram_schmidt: bool) -> None:
    names = ["linear", "plain", "one", "conv"]
    config = peft.HRAConfig(r=rank, apply_GS=gram_schmidt, target_modules=names)
    check(tmp_path, config, {f"{name}.weight" for name in names})


def test_hira(tmp_path: Path) -> None:
    # PEFT cannot merge a convolution over space whose first kernel sizes are 1: `cube` is tested
    # by the definition below.
    names = ["linear", "plain", "gpt", "one", "conv", "line", "emb"]
    config = peft.HiraConfig(r=3, rank_pattern={"plain": 2}, target_modules=names)
    check(tmp_path, config, {f"{name}.weight" for name in names})


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        (
            peft.MissConfig(r=4, target_modules=["linear", "plain", "odd"]),
            ["linear", "plain", "odd"],
        ),
        (
            peft.MissConfig(r=4, init_weights="bat", target_modules=["linear", "plain"]),
            ["linear", "plain"],
        ),
        (
            peft.MissConfig(r=4, init_weights="mini", mini_r=2, target_modules=["linear", "odd"]),
            ["linear", "odd"],
        ),
        (peft.MissConfig(r=2, init_weights=False, target_modules=["linear"]), ["linear"]),
    ],
)
def test_miss(tmp_path: Path, config: peft.MissConfig, changed: list[str]) -> None:
    check(tmp_path, config, {f"{name}.weight" for name in changed})


def test_hra_of_more_directions_than_inputs_is_refused(tmp_path: Path) -> None:
    """Made orthogonal, the last is made of rounding errors, which PEFT reflects at."""
    settings = peft.HRAConfig(r=10, apply_GS=True, target_modules=["plain"])
    base, _ = write(tmp_path, settings)
    [target] = read(tmp_path).targets
    with pytest.raises(AdapterError, match="NUM001"):
        applied(base, target)


@pytest.mark.parametrize("init", [True, "bat"])
def test_bone_is_miss_under_its_first_name(tmp_path: Path, init: Any) -> None:  # noqa: ANN401
    """PEFT 0.14 to 0.17 wrote it, with the same block under another key."""
    settings = peft.MissConfig(target_modules=["plain"], r=4, init_weights=init)
    base, merged = write(tmp_path, settings)
    path = tmp_path / "adapter_model.safetensors"
    file = {key.replace("miss", "bone"): tensor for key, tensor in load_file(path).items()}
    save_file(file, path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    old = {"peft_type": "BONE", "r": 4, "target_modules": ["plain"], "init_weights": init}
    (tmp_path / "adapter_config.json").write_text(json.dumps(old))
    [target] = read(tmp_path).targets
    assert (target.module, target.kind) == ("plain", "bone")
    torch.testing.assert_close(applied(base, target), merged.plain.weight, rtol=0, atol=1e-12)
    for wrong in (
        {"r": 3},
        {"init_weights": "mini"},
        {"init_weights": "bat" if init is True else True},
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**old, **wrong}))
        with pytest.raises(AdapterError):
            read(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match="bone_block"):  # which is none of MiSS
        read(tmp_path)


@pytest.mark.parametrize("variant", ["road_1", "road_2", "road_4"])
def test_road(tmp_path: Path, variant: str) -> None:
    config = peft.RoadConfig(variant=variant, group_size=4, target_modules=["linear", "plain"])
    check(tmp_path, config, BOTH | {"plain.weight"})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"config_A_B": "vector", "config_C": "vector", "config_D_E": "vector"},
        {"config_A_B": "constant", "config_C": "none"},
        {"config_A_B": "none", "config_D_E": "none"},
    ],
)
def test_glora(tmp_path: Path, options: dict[str, Any]) -> None:
    config = peft.GloraConfig(r=3, target_modules=["linear", "plain"], **options)
    weights = {"linear.weight", "plain.weight"}
    check(
        tmp_path,
        config,
        {"linear.bias"}
        if "none" in options.values() and "config_D_E" in options
        else weights | {"linear.bias"},
    )


def test_a_path_that_is_none_but_holds_values_is_refused(tmp_path: Path) -> None:
    base, _ = write(tmp_path, peft.GloraConfig(target_modules=["plain"]))
    path = tmp_path / "adapter_model.safetensors"
    state = load_file(path)
    save_file({key: tensor + key.endswith("D.zeros") for key, tensor in state.items()}, path)
    [target] = read(tmp_path).targets
    with pytest.raises(UnsupportedAdapterError, match="path D"):
        applied(base, target)


def test_ln_tuning(tmp_path: Path) -> None:
    config = peft.LNTuningConfig(target_modules=["norm"])
    check(tmp_path, config, {"norm.weight", "norm.bias"})


def test_closed_forms() -> None:
    """What the formulas say in the smallest cases, worked out by hand."""
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)

    def new(kind: str, options: dict[str, Any] | None = None, **tensors: list[Any]) -> list[Any]:
        values = {name: torch.tensor(value).double() for name, value in tensors.items()}
        return (weight + FORMULAS[kind](values, options or {}, weight)).tolist()

    assert new("ia3_output", l=[[2], [10]]) == [[2, 4], [30, 40]]
    assert new("ia3_input", l=[[2, 10]]) == [[2, 20], [6, 40]]
    assert new("hira", a=[[1, 2]], b=[[3], [5]]) == [[4, 14], [18, 44]]
    assert new("miss", block=[[10, 20]]) == [[11, 12], [23, 24]]
    assert new("hra", {"gram_schmidt": False}, u=[[0], [7]]) == [[1, -2], [3, -4]]
    # (I − S)(I + S)⁻¹ of S = [[0, t], [−t, 0]] turns by −2·atan t: t = 1 is a quarter turn.
    quarter = {"share": False, "neumann": 0, "eps": None}
    assert new("oft", quarter, r=[[1]]) == pytest.approx(torch.tensor([[-2.0, 1.0], [-4.0, 3.0]]))
    turned = new("road", {"variant": "road_1", "group_size": 2}, theta=[math.pi / 2], alpha=[2])
    assert torch.tensor(turned).flatten().tolist() == pytest.approx([-6, -8, 2, 4])


@pytest.mark.parametrize(
    ("kind", "options", "tensors"),
    [
        ("ia3_output", {}, {"l": (7, 1)}),
        ("ia3_input", {}, {"l": (1, 9)}),
        ("oft", {"share": False, "neumann": 5, "eps": None}, {"r": (4, 6)}),
        ("boft", {}, {"r": (1, 4, 4, 4), "s": (8, 1)}),
        ("hra", {"gram_schmidt": True}, {"u": (10, 2)}),
        ("hira", {}, {"a": (2, 12), "b": (9, 2)}),
        ("hira_embedding", {}, {"a": (2, 9), "b": (12, 2)}),
        ("miss", {}, {"block": (4, 9)}),
        ("miss_bat", {}, {"block": (3, 4, 4)}),
        ("road", {"variant": "road_1", "group_size": 4}, {"theta": (6,), "alpha": (6,)}),
    ],
)
def test_a_base_of_another_shape_is_refused(
    kind: str, options: dict[str, Any], tensors: dict[str, tuple[int, ...]]
) -> None:
    values = {name: torch.ones(shape, dtype=torch.float64) for name, shape in tensors.items()}
    with pytest.raises(IncompatibleError, match="BASE002"):
        FORMULAS[kind](values, options, torch.ones(8, 12, dtype=torch.float64))


def test_a_reflection_without_direction_is_refused() -> None:
    with pytest.raises(AdapterError, match="direction is zero"):
        FORMULAS["hra"](
            {"u": torch.zeros(12, 2, dtype=torch.float64)},
            {"gram_schmidt": False},
            torch.ones(8, 12, dtype=torch.float64),
        )
