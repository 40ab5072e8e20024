"""TinyLoRA (arXiv 2602.04118): one vector for a group of modules, spread by fixed projections.

Keys ``<module>.tinylora_A`` (r, in), ``tinylora_B`` (out, r), ``tinylora_P`` (u, r, r), and
``base_model.tinylora_v.<group>`` (u,). A file does not say which module is in which group: PEFT
counts the modules in the model's order. So only an adapter with one group, or one module, is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.field_values import whole
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import by_module, read_layouts
from rankloom.adapter.kinds.parts import broken
from rankloom.adapter.kinds.reading import Reading
from rankloom.adapter.kinds.shared import ROOT, lacks
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.tensorfile.header import TensorEntry

_VECTORS = f"{ROOT}tinylora_v."
_LAYOUT = {"tinylora_A": "r in", "tinylora_B": "out r", "tinylora_P": "u r r"}


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    vectors = {key: entry for key, entry in tensors.items() if key.startswith(_VECTORS)}
    if not by_module(tensors, ["tinylora_P"]):
        return lacks(tensors, "save_projection", "tinylora_P")
    if len(vectors) != 1:
        return Reading((), frozenset(tensors), (_groups(len(vectors)),))
    ((key, vector),) = vectors.items()

    def build(parts: Parts) -> Iterator[Target | Finding]:
        if vector.shape != (parts.sizes["u"],):
            what = f"has {parts.sizes['u']} projections for a vector {list(vector.shape)}"
            yield broken("TEN003", parts.module, what)
            return
        shape = parts.sizes["out"], parts.sizes["in"]
        change = Computed("tinylora", {"v": vector, **parts.tensors}, shape=shape)
        yield Target(parts.module, "tinylora", change)

    reading = read_layouts(tensors, [_LAYOUT], build, known=lambda _: {"u": config.options["u"]})
    return Reading(reading.targets, reading.taken | {key}, reading.findings)


def _groups(count: int) -> Finding:
    message = (
        f"the file holds {count} vectors and does not say which module has which: PEFT counts the "
        "modules in the order of the model's code"
    )
    fix = "merge the adapter with PEFT, or train it with weight_tying=1"
    return Finding("CFG012", message, where="weight_tying", fix=fix)


KIND = Kind(
    "TINYLORA",
    _read,
    fields={"u": Field(whole(1), 64)},
    training={
        "r": "the shapes of the tensors tell; a small layer has less",
        "weight_tying": "the number of vectors tells what can be read",
        "projection_seed": "how the projections began; the file holds them",
        "save_projection": "the file tells whether they were saved",
        "init_v_bound": "how the vectors began; the file holds how they ended",
        "tinylora_dropout": "acts in training only",
    },
    shared=frozenset([_VECTORS]),
)
