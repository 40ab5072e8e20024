"""Files of kohya and LyCORIS on a small network: PEFT must make of the folder what they mean."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from peft.tuners.lokr.layer import factorization
from safetensors.numpy import load_file, save_file
from torch import nn

from rankloom.adapter.foreign import lycoris
from rankloom.convert import convert
from rankloom.errors import UnsupportedAdapterError

if TYPE_CHECKING:
    from pathlib import Path

    Arrays = dict[str, np.ndarray]
    Truth = dict[str, np.ndarray]

OUT, INTO = 12, 8


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.planes = nn.Linear(INTO, OUT), nn.Conv2d(INTO, OUT, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Square(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.planes = nn.Conv2d(OUT, OUT, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def named(module: str, tensors: Arrays, alpha: float | None = None) -> Arrays:
    found = {f"lora_unet_{module}.{key}": value for key, value in tensors.items()}
    return (
        found
        if alpha is None
        else found | {f"lora_unet_{module}.alpha": np.array(alpha, np.float32)}
    )


def doubles(tensors: Arrays) -> Arrays:
    return {key: value.astype(np.float64) for key, value in tensors.items()}


def lora_with_middle() -> tuple[Arrays, Truth]:
    """LyCORIS's LoCon: ΔW[o,c,k,l] = s·Σ up[o,i]·mid[i,j,k,l]·down[j,c], and a plain module."""
    conv = {
        "lora_down.weight": values(3, INTO, 1, 1), "lora_up.weight": values(OUT, 3, 1, 1),
        "lora_mid.weight": values(3, 3, 3, 3),
    }  # fmt: skip
    line = {"lora_down.weight": values(5, INTO), "lora_up.weight": values(OUT, 5)}
    c, x = doubles(conv), doubles(line)
    up, mid, down = c["lora_up.weight"], c["lora_mid.weight"], c["lora_down.weight"]
    truth = {
        "planes": 2 / 3 * np.einsum("oi,ijkl,jc->ockl", up[..., 0, 0], mid, down[..., 0, 0]),
        "linear": 0.4 / 5 * x["lora_up.weight"] @ x["lora_down.weight"],
    }
    tensors = named("planes", conv, 2) | named("linear", line, 0.4)
    truth["linear"] *= np.float32(0.4).astype(float) / 0.4
    return tensors, truth


def convolutions() -> tuple[Arrays, Truth]:
    """kohya's convolutions, here with another rank and scale than the linear layer's."""
    conv = {"lora_down.weight": values(2, INTO, 3, 3), "lora_up.weight": values(OUT, 2, 1, 1)}
    line = {"lora_down.weight": values(4, INTO), "lora_up.weight": values(OUT, 4)}
    c, x = doubles(conv), doubles(line)
    truth = {
        "planes": np.einsum(
            "oi,ickl->ockl", c["lora_up.weight"][..., 0, 0], c["lora_down.weight"]
        ) / 2,
        "linear": 3 / 4 * x["lora_up.weight"] @ x["lora_down.weight"],
    }  # fmt: skip
    return named("planes", conv, 1) | named("linear", line, 3), truth


def loha(*, core: bool) -> tuple[Arrays, Truth]:
    """ΔW = s·(A₁B₁)∘(A₂B₂), with cores for a convolution (arXiv 2108.06098)."""
    line = {f"hada_w{n}_{x}": values(*shape, seed=n)
            for n in (1, 2) for x, shape in {"a": (OUT, 3), "b": (3, INTO)}.items()}  # fmt: skip
    x = doubles(line)
    products = [x[f"hada_w{n}_a"] @ x[f"hada_w{n}_b"] for n in (1, 2)]
    tensors, truth = named("linear", line, 2), {"linear": 2 / 3 * products[0] * products[1]}
    if core:
        conv = {f"hada_{name}": values(*shape, seed=n) for n in (1, 2) for name, shape in {
            f"w{n}_a": (4, OUT), f"w{n}_b": (4, INTO), f"t{n}": (4, 4, 3, 3)}.items()}  # fmt: skip
        y = doubles(conv)
        built = [
            np.einsum("ijkl,jr,ip->prkl", y[f"hada_t{n}"], y[f"hada_w{n}_b"], y[f"hada_w{n}_a"])
            for n in (1, 2)
        ]
        tensors |= named("planes", conv, 1)
        truth["planes"] = built[0] * built[1] / 4
    return tensors, truth


def lokr(*, both: bool, full: bool) -> tuple[Arrays, Truth]:
    """ΔW = s·W₁⊗W₂ with (3·4, 2·4) as the division; both full: s is 1, whatever alpha says."""
    first = {"lokr_w1": values(3, 2)}
    if both:
        first = {"lokr_w1_a": values(3, 1), "lokr_w1_b": values(1, 2)}
    second = {"lokr_w2": values(4, 4)} if full else {
        "lokr_w2_a": values(4, 1, seed=3), "lokr_w2_b": values(1, 4)}  # fmt: skip
    x = doubles(first | second)
    w1 = x["lokr_w1"] if "lokr_w1" in x else x["lokr_w1_a"] @ x["lokr_w1_b"]
    w2 = x["lokr_w2"] if full else x["lokr_w2_a"] @ x["lokr_w2_b"]
    scale = 1.0 if full and not both else 0.5
    return named("linear", first | second, 0.5), {"linear": scale * np.kron(w1, w2)}


CASES = {
    "LoCon": lora_with_middle,
    "convolutions": convolutions,
    "LoHa": lambda: loha(core=False),
    "LoHa with cores": lambda: loha(core=True),
    "LoKr": lambda: lokr(both=False, full=False),
    "LoKr, both divided": lambda: lokr(both=True, full=False),
    "LoKr, both full": lambda: lokr(both=False, full=True),
}


def write(tmp_path: Path, tensors: Arrays) -> Net:
    torch.manual_seed(0)
    net = Net()
    (tmp_path / "base").mkdir()
    base = {key: value.detach().numpy() for key, value in net.state_dict().items()}
    save_file(base, tmp_path / "base/model.safetensors")
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, tmp_path / "in.safetensors")
    return net


@pytest.mark.parametrize("name", CASES)
def test_peft_adds_the_closed_form(tmp_path: Path, name: str) -> None:
    tensors, truth = CASES[name]()
    net = write(tmp_path, tensors)
    report = convert(tmp_path / "in.safetensors", tmp_path / "out", base=tmp_path / "base")
    before = {key: net.get_parameter(f"{key}.weight").detach().double() for key in truth}
    assert report["folders"][0]["rounded"] == (name == "LoCon")
    model = PeftModel.from_pretrained(net.double(), tmp_path / "out", autocast_adapter_dtype=False)
    merged = model.double().merge_and_unload()
    for module, delta in truth.items():
        found = (merged.get_parameter(f"{module}.weight").double() - before[module]).detach()
        bound = 2.0**-23 * np.abs(delta).max()  # PEFT's parameters are float32 before .double()
        np.testing.assert_allclose(found.numpy(), delta, atol=4 * bound, rtol=0)


def test_dora_on_outputs_is_peft_s_and_on_inputs_is_refused(tmp_path: Path) -> None:
    """W′ = m/‖V‖·V over rows, V = W + s·BA (arXiv 2402.09353)."""
    line = {"lora_down.weight": values(3, INTO), "lora_up.weight": values(OUT, 3)}
    scale = np.abs(values(OUT, 1)) + 1
    net = write(tmp_path, named("linear", {**line, "dora_scale": scale}, 1.5))
    convert(tmp_path / "in.safetensors", tmp_path / "out", base=tmp_path / "base")
    x = doubles(line)
    moved = net.linear.weight.detach().double().numpy()
    moved = moved + 0.5 * x["lora_up.weight"] @ x["lora_down.weight"]
    wanted = scale / np.linalg.norm(moved, axis=1, keepdims=True) * moved
    model = PeftModel.from_pretrained(net.double(), tmp_path / "out", autocast_adapter_dtype=False)
    found = model.double().merge_and_unload().linear.weight.detach().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    inputs = np.abs(values(1, INTO)) + 1
    save_file(named("linear", {**line, "dora_scale": inputs}), tmp_path / "in.safetensors")
    with pytest.raises(UnsupportedAdapterError, match=r"dora_scale has magnitudes \[1, 8\]"):
        convert(tmp_path / "in.safetensors", tmp_path / "no", base=tmp_path / "base")


def test_dora_of_a_convolution_says_by_its_shape_what_it_is_of(tmp_path: Path) -> None:
    """Where in and out are as many, LyCORIS's (1, in, 1, 1) looks like PEFT's (1, out, 1, 1)."""
    conv = {"lora_down.weight": values(2, OUT, 3, 3), "lora_up.weight": values(OUT, 2, 1, 1)}
    torch.manual_seed(0)
    net = Square()
    (tmp_path / "base").mkdir()
    base = {key: value.detach().numpy() for key, value in net.state_dict().items()}
    save_file(base, tmp_path / "base/model.safetensors")
    scale = np.abs(values(OUT, 1, 1, 1)) + 1
    save_file(named("planes", {**conv, "dora_scale": scale}, 1), tmp_path / "in.safetensors")
    convert(tmp_path / "in.safetensors", tmp_path / "out", base=tmp_path / "base")
    c, weight = doubles(conv), net.planes.weight.detach().double().numpy()
    delta = np.einsum("oi,ickl->ockl", c["lora_up.weight"][..., 0, 0], c["lora_down.weight"]) / 2
    norm = np.linalg.norm((weight + delta).reshape(OUT, -1), axis=1).reshape(OUT, 1, 1, 1)
    model = PeftModel.from_pretrained(net.double(), tmp_path / "out", autocast_adapter_dtype=False)
    found = model.double().merge_and_unload().planes.weight.detach().numpy()
    np.testing.assert_allclose(found, scale / norm * (weight + delta), rtol=1e-6, atol=1e-7)
    columns = scale.reshape(1, OUT, 1, 1)
    save_file(named("planes", {**conv, "dora_scale": columns}, 1), tmp_path / "in.safetensors")
    with pytest.raises(UnsupportedAdapterError, match="not one for each of 12 outputs"):
        convert(tmp_path / "in.safetensors", tmp_path / "no", base=tmp_path / "base")


@pytest.mark.parametrize(
    ("change", "named_in_error"),
    [
        ({"dora_scale": values(OUT, 1)}, "is LOHA with a magnitude"),
        ({"lokr_w1": values(3, 2)}, "has tensors of LOHA and LOKR"),
        ({"scalar": values(1)}, "scalar is no kohya LoRA tensor"),
    ],
)
def test_what_peft_has_not_is_refused_by_name(
    tmp_path: Path, change: Arrays, named_in_error: str
) -> None:
    write(tmp_path, loha(core=False)[0] | named("linear", change))
    with pytest.raises(Exception, match=named_in_error):
        convert(tmp_path / "in.safetensors", tmp_path / "out", base=tmp_path / "base")


def test_a_division_that_peft_does_not_make_is_refused(tmp_path: Path) -> None:
    """LyCORIS can be told to keep the second matrix whole at any rank; PEFT decides by the rank."""
    tensors = {"lokr_w1_a": values(3, 1), "lokr_w1_b": values(1, 2), "lokr_w2": values(4, 4)}
    write(tmp_path, named("linear", tensors, 1))
    with pytest.raises(UnsupportedAdapterError, match="divided in a way that PEFT's LoKr has not"):
        convert(tmp_path / "in.safetensors", tmp_path / "out", base=tmp_path / "base")


@given(st.integers(1, 3000), st.sampled_from([-1, 2, 3, 4, 5, 8, 16, 128]))
def test_sizes_are_divided_as_peft_does(size: int, factor: int) -> None:
    assert lycoris._divided(size, factor) == factorization(size, factor)


def test_a_file_of_one_scale_keeps_its_bytes(tmp_path: Path) -> None:
    line = {"lora_down.weight": values(4, INTO), "lora_up.weight": values(OUT, 4)}
    half = {key: value.astype(np.float16) for key, value in line.items()}
    write(tmp_path, named("linear", half, 3))
    convert(tmp_path / "in.safetensors", tmp_path / "out", base=tmp_path / "base")
    data = (tmp_path / "out/adapter_model.safetensors").read_bytes()
    assert all(value.tobytes() in data for value in half.values())
    assert math.isclose(len(data), sum(value.nbytes for value in half.values()), abs_tol=400)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(1, 24), st.integers(1, 64)), min_size=2, max_size=4),
    st.sampled_from([np.float16, np.float32]),
)
def test_scales_keep_their_ratio_without_losing_a_bit(
    tmp_path_factory: pytest.TempPathFactory, modules: list[tuple[int, int]], dtype: type
) -> None:
    """Exact in rational numbers: what B was multiplied by is to the scale alike in all modules."""
    folder = tmp_path_factory.mktemp("ratio")
    tensors = {}
    for number, (rank, alpha) in enumerate(modules):
        name = f"m{number}"
        tensors[f"{name}.lora_down.weight"] = values(rank, 3).astype(dtype)
        tensors[f"{name}.lora_up.weight"] = values(2, rank).astype(dtype)
        tensors[f"{name}.alpha"] = np.array(alpha, dtype)
    save_file(tensors, folder / "in.safetensors")
    report = convert(folder / "in.safetensors", folder / "out")
    assert report["folders"][0]["rounded"] == 0
    saved = load_file(folder / "out/adapter_model.safetensors")
    ratios = set()
    for number, (rank, alpha) in enumerate(modules):
        source = tensors[f"m{number}.lora_up.weight"]
        found = saved[f"base_model.model.m{number}.lora_B.weight"]
        assert not found[:, rank:].any()
        for before, after in zip(source.flat, found[:, :rank].flat, strict=True):
            ratios.add(Fraction(float(after)) / Fraction(float(before)) / Fraction(alpha, rank))
    assert len(ratios) == 1
    config = json.loads((folder / "out/adapter_config.json").read_text())
    # alpha may be a third, so it is rounded to float64, as are the quotient and this product.
    assert math.isclose(config["lora_alpha"] / config["r"] * ratios.pop(), 1, rel_tol=4e-16)
