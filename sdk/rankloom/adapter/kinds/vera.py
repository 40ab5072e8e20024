"""VeRA (arXiv 2310.11454) and PVeRA (arXiv 2512.07703): shared random projections, scaled.

Keys ``<module>.vera_lambda_b`` (out,), ``vera_lambda_d`` (r,), and once ``base_model.vera_A``
(r, widest in), ``base_model.vera_B`` (widest out, r). PVeRA has ``pvera_`` for ``vera_``, and 2r
rows of A: a mean and a variance, of which without sampling only the mean acts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import read_layouts
from rankloom.adapter.kinds.parts import broken
from rankloom.adapter.kinds.shared import lacks, take, with_taken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reader, Reading
    from rankloom.finding import Finding
    from rankloom.tensorfile.header import TensorEntry


def _reader(name: str) -> Reader:
    halves = 2 if name == "pvera" else 1

    def read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
        shared = take(tensors, (f"{name}_A", f"{name}_B"))
        rank = config.options["r"]
        if len(shared) < 2:
            return lacks(tensors, "save_projection", f"{name}_A and {name}_B")
        a, b = shared[f"{name}_A"], shared[f"{name}_B"]

        def build(parts: Parts) -> Iterator[Target | Finding]:
            own = {part.removeprefix(f"{name}_"): entry for part, entry in parts.tensors.items()}
            out = parts.sizes["out"]
            fits = len(a.shape) == len(b.shape) == 2 and b.shape[0] >= out
            if not fits or (a.shape[0], b.shape[1]) != (halves * rank, rank):
                shapes = f"{name}_A {list(a.shape)}, {name}_B {list(b.shape)}"
                what = f"has {out} rows and rank {rank}, but {shapes}"
                yield broken("TEN004", parts.module, what)
                return
            change = Computed(name, {"A": a, "B": b, **own})
            yield Target(parts.module, name, change)

        layout = {f"{name}_lambda_b": "out", f"{name}_lambda_d": "d"}
        reading = read_layouts(tensors, [layout], build, known=lambda _: {"d": halves * rank})
        return with_taken(reading, shared)

    return read


def _kind(name: str, training: Mapping[str, str], fixed: Mapping[str, bool]) -> Kind:
    return Kind(
        name.upper(),
        _reader(name),
        fields={"r": Field(checks.rank, 256)},
        training={
            "save_projection": "the file tells whether they were saved",
            "projection_prng_key": "how the projections began; the file holds them",
            "d_initial": "how the tensors began; the file holds how they ended",
            f"{name}_dropout": "acts in training only",
            **training,
        },
        fixed=fixed,
        shared=frozenset([f"base_model.{name}_A", f"base_model.{name}_B"]),
    )


VERA = _kind("vera", {}, {})
PVERA = _kind(
    "pvera",
    {"generator_seed": "seeds the sampling, which inference does without"},
    {"sample_at_inference": False},
)
