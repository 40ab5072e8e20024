"""FRoD: W itself is written in a basis that modules of one role share, and its middle trained.

Keys ``<module>.frod_lambda_l`` (in,), ``frod_lambda_s_values`` (n,), and for each role under
``base_model.`` its ``frod_V.<role>`` (in, in), ``frod_s_indices.<role>`` (2, n) and
``frod_s_size.<role>`` (2,).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds.kind import Kind
from rankloom.adapter.kinds.layout import INDICES, read_layouts
from rankloom.adapter.kinds.parts import broken
from rankloom.adapter.kinds.shared import ROOT, lacks, take, with_taken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.finding import Finding
    from rankloom.tensorfile.header import TensorEntry

_SHARED = ("frod_V.", "frod_s_indices.", "frod_s_size.")
_LAYOUT = {"frod_lambda_l": "in", "frod_lambda_s_values": "n"}


def _read(_config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    names = [key.removeprefix(ROOT) for key in tensors if key.startswith(ROOT)]
    shared = take(tensors, names)
    if not shared:
        return lacks(tensors, "save_projection", "frod_V, frod_s_indices and frod_s_size")

    def build(parts: Parts) -> Iterator[Target | Finding]:
        role = _role(parts.module)
        found = [shared.get(name + role) for name in _SHARED]
        width, count = parts.sizes["in"], parts.sizes["n"]
        wanted = [(width, width), (2, count), (2,)]
        if [entry and entry.shape for entry in found] != wanted or not _is_whole(found[1:]):
            shapes = [entry and list(entry.shape) for entry in found]
            what = f"has {width} inputs and {count} elements, but its role {role} has {shapes}"
            yield broken("TEN003", parts.module, what)
            return
        basis, places, _ = (entry for entry in found if entry)
        change = Computed("frod", {"V": basis, "indices": places, **parts.tensors}, needs_base=True)
        yield Target(parts.module, "frod", change)

    own = {key: entry for key, entry in tensors.items() if not key.startswith(ROOT)}
    return with_taken(read_layouts(own, [_LAYOUT], build), shared)


def _is_whole(entries: list[TensorEntry | None]) -> bool:
    return all(entry is None or entry.dtype in INDICES for entry in entries)


def _role(module: str) -> str:
    """Return PEFT's name for what a module does in its block, by which the basis is shared."""
    *before, above, last = ("", "", *module.split("."))
    if not above or above.isdigit():
        return last
    if (before[-1], above, last) == ("attention", "output", "dense"):
        return "attention_output"
    return f"{above}_{last}"


KIND = Kind(
    "FROD",
    _read,
    training={
        "save_projection": "the file tells whether the bases were saved",
        "projection_prng_key": "which elements were trained; the file holds their indices",
        "sparse_rate": "how many elements were trained; the file holds them",
        "regularization_alpha": "how the bases were found; the file holds them",
        "frod_dropout": "acts in training only",
        "progressbar": "what is shown while the bases are found",
        "runtime_offload_base_weight": "where PEFT keeps the base",
    },
    shared=frozenset(ROOT + name for name in _SHARED),
)
