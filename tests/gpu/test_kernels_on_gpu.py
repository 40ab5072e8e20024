"""Every kernel on the device that is checked, against float64 formulas."""

import pytest
import torch

import conftest
from rankloom_kernels import (
    Election,
    Fp8,
    Int4,
    Int8,
    Keep,
    Nf4,
    Quantised,
    Term,
    dora_,
    dora_reference,
    elect_merge_,
    elect_reference,
    merge_,
    merge_many_,
    merge_quantised_,
    merge_reference,
    thresholds,
)
from rankloom_kernels.backends import triton_refuses
from rankloom_kernels.gpu.check import deltas_differ, differs, differs_in_order

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
# Share of elements that may be the neighbour of the float64 result rounded once: a float32 sum errs
# by 2^-24, and steps of float16 are eight times finer than those of bfloat16.
NARROW = {torch.bfloat16: 1e-4, torch.float16: 1e-3}
SHAPES = [(65, 129), (1, 7)] if conftest.INTERPRETED else [(512, 1024), (1000, 333), (1, 7)]
RANKS = [[16], [1, 64, 40], [16] * 8, [512]]


def make(
    shape: tuple[int, int],
    ranks: list[int],
    device: torch.device,
    dtype: torch.dtype = torch.bfloat16,
    factors: torch.dtype = torch.bfloat16,
) -> tuple[torch.Tensor, list[Term]]:
    generator = torch.Generator(device).manual_seed(sum(ranks))

    def numbers(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, device=device) * 0.02

    weight = numbers(*shape).to(dtype)
    terms = [
        Term(
            numbers(shape[0], rank).to(factors),
            numbers(rank, shape[1]).to(factors),
            (-1.0) ** index * (0.5 + index / 4),
        )
        for index, rank in enumerate(ranks)
    ]
    return weight, terms


def assert_rounded_once(result: torch.Tensor, truth: torch.Tensor) -> None:
    if result.dtype not in NARROW:
        # float32 sums of at most some hundred products; float64 is far below this.
        limit = 2e-6 + 2e-6 * float(truth.abs().max())
        assert float((result.double() - truth).abs().max()) <= limit
        return
    rounded = truth.to(result.dtype)
    differ = result != rounded
    assert int(differ.sum()) <= max(1, NARROW[result.dtype] * differ.numel())
    step = torch.finfo(result.dtype).eps * truth.abs()
    assert ((result.double() - truth).abs() <= step + 1e-7).all()


def test_nothing_speaks_against_triton(device: torch.device) -> None:
    assert triton_refuses(device, asked=True) is None
    for dtype in DTYPES:
        for factors in DTYPES:
            assert differs(device, dtype, dtype, factors) is None
        assert differs_in_order(device, dtype, dtype) is None
        assert deltas_differ(device, dtype) is None


@pytest.mark.parametrize("ranks", RANKS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("factors", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("dtype", DTYPES)
def test_merge(
    dtype: torch.dtype,
    factors: torch.dtype,
    shape: tuple[int, int],
    ranks: list[int],
    device: torch.device,
) -> None:
    weight, terms = make(shape, ranks, device, dtype, factors)
    truth = merge_reference(weight, terms)
    assert_rounded_once(merge_(weight.clone(), terms, backend="triton"), truth)


def test_many_in_one_launch(large: tuple[int, int], device: torch.device) -> None:
    shapes = [large, large[::-1], (16, 16), (0, 8), (777, 500), large]
    cases = [make(shape, [16] * (n % 4), device) for n, shape in enumerate(shapes)]
    results = [weight.clone() for weight, _ in cases]
    merge_many_(results, [terms for _, terms in cases], backend="triton")
    for result, (weight, terms) in zip(results, cases, strict=True):
        assert_rounded_once(result, merge_reference(weight, terms))


@pytest.mark.skipif(conftest.INTERPRETED, reason="takes 5 GB")
def test_more_elements_than_32_bits_can_count(device: torch.device) -> None:
    rows, columns = 70_000, 32_768
    weight, terms = make((rows, columns), [16], device)
    last = slice(rows - 64, rows)
    part = [term._replace(b=term.b[last]) for term in terms]
    truth = merge_reference(weight[last], part)
    assert_rounded_once(merge_(weight, terms, backend="triton")[last], truth)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_strict_sums_have_the_bits_of_the_cpu(
    shape: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> None:
    weight, terms = make(shape, [16, 5], device, dtype)
    on_cpu = [Term(b.cpu(), a.cpu(), c) for b, a, c in terms]
    expected = merge_(weight.cpu().clone(), on_cpu, numerics="strict")
    for backend in ("triton", "torch"):
        found = merge_(weight.clone(), terms, numerics="strict", backend=backend)
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dora(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
    weight, terms = make(shape, [16], device, dtype)
    magnitude = torch.rand(shape[0], device=device) + 0.1
    truth = dora_reference(weight, terms, magnitude)
    found = dora_(weight.clone(), terms, magnitude, backend="triton")
    # Half a step, and the float32 sums of V and of 128 squares at a time.
    step = torch.finfo(dtype).eps / 2 * truth.abs()
    lost = 2**-24 * 200 * truth.abs().amax(dim=1, keepdim=True)
    assert ((found.double() - truth).abs() <= step + lost).all()


@pytest.mark.parametrize("density", [0.05, 0.5])
@pytest.mark.parametrize("factors", [torch.bfloat16, torch.float32])
def test_ties(
    factors: torch.dtype, density: float, large: tuple[int, int], device: torch.device
) -> None:
    weight, terms = make(large, [16] * 4, device, torch.float32, factors)
    bounds = thresholds(terms, [density] * 4, backend="triton")
    for number, term in enumerate(terms):
        size = (term.coefficient * (term.b.double() @ term.a.double())).abs()
        stay = int((size >= bounds[number]).sum())
        # Magnitudes as near to the bound as float32 errs may be on either side of it.
        assert abs(stay - int(density * size.numel())) <= 4 + 1e-5 * size.numel()
    keep, rule = Keep(bounds), Election((1.0, 0.5, 0.75, 1.0), "unweighted", "total", "count")
    truth = elect_reference(weight, terms, keep, rule)
    found = elect_merge_(weight.clone(), terms, keep, rule, backend="triton")
    wrong = (found.double() - truth).abs() > 1e-6
    # float32 cannot tell whether those stay, or win, that are within 2^-20 of the bound.
    assert int(wrong.sum()) <= 4 + 1e-5 * wrong.numel()


def test_dare_drops_the_elements_that_the_cpu_drops(device: torch.device) -> None:
    weight, terms = make((300, 500), [8, 8], device, torch.float32)
    keep, rule = Keep((0.3, 0.6), (-5, 1 << 62)), Election((1.0, 1.0), "none", "total", "none")
    truth = elect_reference(
        weight.cpu(),
        [Term(*(f.cpu() for f in t[:2]), t[2]) for t in terms],
        keep,
        rule,
        start=12345,
    )
    found = elect_merge_(weight, terms, keep, rule, start=12345, backend="triton")
    assert ((found.cpu().double() - truth).abs() <= 1e-6).all()


@pytest.mark.parametrize("kind", ["nf4", "int8", "fp8", "fp8 blocks"])
def test_quantised(kind: str, large: tuple[int, int], device: torch.device) -> None:
    values, terms = make(large, [16, 16], device, torch.float32)
    one, other = quantised(kind, values), quantised(kind, values)
    merge_quantised_(one, terms, backend="triton")
    merge_quantised_(other, terms, backend="torch")
    assert torch.allclose(one.scale, other.scale, rtol=1e-5)
    differ = one.codes.view(torch.uint8) != other.codes.view(torch.uint8)
    # Sums within 2^-20 of the middle of two codes, which are some 2^-5 apart.
    assert differ.double().mean() <= 2e-4


def quantised(kind: str, values: torch.Tensor) -> Quantised:
    rows, columns = values.shape
    scale = values.new_ones
    if kind == "nf4":
        codes = torch.zeros(rows, columns // 2, dtype=torch.uint8, device=values.device)
        return Nf4(codes, scale(rows, columns // 64)).requantised(values)
    if kind == "int8":
        return Int8(values.to(torch.int8), scale(rows, 1)).requantised(values)
    shape = (-(-rows // 128), -(-columns // 128)) if "blocks" in kind else (1, 1)
    return Fp8(values.to(torch.float8_e4m3fn), scale(*shape)).requantised(values)


@pytest.mark.parametrize(
    ("layout", "size"), [("row", 32), ("row turned", 48), ("column turned", 128)]
)
def test_int4(layout: str, size: int, large: tuple[int, int], device: torch.device) -> None:
    out, width = (height // 8 * 8 for height in large)
    values, terms = make((out, width), [16, 16], device, torch.float32)
    group = (torch.arange(width, device=device) // size).to(torch.int32)
    sizes = {"row": (out, width // 8), "row turned": (width // 8, out)}
    codes = torch.zeros(sizes.get(layout, (width, out // 8)), dtype=torch.int32, device=device)
    scale = torch.zeros(out, int(group.max()) + 1, dtype=torch.float16, device=device)
    empty = Int4(codes.T if "turned" in layout else codes, scale, scale.to(torch.uint8), group)
    one, other = empty.requantised(values), empty.requantised(values)
    merge_quantised_(one, terms, backend="triton")
    merge_quantised_(other, terms, backend="torch")
    truth = merge_reference(empty.requantised(values).dequantised(), terms)
    steps = one.scale.double()[:, group.long()]
    assert ((one.dequantised() - truth).abs() <= steps * 0.501 + 1e-7).all()
    # Sums so near to the end of a grid that float32 keeps it or not, and so near to the middle of
    # two codes that it takes the other.
    same = (one.scale == other.scale) & (one.zero == other.zero)
    assert (~same).double().mean() <= 1e-3
    differ = one.dequantised() != other.dequantised()
    assert differ[same[:, group.long()]].double().mean() <= 2e-4


def test_the_weight_stays_where_it_is(device: torch.device) -> None:
    weight, terms = make((256, 256), [8], device)
    before = weight.data_ptr()
    assert merge_(weight, terms, backend="triton").data_ptr() == before
