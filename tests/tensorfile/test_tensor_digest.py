"""The digest of tensors counts what they are, and nothing of the file that holds them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankloom.tensorfile.header import read_header
from rankloom.tensorfile.tensor_digest import contents, leaves, tensor_digest

VALUES: dict[str, np.ndarray[Any, Any]] = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.ones(4, dtype=np.float16),
}


def digest(path: Path, tensors: dict[str, np.ndarray[Any, Any]], **metadata: str) -> str:
    save_file(tensors, path, metadata=metadata or None)
    return tensor_digest(leaves(read_header(path).tensors.values()))


def test_it_is_what_its_description_says(tmp_path: Path) -> None:
    leaves = [
        ["a", "F16", [4], hashlib.sha256(VALUES["a"].tobytes()).hexdigest()],
        ["b", "F32", [2, 3], hashlib.sha256(VALUES["b"].tobytes()).hexdigest()],
    ]
    text = json.dumps(leaves, separators=(",", ":"), sort_keys=True).encode()
    expected = f"sha256:{hashlib.sha256(text).hexdigest()}"
    assert digest(tmp_path / "x.safetensors", VALUES) == expected


def test_metadata_does_not_count(tmp_path: Path) -> None:
    plain = digest(tmp_path / "x.safetensors", VALUES)
    assert digest(tmp_path / "y.safetensors", VALUES, format="pt", note="n") == plain


@pytest.mark.parametrize(
    "other",
    [
        {**VALUES, "b": VALUES["b"] + 1},
        {**VALUES, "b": VALUES["b"].reshape(3, 2)},
        {**VALUES, "a": VALUES["a"].view(np.int16)},
        {"a": VALUES["a"], "c": VALUES["b"]},
        {"a": VALUES["a"]},
    ],
    ids=["value", "shape", "dtype", "name", "number"],
)
def test_everything_of_a_tensor_counts(
    tmp_path: Path, other: dict[str, np.ndarray[Any, Any]]
) -> None:
    plain = digest(tmp_path / "x.safetensors", VALUES)
    assert digest(tmp_path / "y.safetensors", other) != plain


def found(path: Path, tensors: dict[str, np.ndarray[Any, Any]]) -> frozenset[bytes]:
    save_file(tensors, path)
    return contents(leaves(read_header(path).tensors.values()))


def test_a_content_is_dtype_shape_and_bytes_whatever_its_name(tmp_path: Path) -> None:
    value = VALUES["b"]
    inner = hashlib.sha256(value.tobytes()).hexdigest()
    text = json.dumps(["F32", [2, 3], inner], separators=(",", ":"))
    expected = hashlib.sha256(text.encode()).digest()[:16]
    assert found(tmp_path / "x", {"one": value, "two": value.copy()}) == {expected}
    others = {"shape": value.reshape(3, 2), "dtype": value.view(np.int32), "value": value + 1}
    assert len(found(tmp_path / "y", others) | {expected}) == 4


def test_what_others_have_by_chance_is_no_content(tmp_path: Path) -> None:
    wide = 3 << 20  # several reads
    chance = {
        "zeros": np.zeros((4, 2), np.float32),
        "ones": np.ones(wide, np.float16),
        "scalar": np.array(8, np.float32),
        "empty": np.zeros(0, np.float32),
    }
    assert found(tmp_path / "x", chance) == frozenset()
    last = np.ones(wide, np.float16)
    last[-1] = 2
    assert len(found(tmp_path / "y", {"last": last, "pair": np.array([1, 2], np.float32)})) == 2
