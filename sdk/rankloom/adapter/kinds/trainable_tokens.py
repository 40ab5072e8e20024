"""Trainable tokens: some rows of an embedding, ``<module>.trainable_tokens_delta`` (n, width).

In spite of the name they replace the rows, whose numbers are in the config. Of a tied head the file
holds a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.adapter.change import Rows, Target
from rankloom.adapter.field_values import refuse
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import by_module, read_layouts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.tensorfile.header import TensorEntry


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    indices = config.options["token_indices"]

    lone = len(by_module(tensors, ["trainable_tokens_delta"])) == 1

    def build(parts: Parts) -> Iterator[Target]:
        rows = Rows(parts.tensors["trainable_tokens_delta"], indices, spreads=lone)
        yield Target(parts.module, "trainable_tokens", rows)

    layout = {"trainable_tokens_delta": "n width"}
    return read_layouts(tensors, [layout], build, known=lambda _: {"n": len(indices)})


def _indices(name: str, value: Any) -> tuple[int, ...]:  # noqa: ANN401 - a JSON value
    if isinstance(value, list) and all(type(item) is int and item >= 0 for item in value):
        if len(set(value)) == len(value):
            return tuple(value)
        raise refuse(name, value, "a list of different rows")
    raise refuse(name, value, "a list of rows")


KIND = Kind(
    "TRAINABLE_TOKENS",
    _read,
    fields={"token_indices": Field(_indices, [])},
    export="with weight 1",
)
