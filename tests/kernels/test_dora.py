"""Learned lengths on both backends against the float64 formula, and against PEFT."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import interpreted  # noqa: F401 - bfloat16 as on a GPU
from rankloom_kernels import Backend, BackendError, Term, Workspace, dora_, dora_reference

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
BACKENDS: list[Backend] = ["torch", "triton"]


def make(
    shape: tuple[int, int], ranks: list[int], dtype: torch.dtype, factors: torch.dtype, seed: int
) -> tuple[torch.Tensor, list[Term], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(shape, generator=generator) * 0.02).to(dtype)
    terms = [
        Term(
            (torch.randn(shape[0], rank, generator=generator) * 0.02).to(factors),
            (torch.randn(rank, shape[1], generator=generator) * 0.02).to(factors),
            1.0 + rank / 3,
        )
        for rank in ranks
    ]
    return weight, terms, torch.rand(shape[0], generator=generator) + 0.1


def assert_near(found: torch.Tensor, truth: torch.Tensor, *, columns: int, rank: int) -> None:
    """Half a step, and what float32 loses: of V, of 128 squares at a time, and of the factor."""
    size = truth.abs().amax(dim=1, keepdim=True)
    lost = 2**-24 * (rank + 16 + min(columns, 128)) * (size + truth.abs())
    step = torch.finfo(found.dtype).eps / 2 * truth.abs() + torch.finfo(found.dtype).tiny
    assert ((found.double() - truth).abs() <= step + lost).all()


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60)
@given(
    rows=st.integers(0, 40),
    columns=st.integers(1, 300),
    ranks=st.lists(st.integers(1, 40), max_size=2),
    dtype=st.sampled_from(DTYPES),
    factors=st.sampled_from(DTYPES),
    seed=st.integers(0, 1 << 20),
)
def test_any_shape(
    backend: Backend,
    rows: int,
    columns: int,
    ranks: list[int],
    dtype: torch.dtype,
    factors: torch.dtype,
    seed: int,
) -> None:
    weight, terms, magnitude = make((rows, columns), ranks, dtype, factors, seed)
    truth = dora_reference(weight, terms, magnitude)
    out = torch.full(weight.shape, torch.nan, dtype=dtype)
    dora_(weight, terms, magnitude, out=out, workspace=Workspace(1 << 12), backend=backend)
    assert_near(out, truth, columns=columns, rank=sum(ranks))


@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16_is_the_float64_result_rounded_once(backend: Backend) -> None:
    bf16 = torch.bfloat16
    weight, terms, magnitude = make((128, 512), [16], bf16, bf16, 0)
    truth = dora_reference(weight, terms, magnitude).to(bf16)
    found = dora_(weight.clone(), terms, magnitude, backend=backend)
    steps = (found.view(torch.int16).int() - truth.view(torch.int16).int()).abs()
    assert steps.max() <= 1
    # Some three float32 roundings of the length and of V: a few in a hundred thousand.
    assert (steps != 0).double().mean() <= 2e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_what_peft_computes(backend: Backend) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(48, 32, bias=False))
    config = peft.LoraConfig(
        r=8, lora_alpha=12, target_modules=["0"], use_dora=True, init_lora_weights=False
    )
    tuned = peft.get_peft_model(model, config)
    layer = tuned.base_model.model[0]
    weight = layer.base_layer.weight.detach().clone()
    b, a = (getattr(layer, f"lora_{name}").default.weight.detach() for name in "BA")
    magnitude = layer.lora_magnitude_vector.default.weight.detach() * 1.25
    layer.lora_magnitude_vector.default.weight.data = magnitude.clone()
    expected = tuned.merge_and_unload()[0].weight.detach()
    found = dora_(weight, [Term(b, a, 1.5)], magnitude, backend=backend)
    # PEFT rounds each of its steps to float32; a dozen of those.
    assert torch.allclose(found, expected, rtol=2e-6, atol=1e-7)


def test_a_row_without_a_direction_is_not_a_number() -> None:
    for backend in BACKENDS:
        weight = torch.ones(2, 4)
        weight[1] = 0
        with np.errstate(all="ignore"):  # the interpreter is numpy, and warns
            dora_(weight, [], torch.ones(2), backend=backend)
        assert torch.equal(weight[0], torch.full((4,), 0.5))
        assert weight[1].isnan().all()


def test_refusals() -> None:
    weight, terms, magnitude = make((8, 12), [2], torch.float32, torch.float32, 0)
    with pytest.raises(ValueError, match="magnitude"):
        dora_(weight, terms, magnitude[1:])
    with pytest.raises(BackendError, match="float64"):
        dora_(weight.double(), terms, magnitude, backend="triton")
    with pytest.raises(BackendError, match="contiguous"):
        dora_(weight.T.contiguous().T, terms, magnitude, backend="triton")
    with pytest.raises(ValueError, match="shapes"):
        dora_(weight, [term.transposed() for term in terms], magnitude, backend="triton")
