"""Repairs lose nothing, PEFT agrees, and what has two answers is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folders import PREFIX, SHAPES, adapter, base, factors, tensor, tensor_file
from rankloom.adapter import reader
from rankloom.base import reader as bases
from rankloom.errors import (
    AdapterError,
    ConflictError,
    NotFoundError,
    RefError,
    UnsupportedAdapterError,
)
from rankloom.manifest import read_record
from rankloom.repair import repair
from rankloom.tensorfile.values import bf16_bits, load_numpy
from rankloom.validate import validate

if TYPE_CHECKING:
    from pathlib import Path

ENCODER = {"encoder.layer.0.attention.query": (6, 8)}
TARGETS = ["q_proj", "v_proj"]


def products(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return scale·B·A of every target in float64."""
    found = reader.read(folder)
    scales = found.config.scales()
    result = {}
    for target in found.targets:
        a, b = (
            load_numpy(entry).astype(np.float64) for entry in (target.change.a, target.change.b)
        )  # type: ignore[union-attr]
        result[target.name] = scales.scale(target.module) * b @ a
    return result


def renamed(old: str, new: str, shapes: dict[str, tuple[int, int]] = SHAPES) -> dict[str, Any]:
    return {key.replace(old, new, 1): value for key, value in factors(shapes).items()}


def with_first(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    content = factors()
    return {**content, next(iter(content)): tensor(values)}


def done(folder: Path, target: Path, **options: Any) -> list[str]:  # noqa: ANN401 - any option
    return [rule for rule, _ in repair(folder, target, **options).done]


FIRST = np.arange(16, dtype=np.float32).reshape(2, 8) / 8


@pytest.mark.parametrize(
    ("tensors", "fields", "rules"),
    [
        (None, {}, []),
        (renamed(PREFIX, "", ENCODER), {"target_modules": ["query"]}, ["TEN001"]),
        (renamed(PREFIX, PREFIX + PREFIX), {}, ["TEN001"]),
        (renamed(".weight", ".default.weight"), {}, ["TEN009"]),
        (with_first(FIRST.astype(np.float16)), {}, ["TEN008"]),
        (with_first(bf16_bits(FIRST)), {}, ["TEN008"]),
        (with_first(FIRST.astype(np.float64)), {}, ["TEN008"]),
        (
            {
                key: ("F8_E5M2", shape, data[: len(data) // 4])
                for key, (_, shape, data) in with_first(FIRST).items()
            },
            {},
            ["TEN007"],
        ),
        (None, {"lora_alpha": "4", "r": "2"}, ["CFG004", "CFG005"]),
        (None, {"lora_alpha": 4.0}, ["CFG005"]),
        (None, {"auto_mapping": {"parent_library": "train.py"}}, ["SEC002"]),
    ],
    ids=str,
)
def test_what_is_mechanical_is_repaired(
    tensors: dict[str, Any] | None, fields: dict[str, Any], rules: list[str], tmp_path: Path
) -> None:
    folder = adapter(tmp_path / "a", tensors, **fields)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert done(folder, tmp_path / "new") == rules
    report = validate(tmp_path / "new")
    assert not [found for found in report.findings if found.rule in rules]
    assert report.ok
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_repaired_prefix_gives_the_adapter_that_was_meant(tmp_path: Path) -> None:
    sound = adapter(tmp_path / "sound", factors(ENCODER), target_modules=["query"])
    lacking = adapter(tmp_path / "a", renamed(PREFIX, "", ENCODER), target_modules=["query"])
    repair(lacking, tmp_path / "new")
    (wanted,), (found,) = products(sound).items(), products(tmp_path / "new").items()
    assert found[0] == wanted[0]
    np.testing.assert_array_equal(found[1], wanted[1])


def test_a_mixture_is_widened_without_losing_a_bit(tmp_path: Path) -> None:
    content = factors()
    first, second = list(content)[:2]
    content[first] = tensor(FIRST.astype(np.float16))
    content[second] = tensor(bf16_bits(np.full((6, 2), 1.5, np.float32)))
    folder = adapter(tmp_path / "a", content)
    before = reader.read(folder)
    repair(folder, tmp_path / "new")
    after = reader.read(tmp_path / "new")
    for name, entry in before.header.tensors.items():
        found = after.header.tensors[name]
        assert found.dtype == "F32"
        np.testing.assert_array_equal(load_numpy(found), load_numpy(entry).astype(np.float32))


def test_a_float64_that_float32_does_not_hold_stays(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", with_first(FIRST.astype(np.float64) + 1e-12))
    assert done(folder, tmp_path / "new") == []
    assert "TEN008" in {found.rule for found in validate(tmp_path / "new").errors}


def test_which_prefix_is_missing_only_the_base_can_tell(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", renamed(PREFIX, ""))
    with pytest.raises(RefError, match="prefix"):
        repair(folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    model = bases.read(base(tmp_path / "base"))
    assert done(folder, tmp_path / "new", base=model) == ["TEN001"]
    assert {target.module for target in reader.read(tmp_path / "new").targets} == set(SHAPES)
    half = adapter(tmp_path / "half", renamed("base_model.", ""))
    assert done(half, tmp_path / "whole", base=model) == ["TEN001"]
    assert (tmp_path / "whole/adapter_model.safetensors").read_bytes() == (
        tmp_path / "new/adapter_model.safetensors"
    ).read_bytes()


def test_a_prefix_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", renamed(PREFIX, "model.", ENCODER), target_modules=["query"])
    model = bases.read(base(tmp_path / "base"))
    with pytest.raises(AdapterError, match="TEN005"):
        repair(folder, tmp_path / "new", base=model)
    assert [path.name for path in tmp_path.iterdir() if path.name not in {"a", "base"}] == []


@settings(max_examples=60, deadline=None)
@given(
    own=st.integers(1, 9),
    wanted=st.integers(1, 16),
    alpha=st.sampled_from([1, 2, 8, 16, 0.3, 7]),
    rslora=st.booleans(),
)
def test_a_rank_filled_up_is_the_same_adapter_or_refused(
    own: int, wanted: int, alpha: float, rslora: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("rank")
    folder = adapter(place / "a", factors(r=own), r=own, lora_alpha=alpha, use_rslora=rslora)
    try:
        repair(folder, place / "new", rank=wanted)
    except UnsupportedAdapterError as refusal:
        allowed = f"its rank is {own}" if own > wanted else "no alpha gives"
        if allowed not in refusal.message:
            raise
        return
    found = reader.read(place / "new")
    assert found.ranks == (wanted,)
    assert validate(place / "new").ok
    for name, before in products(folder).items():
        # Zeros are added behind; a sum over more terms may be grouped otherwise.
        np.testing.assert_allclose(products(place / "new")[name], before, rtol=1e-12, atol=1e-14)
    module = found.targets[0].module
    assert found.config.scales().scale(module) == reader.read(folder).config.scales().scale(module)


def test_ranks_that_differ_are_not_filled_up(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", r=3, rank_pattern={"q_proj": 2, "v_proj": 2})
    with pytest.raises(UnsupportedAdapterError, match="differ by module"):
        repair(folder, tmp_path / "new", rank=8)


def test_in_place_only_if_asked(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", renamed(PREFIX, PREFIX + PREFIX))
    (folder / "optimizer.pt").write_bytes(b"x")
    (folder / "README.md").write_text("card")
    assert [rule for rule, _ in repair(folder, None).done] == ["TEN001"]
    assert validate(folder).ok
    names = {"adapter_config.json", "adapter_model.safetensors", "README.md", "optimizer.pt"}
    assert {file.name for file in folder.iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_base_of_a_record_is_kept_and_a_lineage_is_not(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", lora_alpha=4.0)
    digest = "sha256:" + "0" * 64
    files = [{"path": "adapter_config.json", "size": 1, "digest": digest}]
    record = {"schema": 1, "files": files, "base": {"struct": digest}, "lock": {"a": 1}}
    (folder / "rankloom.json").write_text(json.dumps(record))
    repair(folder, tmp_path / "new")
    found = read_record(tmp_path / "new")
    assert found is not None
    assert found.base is not None
    assert found.lock is None
    assert {entry.path for entry in found.files} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_an_output_is_never_overwritten(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    with pytest.raises(ConflictError):
        repair(folder, adapter(tmp_path / "b"))
    with pytest.raises(NotFoundError):
        repair(tmp_path / "gone", tmp_path / "new")


@pytest.mark.parametrize("broken", [b"", tensor_file(factors())[:-4]])
def test_a_broken_file_is_not_guessed(broken: bytes, tmp_path: Path) -> None:
    with pytest.raises(AdapterError):
        repair(adapter(tmp_path / "a", broken), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    folder = adapter(tmp_path / "b")
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(AdapterError):
        repair(folder, tmp_path / "new")


def test_a_header_with_blanks_is_written_again(tmp_path: Path) -> None:
    data = tensor_file(factors())
    length = int.from_bytes(data[:8], "little")
    blank = (length + 8).to_bytes(8, "little") + b" " * 8 + data[8:]
    folder = adapter(tmp_path / "a", blank)
    assert done(folder, tmp_path / "deep/new") == ["FMT013"]
    assert validate(tmp_path / "deep/new").findings == ()
