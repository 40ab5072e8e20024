"""TinyLoRA (arXiv 2602.04118): one vector for a group of modules, spread by fixed projections.

Keys ``<module>.tinylora_A`` (r, in), ``tinylora_B`` (out, r), ``tinylora_P`` (u, r, r), and
``base_model.tinylora_v.<group>`` (u,). PEFT forms groups by counting the modules in the model's
order, which a file does not tell; but it draws each P by a seed that the same count is added to, so
the formula can find a module's number by its P.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.field_values import number, refuse, whole
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import by_module, read_layouts
from rankloom.adapter.kinds.parts import broken
from rankloom.adapter.kinds.reading import Reading
from rankloom.adapter.kinds.shared import ROOT, lacks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.finding import Finding
    from rankloom.tensorfile.header import TensorEntry

_VECTORS = f"{ROOT}tinylora_v."
_LAYOUT = {"tinylora_A": "r in", "tinylora_B": "out r", "tinylora_P": "u r r"}


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    vectors = {key: entry for key, entry in tensors.items() if key.startswith(_VECTORS)}
    count = len(by_module(tensors, ["tinylora_B"]))
    if not by_module(tensors, ["tinylora_P"]):
        return lacks(tensors, "save_projection", "tinylora_P")
    groups = max(1, round(count * (1.0 - config.options["weight_tying"])))
    size = max(1, count // groups)
    used = {min(place // size, groups - 1) for place in range(count)}
    options = {
        "seed": config.options["projection_seed"],
        "modules": count,
        "groups": groups,
        "size": size,
    }

    def build(parts: Parts) -> Iterator[Target | Finding]:
        if vectors.keys() != {f"{_VECTORS}{group}" for group in used}:
            what = f"has {len(vectors)} vectors for {count} modules, not {len(used)}"
            yield broken("TEN002", parts.module, what)
        elif any(entry.shape != (parts.sizes["u"],) for entry in vectors.values()):
            yield broken("TEN003", parts.module, f"has vectors that are not of {parts.sizes['u']}")
        else:
            named = {f"v.{key.removeprefix(_VECTORS)}": entry for key, entry in vectors.items()}
            shape = parts.sizes["out"], parts.sizes["in"]
            change = Computed("tinylora", {**named, **parts.tensors}, options, shape=shape)
            yield Target(parts.module, "tinylora", change)

    reading = read_layouts(tensors, [_LAYOUT], build, known=lambda _: {"u": config.options["u"]})
    return Reading(reading.targets, reading.taken | vectors.keys(), reading.findings)


def _share(name: str, value: Any) -> float:  # noqa: ANN401 - a JSON value
    share = number(name, value)
    if 0 <= share <= 1:
        return share
    raise refuse(name, value, "a number from 0 to 1")


KIND = Kind(
    "TINYLORA",
    _read,
    fields={
        "u": Field(whole(1), 64),
        "weight_tying": Field(_share, 0.0),
        "projection_seed": Field(whole(), 42),
    },
    training={
        "r": "the shapes of the tensors tell; a small layer has less",
        "save_projection": "the file tells whether they were saved",
        "init_v_bound": "how the vectors began; the file holds how they ended",
        "tinylora_dropout": "acts in training only",
    },
    shared=frozenset([_VECTORS]),
)
