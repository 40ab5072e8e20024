from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save

from lowrank_cases import Case, deltas
from rankloom.adapter.reader import read
from rankloom.change.evaluate import load
from rankloom.change.formula import Sum, Weighted
from rankloom.change.read import all_finite, read_finite, read_tensor
from rankloom.errors import AdapterError, UnsupportedAdapterError
from rankloom.tensorfile.header import TensorEntry, read_header
from rankloom.tensorfile.layout import lay_out
from rankloom_kernels import Workspace

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = {"model.proj": (40, 24)}


def formula(folder: Path, *weights: float) -> Sum:
    change = read(folder).targets[0].change
    return Sum(tuple(Weighted(weight, change) for weight in weights))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_rows_of_a_sum(tmp_path: Path, dtype: torch.dtype, *, transposed: bool) -> None:
    folder = Case(SHAPES, rslora=True, dtype=torch.bfloat16).write(tmp_path / "adapter")
    delta = deltas(folder, 0.7 - 2)["model.proj"]
    delta = delta.T if transposed else delta
    loaded = load(formula(folder, 0.7, -2), transposed=transposed, dtype=dtype)
    assert loaded.shape == tuple(delta.shape)
    workspace = Workspace(300)
    for start, stop in [(0, 7), (7, 8), (8, delta.shape[0])]:
        found = loaded.merge_(
            torch.zeros(stop - start, delta.shape[1], dtype=dtype), start=start, workspace=workspace
        )
        # The two terms cancel in part: roundings are of the larger one.
        bound = 1e-6 * delta.abs().max() if dtype == torch.float32 else 1e-15
        assert (found - delta[start:stop]).abs().max() <= bound


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_one_tensor_as_the_library_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {
        "first": torch.randn(3, 5).to(dtype),
        "none": torch.zeros(0, 4, dtype=dtype),
        "third": torch.randn(7, 1).to(dtype),
    }
    path = tmp_path / "file.safetensors"
    path.write_bytes(save(tensors))
    for name, entry in read_header(path).tensors.items():
        assert torch.equal(read_tensor(entry), tensors[name])


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(save({"a": torch.ones(2, 3), "i": torch.ones(2, 3).to(torch.float8_e5m2)}))
    entries = read_header(path).tensors
    with pytest.raises(UnsupportedAdapterError, match="TEN007 i in"):
        read_tensor(entries["i"])
    path.write_bytes(save({"a": torch.tensor([[1.0, float("nan"), float("inf")] * 2])}))
    with pytest.raises(AdapterError, match=r"NUM001 a in .* 4 values"):
        read_finite(read_header(path).tensors["a"])
    short = TensorEntry(path, "a", "F32", (2, 3), 0, path.stat().st_size + 4)
    with pytest.raises(AdapterError, match=r"FMT008 .* ends inside a"):
        read_tensor(short)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_finite_values_whose_sum_is_infinite_are_finite(dtype: torch.dtype) -> None:
    largest = torch.full((4,), torch.finfo(dtype).max, dtype=dtype)
    assert all_finite(largest)
    assert not all_finite(torch.tensor([torch.inf, -torch.inf, 1], dtype=dtype))
    assert not all_finite(torch.tensor([1, torch.nan], dtype=dtype))


def test_a_laid_out_file_is_what_the_library_writes(tmp_path: Path) -> None:
    tensors = {
        "b.bf16": torch.randn(3, 5).bfloat16(),
        "z.f32": torch.randn(2, 2),
        "a.i64": torch.arange(3),
        "é.u8": torch.arange(5, dtype=torch.uint8),
        "scalar": torch.tensor(2.5),
    }
    codes = {"b.bf16": "BF16", "z.f32": "F32", "a.i64": "I64", "é.u8": "U8", "scalar": "F32"}
    path = tmp_path / "file.safetensors"
    prefix, header = lay_out(
        path, [(name, codes[name], tuple(t.shape)) for name, t in tensors.items()], {"format": "pt"}
    )
    assert save(tensors, {"format": "pt"})[: len(prefix)] == prefix
    content = bytearray(prefix)
    for name, entry in header.tensors.items():
        assert len(content) == entry.start
        content += tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes()
        assert len(content) == entry.end
    path.write_bytes(content)
    assert all(torch.equal(load_file(path)[name], tensor) for name, tensor in tensors.items())
    assert read_header(path).tensors == header.tensors
