"""GLoRA (arXiv 2306.07967): five paths A to E that scale and shift W and its bias.

W′ = W + W∘A + B and b′ = b + b∘D + E + W·C. Keys ``<module>.glora_A.Xd`` and ``.Xu`` (a product),
or ``.X`` (a vector or a constant), or ``.zeros`` (no path); C, D and E are paths only where the
layer has a bias.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds.kind import Kind
from rankloom.adapter.kinds.parts import DTYPES, broken
from rankloom.adapter.kinds.reading import Reading
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.tensorfile.header import TensorEntry

_KEY = re.compile(r"(?P<module>.+)\.glora_(?P<part>[A-E]\.(?:Xd|Xu|X|zeros))")
_FORMS = (["X"], ["zeros"], ["Xd", "Xu"])


def _read(_config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    found: dict[str, dict[str, TensorEntry]] = {}
    matches = [match for match in map(_KEY.fullmatch, tensors) if match]
    for match in matches:
        found.setdefault(match["module"], {})[match["part"]] = tensors[match.string]
    results = [item for module in sorted(found) for item in _module(module, found[module])]
    return Reading(
        targets=tuple(item for item in results if isinstance(item, Target)),
        taken=frozenset(match.string for match in matches),
        findings=tuple(item for item in results if isinstance(item, Finding)),
    )


def _module(module: str, parts: Mapping[str, TensorEntry]) -> Iterator[Target | Finding]:
    if wrong := list(_check(module, parts)):
        yield from wrong
        return
    weight = {part: entry for part, entry in parts.items() if part[0] in "AB"}
    # What says that there is no path is given to the formula too, which looks whether it is zero.
    bias = {part: entry for part, entry in parts.items() if part[0] in "CDE"}
    has_bias = any(not part.endswith(".zeros") for part in bias)
    if not has_bias:
        weight |= bias
    yield Target(module, "glora", Computed("glora", weight, needs_base=True))
    if has_bias:
        change = Computed("glora_bias", bias, needs_base=True, reads=("weight",))
        yield Target(module, "glora", change, "bias")


def _check(module: str, parts: Mapping[str, TensorEntry]) -> Iterator[Finding]:
    for path in "ABCDE":
        forms = sorted(part[2:] for part in parts if part[0] == path)
        if forms not in _FORMS:
            yield broken("TEN002", module, f"has no complete path {path}")
    for part, entry in parts.items():
        if entry.dtype not in DTYPES:
            yield broken("TEN007", module, f"has glora_{part} in {entry.dtype}")


_PATHS = "the tensors say which form each path has"

KIND = Kind(
    "GLORA",
    _read,
    training={"r": _PATHS, "config_A_B": _PATHS, "config_C": _PATHS, "config_D_E": _PATHS},
)
