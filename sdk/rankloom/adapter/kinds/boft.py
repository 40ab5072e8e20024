"""BOFT (arXiv 2311.06243): butterfly factors of blocks, and one scale for each output.

Keys ``<module>.boft_R`` (factors, blocks, b, b) and ``boft_s`` (out, 1), of a convolution (1, out).
PEFT without its CUDA kernel trains one factor whatever the config says, so the tensors decide.
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
    return read_parts(tensors, {"r": ".boft_R", "s": ".boft_s"}, _build)


def _build(module: str, parts: Parts) -> Iterator[Target | Finding]:
    r, s = parts["r"].shape, parts["s"].shape
    if len(r) != 4 or r[2] != r[3] or len(s) != 2 or 1 not in s or not _is_butterfly(r):
        yield misshapen(module, parts, "R (factors, blocks, b, b) and s (out, 1) or (1, out)")
    else:
        yield Target(module, "boft", Computed("boft", parts, needs_base=True))


def _is_butterfly(shape: tuple[int, ...]) -> bool:
    """Tell whether that many factors can be made of these blocks."""
    factors, blocks, size, _ = shape
    return factors == 1 or (size % 2 == 0 and blocks % (1 << min(factors - 1, 62)) == 0)


_SHAPE = "the tensors hold the blocks"

KIND = Kind(
    "BOFT",
    _read,
    training={
        "boft_block_size": _SHAPE,
        "boft_block_num": _SHAPE,
        "boft_n_butterfly_factor": _SHAPE,
        "boft_dropout": "acts in training only",
    },
)
