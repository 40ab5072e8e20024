"""Deltas on quantised weights, on both backends, against float64 and every code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import interpreted  # noqa: F401 - bfloat16 as on a GPU
from rankloom_kernels import Fp8, Int8, Nf4, Term, merge_quantised_, merge_reference
from rankloom_kernels.quantised import NF4_CODES

if TYPE_CHECKING:
    from rankloom_kernels import Backend
    from rankloom_kernels.quantised import Quantised

BACKENDS: list[Backend] = ["torch", "triton"]
KINDS = ["nf4", "int8", "fp8", "fp8 blocks"]
E4M3 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)


def quantised(kind: str, values: torch.Tensor) -> Quantised:
    rows, columns = values.shape
    if kind == "nf4":
        codes = torch.zeros(rows, columns // 2, dtype=torch.uint8)
        return Nf4(codes, torch.zeros(rows, columns // 64)).requantised(values)
    if kind == "int8":
        return Int8(values.to(torch.int8), torch.ones(rows, 1)).requantised(values)
    blocks = (-(-rows // 128), -(-columns // 128)) if "blocks" in kind else (1, 1)
    return Fp8(values.to(torch.float8_e4m3fn), torch.ones(blocks)).requantised(values)


def clone(weight: Quantised) -> Quantised:
    return type(weight)(weight.codes.clone(), weight.scale.clone())


def spacing(weight: Quantised) -> torch.Tensor:
    """The largest distance of neighbouring codes around each element."""
    if isinstance(weight, Nf4):
        codes = torch.tensor(NF4_CODES)
        gap = torch.maximum(codes.diff(prepend=codes[:1]), codes.diff(append=codes[-1:]))
        gaps = Nf4(weight.codes, torch.ones_like(weight.scale)).dequantised()
        place = (gaps[..., None] - codes).abs().argmin(-1)
        return gap[place] * weight.scale.repeat_interleave(64, 1)
    ones = type(weight)(weight.codes, torch.ones_like(weight.scale)).dequantised()
    scale = type(weight)(torch.ones_like(weight.codes), weight.scale).dequantised()
    if isinstance(weight, Int8):
        return scale
    return torch.maximum(ones.abs() / 8, torch.tensor(2.0**-9)) * scale


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 150),
    columns=st.integers(1, 300),
    ranks=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    factors=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    zero_rows=st.booleans(),
    seed=st.integers(0, 1 << 20),
)
def test_every_element_gets_its_nearest_code(
    kind: str,
    backend: Backend,
    rows: int,
    columns: int,
    ranks: list[int],
    factors: torch.dtype,
    zero_rows: bool,
    seed: int,
) -> None:
    columns = -(-columns // 64) * 64 if kind == "nf4" else columns
    generator = torch.Generator().manual_seed(seed)
    weight = quantised(kind, torch.randn(rows, columns, generator=generator) * 0.02)
    terms = [
        Term(
            (torch.randn(rows, rank, generator=generator) * 0.1).to(factors),
            (torch.randn(rank, columns, generator=generator) * 0.1).to(factors),
            0.5 + rank / 3,
        )
        for rank in ranks
    ]
    if zero_rows:
        weight.codes.view(torch.uint8)[:3] = 7 * 17 if kind == "nf4" else 0
        for term in terms:
            term.b[:3] = 0
    truth = merge_reference(weight.dequantised(), terms)
    found = clone(weight)
    assert merge_quantised_(found, terms, backend=backend) is found
    size = truth.abs().amax()
    allowed = spacing(found).double() / 2 * (1 + 1e-5) + 1e-5 * size
    assert ((found.dequantised() - truth).abs() <= allowed).all()


@pytest.mark.parametrize("kind", KINDS)
def test_backends_agree_but_where_float32_cannot_decide(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = quantised(kind, torch.randn(256, 256, generator=generator))
    b, a = torch.randn(256, 16, generator=generator), torch.randn(16, 256, generator=generator)
    one, other = (
        merge_quantised_(clone(weight), [Term(b, a, 0.05)], backend=backend) for backend in BACKENDS
    )
    assert torch.allclose(one.scale, other.scale, rtol=1e-6)
    differ = one.codes.view(torch.uint8) != other.codes.view(torch.uint8)
    # A sum lies within 2^-22 of the middle of two codes, which are some 2^-5 apart.
    assert differ.double().mean() <= 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_adding_nothing_changes_no_code(kind: str, backend: Backend) -> None:
    weight = quantised(kind, torch.randn(130, 192, generator=torch.Generator().manual_seed(1)))
    nothing = Term(torch.zeros(130, 2), torch.zeros(2, 192))
    found = merge_quantised_(clone(weight), [nothing], backend=backend)
    assert torch.equal(found.codes.view(torch.uint8), weight.codes.view(torch.uint8))
    assert torch.allclose(found.scale, weight.scale, rtol=2**-22)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_e4m3_number_survives(backend: Backend) -> None:
    finite = E4M3.float().isfinite()
    weight = Fp8(E4M3[finite][None].clone(), torch.ones(1, 1))
    nothing = Term(torch.zeros(1, 1), torch.zeros(1, weight.shape[1]))
    found = merge_quantised_(clone(weight), [nothing], backend=backend)
    # The delta is +0, and -0 + 0 is 0.
    expected = weight.codes.view(torch.uint8).clone()
    expected[expected == 128] = 0
    assert torch.equal(found.codes.view(torch.uint8), expected)
    assert float(found.scale) == 1.0


def test_values_between_e4m3_numbers_round_to_even() -> None:
    numbers = E4M3[:127].float()
    middles = (numbers[1:] + numbers[:-1]) / 2
    values = torch.cat([middles, torch.nextafter(middles, torch.tensor(0.0)), numbers[-1:]])
    weight = Fp8(torch.zeros(1, len(values)).to(torch.float8_e4m3fn), torch.ones(1, 1))
    merge_quantised_(weight, [Term(torch.ones(1, 1), values[None])], backend="triton")
    assert torch.equal(weight.codes.float()[0], values.to(torch.float8_e4m3fn).float())


def test_codes_and_bytes_are_those_of_bitsandbytes() -> None:
    # What its quantize_4bit(values, quant_type="nf4", blocksize=64) of version 0.50 returns.
    values = torch.tensor([[((7 * i) % 64 - 31.5) / 32 for i in range(64)]])
    found = quantised("nf4", values)
    assert found.codes[0].tolist() == BYTES
    assert found.scale.tolist() == [[0.984375]]


# fmt: off
BYTES = [1, 36, 104, 189, 239, 18, 53, 139, 222, 241, 19, 88, 172, 239, 1, 53, 122, 206, 240, 18,
         71, 172, 239, 1, 36, 105, 205, 224, 18, 70, 155, 222]
# fmt: on


def test_refusals() -> None:
    codes = torch.zeros(4, 32, dtype=torch.uint8)
    weight = Nf4(codes, torch.ones(4, 1))
    with pytest.raises(ValueError, match="deltas"):
        merge_quantised_(weight, [])
    with pytest.raises(ValueError, match="deltas"):
        merge_quantised_(weight, [Term(torch.ones(4, 1), torch.ones(1, 32))])
    with pytest.raises(ValueError, match="is needed"):
        Nf4(codes.int(), torch.ones(4, 1))
    with pytest.raises(ValueError, match="whole blocks"):
        Nf4(codes[:, :16], torch.ones(4, 0))
    with pytest.raises(ValueError, match="is needed"):
        Int8(torch.zeros(4, 4, dtype=torch.int8), torch.ones(4))
    with pytest.raises(ValueError, match="is needed"):
        Fp8(torch.zeros(4, 4).to(torch.float8_e4m3fn), torch.ones(2, 1))
