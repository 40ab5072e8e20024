"""Values: torch (a development dependency) as oracle for every cast."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from folders import tensor, tensor_file
from rankloom.errors import BackendUnavailableError, IntegrityError
from rankloom.tensorfile import values
from rankloom.tensorfile.header import TensorEntry, read_header

if TYPE_CHECKING:
    from pathlib import Path

TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


def write(tmp_path: Path, dtype: str, shape: tuple[int, ...], raw: bytes) -> TensorEntry:
    path = tmp_path / "x.safetensors"
    before = tensor(np.arange(3, dtype=np.float32))
    path.write_bytes(tensor_file({"before": before, "x": (dtype, shape, raw), "z": before}))
    return read_header(path).tensors["x"]


def raw_of(values_: torch.Tensor) -> bytes:
    return values_.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", TORCH)
def test_values_are_read_exactly(dtype: str, tmp_path: Path) -> None:
    source = (torch.arange(24).reshape(2, 3, 4) - 11).to(torch.float32).mul(0.37)
    source = source.to(TORCH[dtype])
    found = values.load_numpy(write(tmp_path, dtype, (2, 3, 4), raw_of(source)))
    wide = source.float() if dtype in {"BF16", "F8_E4M3", "F8_E5M2"} else source
    assert found.shape == (2, 3, 4)
    assert found.dtype == wide.numpy().dtype
    np.testing.assert_array_equal(found, wide.numpy())


@pytest.mark.parametrize(("dtype", "width"), [("F8_E4M3", 8), ("F8_E5M2", 8), ("BF16", 16)])
def test_every_code_of_a_small_float_is_decoded(dtype: str, width: int, tmp_path: Path) -> None:
    codes = np.arange(1 << width, dtype=f"<u{width // 8}")
    raw = codes.tobytes()
    found = values.load_numpy(write(tmp_path, dtype, codes.shape, raw))
    signed = torch.from_numpy(codes.view(f"<i{width // 8}").copy())
    expected = signed.view(TORCH[dtype]).float().numpy()
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


def test_dtypes_without_numpy_counterpart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="F4"):
        values.load_numpy(write(tmp_path, "F4", (4,), bytes(2)))


@given(st.lists(st.floats(width=32), min_size=1), st.sampled_from([np.float32, np.float64]))
def test_bf16_rounding_is_torch_s(numbers: list[float], dtype: type[np.floating[Any]]) -> None:
    array = np.array(numbers, dtype)
    expected = torch.from_numpy(array).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    found = values.bf16_bits(array)
    finite = ~np.isnan(array)
    np.testing.assert_array_equal(found[finite], expected[finite])
    assert np.isnan((found.astype(np.uint32) << 16).view(np.float32)[~finite]).all()


def test_bf16_survives_the_way_over_float32() -> None:
    codes = np.arange(1 << 16, dtype=np.uint16)
    wide = (codes.astype(np.uint32) << 16).view(np.float32)
    quiet = codes.copy()
    signalling = np.isnan(wide) & (codes & 0x40 == 0)
    np.testing.assert_array_equal(values.bf16_bits(wide)[~signalling], quiet[~signalling])


@given(st.lists(st.floats(width=64, allow_nan=False), min_size=1))
def test_bf16_of_float64_goes_through_float32_as_in_torch(numbers: list[float]) -> None:
    array = np.array(numbers)
    expected = torch.from_numpy(array).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(values.bf16_bits(array), expected)


@pytest.mark.parametrize("chunk", [8, 64, 1 << 20])
def test_chunks_are_the_bytes(chunk: int, tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((7, 13)).astype(np.float32)
    entry = write(tmp_path, "F32", array.shape, array.tobytes())
    assert b"".join(bytes(part) for part in values.raw_chunks(entry, chunk)) == array.tobytes()
    rounded = b"".join(bytes(part) for part in values.bf16_chunks(entry, chunk))
    assert rounded == raw_of(torch.from_numpy(array).to(torch.bfloat16))


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    entry = write(tmp_path, "F32", (4,), bytes(16))
    entry.path.write_bytes(entry.path.read_bytes()[: entry.end - 4])
    with pytest.raises(IntegrityError, match="x"):
        list(values.raw_chunks(entry))
    with pytest.raises(IntegrityError):
        values.load_numpy(entry)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E5M2"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_non_finite_values_are_found_wherever_they_are(
    dtype: str, bad: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "CHUNK", 64)
    source = torch.full((101,), 3.0)
    source[-1] = source[-1] if bad is None else bad
    entry = write(tmp_path, dtype, (101,), raw_of(source.to(TORCH[dtype])))
    assert values.is_finite(entry) is (bad is None)


def test_the_largest_finite_values_are_finite(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        top = torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min], dtype=dtype)
        code = next(code for code, kind in TORCH.items() if kind == dtype)
        assert values.is_finite(write(tmp_path, code, (2,), raw_of(top)))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_zero_is_zero_of_either_sign(dtype: str, tmp_path: Path) -> None:
    zeros = torch.tensor([0.0, -0.0], dtype=TORCH[dtype])
    assert values.is_zero(write(tmp_path, dtype, (2,), raw_of(zeros)))
    tiny = torch.tensor([0.0, torch.finfo(TORCH[dtype]).tiny], dtype=TORCH[dtype])
    assert not values.is_zero(write(tmp_path, dtype, (2,), raw_of(tiny)))
