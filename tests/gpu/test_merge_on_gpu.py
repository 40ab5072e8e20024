"""Deltas added on a GPU against the float64 formula on the CPU."""

import pytest
import torch

from rankloom_kernels import Term, fold, merge_, merge_reference

# Share of elements that may be the neighbour: those whose float32 sum lies within its error of the
# middle of two neighbours. Steps of float16 are eight times finer than those of bfloat16.
NARROW = {torch.bfloat16: 1e-4, torch.float16: 1e-3}


def make(
    dtype: torch.dtype, count: int, shape: tuple[int, int], device: torch.device
) -> tuple[torch.Tensor, list[Term]]:
    generator = torch.Generator().manual_seed(count)
    out, into = shape
    weight = (torch.randn(shape, generator=generator) * 0.02).to(dtype)
    terms = [
        Term(
            torch.randn(out, 16, generator=generator) * 0.02,
            torch.randn(16, into, generator=generator) * 0.02,
            (-1.0) ** index * (0.5 + index / 4),
        )
        for index in range(count)
    ]
    return weight.to(device), [Term(b.to(device), a.to(device), c) for b, a, c in terms]


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(512, 1024), (1000, 333), (1, 7)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *NARROW])
def test_merge_is_the_formula_rounded_once(
    dtype: torch.dtype, shape: tuple[int, int], count: int, device: torch.device
) -> None:
    weight, terms = make(dtype, count, shape, device)
    on_cpu = [Term(b.cpu(), a.cpu(), c) for b, a, c in terms]
    truth = merge_reference(weight.cpu(), on_cpu)
    result = merge_(weight.clone(), terms).cpu()
    if dtype not in NARROW:
        # float32 sums of at most 128 products; float64 is far below this.
        limit = 2e-6 + 2e-6 * float(truth.abs().max())
        assert float((result.double() - truth).abs().max()) <= limit
        return
    rounded = truth.to(dtype)
    steps = (result.view(torch.int16).int() - rounded.view(torch.int16).int()).abs()
    assert int(steps.max()) <= 1
    assert int((steps != 0).sum()) <= max(1, NARROW[dtype] * steps.numel())


def test_the_weight_stays_where_it_is(device: torch.device) -> None:
    weight, terms = make(torch.bfloat16, 2, (256, 256), device)
    before = weight.data_ptr()
    assert merge_(weight, fold(terms)).data_ptr() == before
