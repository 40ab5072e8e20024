"""VB-LoRA (arXiv 2405.15179): factors put together of mixtures of a shared bank's vectors.

Keys ``<module>.vblora_logits_A`` (r, in/length, vectors), ``vblora_logits_B`` (out/length, r,
vectors), or for each ``…_topk_indices`` (…, k) and ``…_topk_weights`` (…, k − 1); once
``base_model.vblora_vector_bank`` (vectors, length).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.field_values import whole
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import read_layouts
from rankloom.adapter.kinds.parts import broken
from rankloom.adapter.kinds.shared import take, with_taken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.finding import Finding
    from rankloom.tensorfile.header import TensorEntry

_BANK = "vblora_vector_bank"
_LOGITS = {"vblora_logits_A": "r tiles vectors", "vblora_logits_B": "rows r vectors"}
_TOPK = {
    "vblora_logits_A_topk_indices": "r tiles k",
    "vblora_logits_A_topk_weights": "r tiles less",
    "vblora_logits_B_topk_indices": "rows r k",
    "vblora_logits_B_topk_weights": "rows r less",
}
_INDICES = frozenset(name for name in _TOPK if name.endswith("indices"))


def _read(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    shared = take(tensors, [_BANK])
    topk = config.options["topk"]
    sizes = {"r": config.options["r"], "vectors": config.options["num_vectors"]}
    length = config.options["vector_length"]

    def build(parts: Parts) -> Iterator[Target | Finding]:
        bank = shared.get(_BANK)
        if bank is None or bank.shape != (sizes["vectors"], length) or topk > sizes["vectors"]:
            found = "no bank" if bank is None else f"a bank {list(bank.shape)}"
            what = f"has {found}, but the config says {sizes['vectors']} vectors of {length}"
            yield broken("TEN003", parts.module, what)
            return
        shape = parts.sizes["rows"] * length, parts.sizes["tiles"] * length
        change = Computed("vblora", {"bank": bank, **parts.tensors}, {"topk": topk}, shape=shape)
        yield Target(parts.module, "vblora", change)

    reading = read_layouts(
        tensors,
        [_LOGITS, _TOPK],
        build,
        known=lambda _: {**sizes, "k": topk, "less": topk - 1},
        indices=_INDICES,
    )
    return with_taken(reading, shared)


KIND = Kind(
    "VBLORA",
    _read,
    fields={
        "r": Field(checks.rank, 4),
        "num_vectors": Field(whole(1), 256),
        "vector_length": Field(whole(1), 256),
        "topk": Field(whole(1), 2),
    },
    training={
        "save_only_topk_weights": "the names of the tensors tell",
        "vblora_dropout": "acts in training only",
        "init_vector_bank_bound": "how the bank began; the file holds it",
        "init_logits_std": "how the logits began; the file holds how they ended",
    },
    shared=frozenset([f"base_model.{_BANK}"]),
    export="yes",
)
