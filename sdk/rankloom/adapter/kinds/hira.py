r"""HiRA (openreview TwJrTz9cRS): factors whose product multiplies W element by element.

Keys ``<module>.hira_A`` (r, in, \*kernel) and ``hira_B`` (out, r, 1, …) for linear layers and
convolutions; ``hira_embedding_A`` (r, rows) and ``hira_embedding_B`` (width, r) for embeddings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds.kind import Kind
from rankloom.adapter.kinds.parts import misshapen, read_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.parts import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.finding import Finding
    from rankloom.tensorfile.header import TensorEntry


def _read(_config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    layers = read_parts(tensors, {"a": ".hira_A", "b": ".hira_B"}, _layer)
    endings = {"a": ".hira_embedding_A", "b": ".hira_embedding_B"}
    return layers.joined(read_parts(tensors, endings, _embedding))


def _layer(module: str, parts: Parts) -> Iterator[Target | Finding]:
    a, b = parts["a"].shape, parts["b"].shape
    if len(a) < 2 or len(a) != len(b) or a[0] != b[1] or set(b[2:]) - {1}:
        yield misshapen(module, parts, "A (r, in, *kernel) and B (out, r, 1, …)")
    else:
        change = Computed("hira", parts, needs_base=True, shape=(b[0], *a[1:]))
        yield Target(module, "hira", change)


def _embedding(module: str, parts: Parts) -> Iterator[Target | Finding]:
    a, b = parts["a"].shape, parts["b"].shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        yield misshapen(module, parts, "A (r, rows) and B (width, r)")
    else:
        change = Computed("hira_embedding", parts, needs_base=True, shape=(a[1], b[0]))
        yield Target(module, "hira", change)


_RANK = "the factors have it, and nothing is scaled by it (PEFT itself ignores rank_pattern)"

KIND = Kind(
    "HIRA",
    _read,
    training={"r": _RANK, "rank_pattern": _RANK, "hira_dropout": "acts in training only"},
    tells_conv1d=False,
)
