"""RoAd (arXiv 2409.00119): angles and scales of pairs of outputs.

Keys ``<module>.road_theta`` and ``road_alpha``: out/2 values each for road_1, out for road_2,
2·out for road_4. A bias is rotated with its layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.config import FILE
from rankloom.adapter.config_checks import FieldError
from rankloom.adapter.field_values import choice, whole
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.parts import misshapen, read_parts
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.parts import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.tensorfile.header import TensorEntry


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    options = {name: config.options[name] for name in ("variant", "group_size")}

    def build(module: str, parts: Parts) -> Iterator[Target | Finding]:
        if len(parts["theta"].shape) != 1 or parts["theta"].shape != parts["alpha"].shape:
            yield misshapen(module, parts, "as many scales as angles, in one dimension")
            return
        yield Target(module, "road", Computed("road", parts, options, needs_base=True))
        bias = Computed("road", parts, options, needs_base=True, if_present=True)
        yield Target(module, "road", bias, "bias")

    return read_parts(tensors, {"theta": ".road_theta", "alpha": ".road_alpha"}, build)


def _even(name: str, value: Any) -> int:  # noqa: ANN401 - a JSON value
    """Return the size of a group, whose halves are paired."""
    size: int = whole(2)(name, value)
    if size % 2:
        message = f"{FILE}: {name} is {size}, but the halves of a group are paired"
        raise FieldError(Finding("CFG001", message, where=name, fix="save the adapter again"))
    return size


KIND = Kind(
    "ROAD",
    _read,
    fields={
        "variant": Field(choice("road_1", "road_2", "road_4"), "road_1"),
        "group_size": Field(_even, 64),
    },
)
