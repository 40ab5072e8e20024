"""MiSS and its predecessor Bone (arXiv 2409.15371): one block that is added to every block of W.

Key ``<module>.miss_block`` (``bone_block``): (r, out); with ``init_weights`` "mini" (r, mini_r);
with "bat", which depends on the base, (out / r, r, r).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.field_values import whole
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.parts import misshapen, read_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.kind import Parse
    from rankloom.adapter.kinds.parts import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.finding import Finding
    from rankloom.tensorfile.header import TensorEntry


def _read(name: str, config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    options = config.options
    variant, rank = options["init_weights"], options["r"]
    wanted: tuple[int | None, ...] = (rank, None)
    if variant == "bat":
        wanted = (None, rank, rank)
    elif variant == "mini":
        wanted = (rank, options["mini_r"])

    def build(module: str, parts: Parts) -> Iterator[Target | Finding]:
        shape = parts["block"].shape
        if len(shape) != len(wanted) or any(
            size not in {None, found} for size, found in zip(wanted, shape, strict=True)
        ):
            sizes = ", ".join("any" if size is None else str(size) for size in wanted)
            yield misshapen(module, parts, f"({sizes})")
        elif variant == "bat":
            yield Target(module, name, Computed("miss_bat", parts, needs_base=True))
        else:
            yield Target(module, name, Computed("miss", parts))

    return read_parts(tensors, {"block": f".{name}_block"}, build)


def _init(*variants: str) -> Parse:
    """Accept the variants, which the field that names the initialisation decides too."""

    def parse(name: str, value: Any) -> str:  # noqa: ANN401 - a JSON value
        if isinstance(value, str) and value in variants:
            return value
        return "standard" if value is None else str(checks.flag(name, value))

    return parse


_RANK = Field(checks.rank, 64)

MISS = Kind(
    "MISS",
    partial(_read, "miss"),
    fields={
        "r": _RANK,
        "init_weights": Field(_init("bat", "mini"), default=True),
        "mini_r": Field(whole(1), 1),
    },
    training={"miss_dropout": "acts in training only"},
)
BONE = Kind(
    "BONE",
    partial(_read, "bone"),
    fields={"r": _RANK, "init_weights": Field(_init("bat"), default=True)},
)
