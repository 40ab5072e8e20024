"""4-bit groups as GPTQ, AWQ and compressed-tensors store them, on both backends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import interpreted  # noqa: F401 - bfloat16 as on a GPU
from int4_cases import FORMS, case, config, elements, stored, value_of
from rankloom_kernels import Term, merge_quantised_, merge_reference, read_int4, stored_int4

if TYPE_CHECKING:
    from rankloom_kernels import Backend

BACKENDS: list[Backend] = ["torch", "triton"]


@pytest.mark.parametrize("form", FORMS)
def test_a_format_stands_for_what_its_library_says(form: str) -> None:
    whole = case(form, 24, 32, 3, 0)
    found = whole.read()
    truth = value_of(form, whole.tensors, whole.group)
    assert found.dequantised().dtype == torch.float32
    assert torch.equal(found.dequantised().double(), truth)
    again = stored_int4(config(form, 32), found)
    assert all(torch.equal(tensor, whole.tensors[name]) for name, tensor in again.items())
    assert all(tensor.is_contiguous() for tensor in again.values())  # as safetensors needs them


def pattern(out: int, width: int) -> np.ndarray:
    rows = np.arange(out)[:, None]
    return (7 * rows + 3 * np.arange(width) + rows // 16) % 16


def test_words_are_those_of_the_libraries() -> None:
    # What QuantLinear.pack (auto_gptq, qlinear_cuda.py), WQLinear_GEMM.from_linear (autoawq 0.2.9)
    # and pack_to_int32 (compressed-tensors 0.20.1) make of these numbers.
    zero = 1 + (5 * np.arange(32)[:, None] + np.arange(2)) % 15
    scale = torch.full((32, 2), 0.5)
    found = {form: stored(form, pattern(32, 32), zero, scale) for form in ("gptq", "awq", "packed")}
    assert found["gptq"]["qweight"][1, :4].tolist() == GPTQ_WORDS
    assert found["gptq"]["qzeros"][1].tolist() == GPTQ_ZEROS
    assert found["awq"]["qweight"][1].tolist() == AWQ_WORDS
    assert found["awq"]["qzeros"][1].tolist() == AWQ_ZEROS
    assert found["packed"]["weight_packed"][1].tolist() == PACKED_WORDS
    assert found["packed"]["weight_zero_point"][:, 1].tolist() == PACKED_ZEROS


GPTQ_WORDS = [-629924168, 1105954095, -1202520938, 801727245]
GPTQ_ZEROS = [1639324513, 459388443, -1239719498, 1639324513]
AWQ_WORDS = [1183506195, -838707301, 1469833252, -552376148]
AWQ_ZEROS = [2082940866, 667075196, -1032029145, 2082940866]
PACKED_WORDS = [-916255321, 1105954095, -916255321, 1105954095]
PACKED_ZEROS = [1925655666, 745719596, -953388345, 1925655666]


def terms(
    shape: tuple[int, int], ranks: list[int], size: float, seed: int, dtype: torch.dtype
) -> list[Term]:
    generator = torch.Generator().manual_seed(seed)
    out, width = shape
    return [
        Term(
            torch.randn(out, rank, generator=generator).to(dtype),
            torch.randn(rank, width, generator=generator).to(dtype),
            size / (1 + number),
        )
        for number, rank in enumerate(ranks)
    ]


def by_group(values: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each group reaches, 0 within."""
    parts = [values[:, group == each] for each in range(group.max() + 1)]
    low = np.stack([part.min(1) for part in parts], 1)
    return np.minimum(low, 0), np.maximum(np.stack([part.max(1) for part in parts], 1), 0)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=20, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    eights=st.integers(1, 9),
    size=st.sampled_from([8, 32, 64, 96]),
    groups=st.integers(1, 3),
    ranks=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
    reach=st.sampled_from([0.001, 0.01, 0.1]),
    seed=st.integers(0, 1 << 20),
)
def test_every_element_gets_its_nearest_code(
    form: str,
    backend: Backend,
    eights: int,
    size: int,
    groups: int,
    ranks: list[int],
    dtype: torch.dtype,
    reach: float,
    seed: int,
) -> None:
    whole = case(
        form, 8 * eights, size, groups, seed, torch.bfloat16 if seed % 2 else torch.float16
    )
    weight = whole.read()
    before = weight.scale.clone(), weight.zero.clone()
    deltas = terms(weight.shape, ranks, reach, seed, dtype)
    truth = merge_reference(value_of(form, whole.tensors, whole.group), deltas)
    assert merge_quantised_(weight, deltas, backend=backend) is weight

    found = value_of(form, stored_int4(config(form, size), weight), whole.group)
    step = weight.scale.double()[:, whole.group]
    error = 1e-6 * (1 + truth.abs().amax())
    assert ((found - truth).abs() <= step / 2 * (1 + 1e-5) + error).all()  # nothing is cut off

    low, high = map(torch.from_numpy, by_group(truth.numpy(), whole.group))
    old, zero = before[0].double(), before[1].double()
    spare = torch.minimum(low / old + zero + 0.5, 15.5 - high / old - zero)
    kept = (weight.scale == before[0]) & (weight.zero == before[1])
    assert kept[spare > 1e-3].all()
    assert not kept[spare < -1e-3].any()
    first, last = (8, 8) if "sym" in form else (form in {"gptq", "gptq act-order"}, 15)
    needed = torch.stack([(high - low) / 15, high / (15 - first), -low / last]).amax(0)
    new = ~kept
    assert (weight.scale.double()[new] >= needed[new] * (1 - 1e-5)).all()
    assert (weight.scale.double()[new] <= needed[new] * (1 + 2**-7)).all()  # a step of bfloat16
    assert ((weight.zero >= first) & (weight.zero <= last)).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", FORMS)
def test_adding_nothing_changes_no_bit(form: str, backend: Backend) -> None:
    whole = case(form, 40, 32, 3, 1)
    name = "weight_scale" if form.startswith("packed") else "scales"
    whole.tensors[name][:2] *= -1  # AutoRound writes such
    weight = whole.read()
    place = weight.codes.data_ptr()
    merge_quantised_(weight, [Term(torch.zeros(40, 2), torch.zeros(2, 96))], backend=backend)
    assert weight.codes.data_ptr() == place
    for key, tensor in stored_int4(config(form, 32), weight).items():
        assert torch.equal(tensor, whole.tensors[key])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["packed", "packed sym"])
def test_rows_and_columns_may_be_no_whole_words(form: str, backend: Backend) -> None:
    rng = np.random.default_rng(5)
    codes, group = rng.integers(0, 16, (13, 150)), np.zeros(150, np.int64)
    zero = np.full((13, 1), 8) if "sym" in form else rng.integers(0, 16, (13, 1))
    tensors = stored(form, codes, zero, torch.full((13, 1), 0.01))
    deltas = terms((13, 150), [3], 0.003, 6, torch.float32)
    truth = merge_reference(value_of(form, tensors, group), deltas)
    weight = read_int4(config(form, -1), tensors)
    found = stored_int4(config(form, -1), merge_quantised_(weight, deltas, backend=backend))
    error = (value_of(form, found, group) - truth).abs() - weight.scale.double() / 2
    assert error.max() <= 1e-6
    # What is left of the last word stays 0, as compressed-tensors pads.
    assert not elements(found["weight_packed"])[:, 150:].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_group_of_zeros_takes_a_delta(backend: Backend) -> None:
    weight = case("awq", 8, 32, 2, 4).read()
    weight.scale[:] = 0
    a = torch.zeros(1, 64)
    a[0, :16] = torch.arange(16) - 3
    merge_quantised_(weight, [Term(torch.ones(8, 1), a, 0.5)], backend=backend)
    assert torch.equal(weight.dequantised(), (a * 0.5).expand(8, -1))
    assert torch.equal(weight.scale, torch.tensor([0.5, 0]).half().expand(8, -1))


# The interpreter says it, by NumPy; a GPU does not.
@pytest.mark.filterwarnings("ignore:overflow encountered in divide")
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_smallest_scale_keeps_a_zero(backend: Backend) -> None:
    weight = case("packed", 8, 64, 2, 2).read()
    weight = replace(weight, scale=torch.full_like(weight.scale, 1e-39, dtype=torch.float32))
    weight = weight.requantised(torch.zeros(weight.shape))
    nothing = Term(torch.zeros(8, 1), torch.zeros(1, 128))
    merge_quantised_(weight, [nothing], backend=backend)
    assert torch.equal(weight.dequantised(), torch.zeros(8, 128))
    assert torch.equal(weight.scale, torch.full_like(weight.scale, 1e-39)), "the grid is kept"


# The interpreter says it, by NumPy; a GPU does not.
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_group_with_no_number_is_none_and_its_neighbours_are(backend: Backend) -> None:
    weight = case("gptq", 8, 64, 2, 2).read()
    truth = weight.dequantised()
    b, a = torch.zeros(8, 2), torch.zeros(2, 128)
    b[3, 0], b[5, 1], a[0, 70], a[1, 1] = torch.nan, 1e7, 1, 1  # the second is beyond float16
    merge_quantised_(weight, [Term(b, a)], backend=backend)
    found = weight.dequantised()
    # A NaN in a factor is one in each column of its row.
    assert not found[3].isfinite().any()
    assert not found[5, :64].isfinite().any()
    others = [0, 1, 2, 4, 6, 7]
    assert torch.equal(found[others], truth[others])
    assert torch.equal(found[5, 64:], truth[5, 64:])


PACKED = config("packed", 32)
GROUPS = PACKED["config_groups"]["group_0"]


@pytest.mark.parametrize(
    ("form", "change", "match"),
    [
        ("gptq", {"bits": 8}, "bits is 8"),
        ("gptq", {"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
        ("gptq", {"dynamic": {"-:.*down.*": {}}}, "dynamic"),
        ("gptq", {"group_size": 0}, "group_size is 0"),
        ("gptq", {"group_size": 16}, "6 groups, scales 3"),
        ("gptq", {"desc_act": True}, "g_idx is needed"),
        ("gptq act-order", {"desc_act": False}, "g_idx reorders columns"),
        # Zeros of gptq_v2 that a config calls gptq, as in vLLM pull request 38966.
        ("gptq_v2", {"checkpoint_format": "gptq"}, "gptq_v2"),
        ("gptq", {"sym": True}, "not from 8 to 8"),
        ("gptq", {"quant_method": "hqq"}, "quant_method is 'hqq'"),
        ("awq", {"version": "gemv"}, "'gemv'"),
        ("awq", {"zero_point": False}, "zero_point is False"),
        ("packed", {"format": "nvfp4-pack-quantized"}, "format is 'nvfp4"),
        ("packed", {"transform_config": {"config_groups": {"R1": {}}}}, "transform_config"),
        ("packed", {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config"),
        ("packed", {"config_groups": {}}, "config_groups"),
        ("packed", {"config_groups": {"a": GROUPS, "b": {"weights": None}}}, "config_groups"),
        ("packed sym", {"config_groups": PACKED["config_groups"]}, "weight_zero_point is missing"),
        ("packed", config("packed sym", 32), "weight_zero_point new"),
    ],
)
def test_what_is_read_in_two_ways_is_refused(form: str, change: dict[str, Any], match: str) -> None:
    tensors = case(form, 24, 32, 3, 3).tensors
    with pytest.raises(ValueError, match=match):
        read_int4(config(form, 32) | change, tensors)


def test_other_tensors_are_refused() -> None:
    tensors = case("packed", 24, 32, 3, 3).tensors
    for change, match in [
        ({"weight_shape": torch.tensor([25, 96])}, "25 rows"),
        ({"weight_shape": torch.tensor([24, 80])}, "not of one weight"),
        ({"weight_scale": tensors["weight_scale"].double()}, "float64"),
        ({"weight_zero_point": tensors["weight_zero_point"][:2]}, "weight_zero_point is"),
        ({"weight_global_scale": torch.ones(1)}, "weight_global_scale new"),
    ]:
        with pytest.raises(ValueError, match=match):
            read_int4(PACKED, tensors | change)
