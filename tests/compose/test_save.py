from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lowrank_cases import LLAMA, Case, deltas, fingerprint, part, total
from rankloom.adapter.reader import read
from rankloom.composition import compose
from rankloom.digest import of_file
from rankloom.errors import (
    AdapterError,
    BackendUnavailableError,
    ConflictError,
    IncompatibleError,
    RankloomWarning,
)
from rankloom.manifest import read_record

if TYPE_CHECKING:
    from pathlib import Path

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for module, delta in expected.items():
        # One rounding of each coefficient·B to float32: 2^-24 of a sum of at most 20 products.
        bound = 2e-6 * delta.abs().max()
        assert (found[module] - delta).abs().max() <= bound, module


def test_mixed_ranks_disjoint_targets_and_a_negative_weight(tmp_path: Path) -> None:
    one = Case(rank=4, alpha=8, dtype=torch.bfloat16).write(tmp_path / "one")
    some = {Q: LLAMA[Q], "model.layers.7.extra": (12, 20)}
    two = Case(some, rank=6, alpha=3, rslora=True, seed=1).write(tmp_path / "two")
    saved = compose([part(one), part(two)], [0.7, -1.3]).save(tmp_path / "out" / "deep")
    close(deltas(saved), total(deltas(one, 0.7), deltas(two, -1.3)))
    adapter = read(saved)
    assert {target.change.scale for target in adapter.targets} == {1.0}
    assert adapter.ranks == (10,)
    assert adapter.kinds == ("lora",)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ranks=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    alphas=st.lists(st.integers(1, 64), min_size=3, max_size=3),
    weights=st.lists(
        st.floats(-4, 4).filter(lambda weight: abs(weight) > 1e-3), min_size=3, max_size=3
    ),
    rslora=st.booleans(),
)
def test_saved_is_the_sum(
    tmp_path_factory: pytest.TempPathFactory,
    ranks: list[int],
    alphas: list[int],
    weights: list[float],
    rslora: bool,
) -> None:
    folder = tmp_path_factory.mktemp("case")
    shapes = {Q: (5, 7), DOWN: (3, 2)}
    paths = [
        Case(shapes, rank, alphas[i], rslora and i == 0, seed=i, ranks={DOWN: 2}).write(
            folder / str(i)
        )
        for i, rank in enumerate(ranks)
    ]
    saved = compose([part(path) for path in paths], weights[: len(paths)]).save(folder / "out")
    expected = [deltas(path, weight) for path, weight in zip(paths, weights, strict=False)]
    found = deltas(saved)
    for module, delta in total(*expected).items():
        # The terms may cancel, so the bound is of their magnitudes: roundings of 2^-24.
        bound = 1e-6 * sum(term[module].abs().max() for term in expected)
        assert (found[module] - delta).abs().max() <= bound


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    one, two = (Case(seed=i).write(tmp_path / str(i)) for i in (1, 2))
    first = compose([part(one, "a"), part(two, "b")], [1, 0.5]).save(tmp_path / "first")
    again = compose([part(one, "./x"), part(two, "y")], [1, 0.5]).save(tmp_path / "again")
    names = {path.name for path in first.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "rankloom.json"}
    assert all(of_file(first / name) == of_file(again / name) for name in names)


def test_record_names_base_parts_and_files(tmp_path: Path) -> None:
    base = fingerprint("llama", exact="1")
    parts = [
        part(Case(seed=1).write(tmp_path / "one"), base=base),
        part(Case(seed=2).write(tmp_path / "two")),
    ]
    composition = compose(parts, [1, -0.5])
    saved = composition.save(tmp_path / "out")
    record = read_record(saved)
    assert record is not None
    assert record.base == base
    assert record.lock == {
        "schema": 1,
        "algorithm": "exact/1",
        "parts": [
            {"digest": parts[0].digest, "weight": 1.0},
            {"digest": parts[1].digest, "weight": -0.5},
        ],
        "parameters": {},
    }
    assert all(of_file(saved / entry.path) == entry.digest for entry in record.files)
    assert read(saved).base == base


def test_a_composition_can_be_composed_again(tmp_path: Path) -> None:
    paths = [Case(seed=i, rank=2 + i).write(tmp_path / str(i)) for i in range(3)]
    inner = compose([part(paths[0]), part(paths[1])], [0.5, 2]).save(tmp_path / "inner")
    outer = compose([part(inner), part(paths[2])], [-1, 1]).save(tmp_path / "outer")
    expected = total(deltas(paths[0], -0.5), deltas(paths[1], -2), deltas(paths[2]))
    close(deltas(outer), expected)


def test_config_keeps_what_describes_the_base(tmp_path: Path) -> None:
    one, two = (Case(seed=i, rank=4).write(tmp_path / str(i)) for i in (1, 2))
    saved = compose([part(one), part(two)]).save(tmp_path / "out")
    config = json.loads((saved / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/base"
    assert config["task_type"] == "CAUSAL_LM"
    assert config["r"] == config["lora_alpha"] == 8
    assert config["rank_pattern"] == {}


def test_nothing_is_left_of_a_save_that_fails(tmp_path: Path) -> None:
    folder = Case(dtype=torch.float32).write(tmp_path / "one")
    composition = compose([part(folder)])
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AdapterError, match="FMT008"):
        composition.save(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    folder = Case(dtype=torch.float32).write(tmp_path / "one")
    composition = compose([part(folder)])
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\xc0\x7f")
    with pytest.raises(AdapterError, match="NUM001"):
        composition.save(tmp_path / "out")


@pytest.mark.filterwarnings("ignore:MRG003")  # that large, as is said
def test_a_weight_that_overflows_is_refused(tmp_path: Path) -> None:
    composition = compose([part(Case().write(tmp_path / "one"))], [1e300])
    with pytest.raises(AdapterError, match="NUM004"):
        composition.save(tmp_path / "out")


def test_an_output_that_exists_is_left_alone(tmp_path: Path) -> None:
    folder = Case().write(tmp_path / "one")
    with pytest.raises(ConflictError):
        compose([part(folder)]).save(folder)
    assert read_record(folder) is None


def test_same_adapter_twice_warns_and_adds_up(tmp_path: Path) -> None:
    folder = Case().write(tmp_path / "one")
    with pytest.warns(RankloomWarning, match="MRG004"):
        composition = compose([part(folder, "a"), part(folder, "b")], [1, 2])
    close(deltas(composition.save(tmp_path / "out")), deltas(folder, 3))


def test_a_base_that_is_named_must_fit(tmp_path: Path) -> None:
    folder = Case().write(tmp_path / "one")
    mine, other = fingerprint("llama", exact="1"), fingerprint("llama", exact="2")
    with pytest.raises(IncompatibleError, match="BASE003 one"):
        compose([part(folder, base=mine)], base=other)
    assert compose([part(folder)], base=other).base == other


def test_push_goes_through_the_publisher(tmp_path: Path) -> None:
    parts = [part(Case().write(tmp_path / "one"))]
    with pytest.raises(BackendUnavailableError, match="without a registry"):
        compose(parts).push("name")
    calls: list[tuple[object, ...]] = []
    composition = compose(parts, publisher=lambda *call: calls.append(call))  # type: ignore[arg-type, func-returns-value]
    composition.push("name", alias="prod")
    assert calls == [(composition, "name", "prod")]
    assert composition.targets == tuple(sorted(f"{module}.weight" for module in LLAMA))
    assert "exact: 1·one" in repr(composition)
