"""RandLoRA (arXiv 2502.00987): a full-rank sum of fixed random factors, scaled.

Keys ``<module>.randlora_lambda`` (r, bases), ``randlora_gamma`` (bases, smaller side), and once
``base_model.randlora_A``, ``base_model.randlora_B``, of which PEFT saves a copy in each module too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import read_layouts
from rankloom.adapter.kinds.shared import lacks, take, with_taken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.tensorfile.header import TensorEntry

_OWN = {"randlora_lambda": "r bases", "randlora_gamma": "bases small"}
_COPIES = {"randlora_A": "r 1 *", "randlora_B": "large most r"}


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    shared = take(tensors, _COPIES)
    rank = config.options["r"]
    if len(shared) < 2:
        return lacks(tensors, "save_projection", "randlora_A and randlora_B")
    options = {"scale": config.options["randlora_alpha"] / rank}

    def build(parts: Parts) -> Iterator[Target]:
        projections = {name[-1]: entry for name, entry in shared.items()}
        copies = {f"own.{name[-1]}": parts.tensors[name] for name in parts.tensors.keys() & _COPIES}
        trained = {name: parts.tensors[name] for name in _OWN}
        change = Computed("randlora", {**projections, **copies, **trained}, options)
        yield Target(parts.module, "randlora", change)

    modules = {key: entry for key, entry in tensors.items() if not key.startswith("base_model.")}
    layouts = [_OWN, _OWN | _COPIES]
    reading = read_layouts(modules, layouts, build, known=lambda _: {"r": rank})
    return with_taken(reading, shared)


KIND = Kind(
    "RANDLORA",
    _read,
    fields={"r": Field(checks.rank, 32), "randlora_alpha": Field(checks.alpha, 640)},
    training={
        "save_projection": "the file tells whether they were saved",
        "projection_prng_key": "how the projections began; the file holds them",
        "sparse": "how the projections began; the file holds them",
        "very_sparse": "how the projections began; the file holds them",
        "randlora_dropout": "acts in training only",
    },
    shared=frozenset(["base_model.randlora_A", "base_model.randlora_B"]),
)
