"""OFT (arXiv 2306.07280): packed skew-symmetric blocks that stand for rotations of the input.

Key ``<module>.oft_R.weight`` (blocks, b·(b−1)/2) for linear layers and convolutions,
``oft_embedding_R.weight`` for embeddings. PEFT adjusts r and oft_block_size to each layer, so the
tensors alone say how large the blocks are.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.field_values import number, whole
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.parts import misshapen, read_parts
from rankloom.adapter.kinds.reading import Reading
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.parts import Parts
    from rankloom.tensorfile.header import TensorEntry

_SERIES_CHANGED = (0, 18)
_RETRAIN = "merge it with the PEFT that wrote it, or train it again"


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    options = _options(config.options)

    def build(kind: str, module: str, parts: Parts) -> Iterator[Target | Finding]:
        shape = parts["r"].shape
        if len(shape) != 2 or not _is_packed(shape[1]) or (options["share"] and shape[0] != 1):
            yield misshapen(module, parts, "(blocks, b·(b−1)/2), one block if they are shared")
        else:
            yield Target(module, "oft", Computed(kind, parts, options, needs_base=True))

    layers = read_parts(tensors, {"r": ".oft_R.weight"}, partial(build, "oft"))
    endings = {"r": ".oft_embedding_R.weight"}
    embeddings = read_parts(tensors, endings, partial(build, "oft_embedding"))
    return layers.joined(embeddings).joined(Reading((), frozenset(), tuple(_version(config))))


def _options(values: Mapping[str, Any]) -> dict[str, Any]:
    terms = max(1, values["num_cayley_neumann_terms"]) if values["use_cayley_neumann"] else 0
    eps = values["eps"] if values["coft"] else None
    return {"share": values["block_share"], "neumann": terms, "eps": eps}


def _is_packed(count: int) -> bool:
    size = (1 + math.isqrt(1 + 8 * count)) // 2
    return size * (size - 1) // 2 == count


def _version(config: AdapterConfig) -> Iterator[Finding]:
    """Refuse what PEFT itself no longer reads as it was meant."""
    if "oft_block_size" not in config.raw:
        message = "adapter_config.json has no oft_block_size: PEFT < 0.14 meant other rotations"
        yield Finding("CFG012", message, where="oft_block_size", fix=_RETRAIN)
    elif config.options["use_cayley_neumann"] and _wrote(config) < _SERIES_CHANGED:
        message = "adapter_config.json: use_cayley_neumann meant another series before PEFT 0.18"
        yield Finding("CFG012", message, where="use_cayley_neumann", fix=_RETRAIN)


def _wrote(config: AdapterConfig) -> tuple[int, ...]:
    """Return the version of PEFT that wrote the file; those before 0.18 do not say it."""
    found = re.match(r"(\d+)\.(\d+)", str(config.raw.get("peft_version")))
    return tuple(map(int, found.groups())) if found else (0, 0)


KIND = Kind(
    "OFT",
    _read,
    fields={
        "coft": Field(checks.flag, default=False),
        "eps": Field(number, 6e-5),
        "block_share": Field(checks.flag, default=False),
        "use_cayley_neumann": Field(checks.flag, default=True),
        "num_cayley_neumann_terms": Field(whole(), 5),
    },
    training={
        "r": "the tensors hold the blocks",
        "oft_block_size": "the tensors hold the blocks",
        "module_dropout": "acts in training only",
    },
)
