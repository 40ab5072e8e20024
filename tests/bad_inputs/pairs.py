"""Adapters that are composed, and what must have become of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file

from adapter_folder import manifest_of
from bad_inputs.record import recorded
from folders import PREFIX, SHAPES, adapter, base, base_tensors, factors, tensor
from rankloom.ref import AdapterName
from rankloom.registry.embedded import open_registry
from rankloom.registry.push import push

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bad_inputs.row import Make

    Arrays = dict[str, np.ndarray[Any, Any]]

Q, V = (f"model.layers.0.self_attn.{leaf}" for leaf in ("q_proj", "v_proj"))
ONE, TWO = {Q: SHAPES[Q]}, {V: SHAPES[V]}


def two(one: Mapping[str, Any], other: Mapping[str, Any]) -> Make:
    """Return what writes two adapters: arguments of :func:`lora` for each."""

    def make(place: Path) -> None:
        lora(place / "one", **one)
        lora(place / "two", seed=1, **other)

    return make


def lora(
    folder: Path,
    shapes: Mapping[str, tuple[int, int]] = SHAPES,
    *,
    r: int = 2,
    seed: int = 0,
    content: Mapping[str, Any] | None = None,
    **fields: object,
) -> Path:
    """Write an adapter of this rank on these modules."""
    leaves = sorted({module.rpartition(".")[2] for module in shapes})
    given = {"r": r, "target_modules": leaves, **fields}
    return adapter(folder, {**factors(shapes, r, seed=seed), **(content or {})}, **given)


def of_two_bases(place: Path) -> None:
    """Write adapters that were made for bases with the same shapes and other values."""
    for seed, name in enumerate(("one", "two")):
        arrays = base_tensors(seed=seed)
        made = base(place / f"base-{name}", {key: tensor(value) for key, value in arrays.items()})
        recorded(lora(place / name, seed=seed), made)


def twice(place: Path) -> None:
    """Write one adapter twice."""
    for name in ("one", "two"):
        lora(place / name)


def saved(values: float) -> dict[str, Any]:
    """Return a head that was trained as a whole."""
    head = np.full((10, 8), values, np.float32)
    return {"content": {f"{PREFIX}lm_head.weight": tensor(head)}, "modules_to_save": ["lm_head"]}


def dora() -> dict[str, Any]:
    """Return what makes an adapter a DoRA."""
    vectors = {
        f"{PREFIX}{module}.lora_magnitude_vector": tensor(np.ones(rows, np.float32))
        for module, (rows, _) in SHAPES.items()
    }
    return {"content": vectors, "use_dora": True}


def recipe(text: str) -> Make:
    """Return what writes two adapters and a recipe."""

    def make(place: Path) -> None:
        two({}, {})(place)
        (place / "r.yaml").write_text(text)

    return make


def yanked(place: Path) -> None:
    """Push an adapter and yank it."""
    folder = lora(place / "one")
    lora(place / "two", seed=1)
    name = AdapterName("default", "old")
    registry = open_registry(place / "home/registry")
    version = push(registry, folder, name, manifest_of(folder))
    registry.yank(name, version.digest, "wrong data")
    registry.close()


def occupied(make: Make) -> Make:
    """Return what writes the same, and a file where the output shall go."""

    def with_file(place: Path) -> None:
        make(place)
        (place / "out").mkdir()
        (place / "out/notes.txt").write_text("the only copy")

    return with_file


def untouched(place: Path) -> None:
    """Fail if what was in the place of the output is not as it was."""
    assert [path.name for path in (place / "out").iterdir()] == ["notes.txt"]
    assert (place / "out/notes.txt").read_text() == "the only copy"


def nothing(place: Path) -> None:
    """Fail if there is an output, or a part of one."""
    assert not list(place.glob("*out*/*"))
    assert not list(place.glob(".*out*"))


def deltas(folder: Path) -> Arrays:
    """Return scale·B·A of each module in float64, of a folder or of what was composed."""
    config = json.loads((folder / "adapter_config.json").read_text())
    root = np.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
    tensors = load_file(folder / "adapter_model.safetensors")
    modules = {key.rpartition(".lora_")[0] for key in tensors}
    return {
        module: config["lora_alpha"]
        / root
        * (
            tensors[f"{module}.lora_B.weight"].astype(np.float64)
            @ tensors[f"{module}.lora_A.weight"].astype(np.float64)
        )
        for module in modules
    }


def weighted(one: float, other: float) -> Make:
    """Return what fails if the output is not this sum of the two adapters."""

    def check(place: Path) -> None:
        first, second, found = (deltas(place / name) for name in ("one", "two", "out"))
        assert found.keys() == first.keys() | second.keys()
        for module, delta in found.items():
            wanted = one * first.get(module, 0) + other * second.get(module, 0)
            # Scales are rounded once, into a float32 factor: half an ulp of each product.
            bound = 2.0**-23 * np.abs(wanted).max()
            assert np.abs(delta - wanted).max() <= bound, module

    return check


def too_large(place: Path) -> None:
    """Write an adapter whose sum with the base is beyond the largest float16."""
    content = {f"{PREFIX}{Q}.lora_B.weight": tensor(np.full((6, 2), 3e4, np.float32))}
    adapter(place / "adapter", {**factors(), **content})
    base(place / "base")
