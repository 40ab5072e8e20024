"""KaSA (arXiv 2412.06071): the base loses its r smallest singular values and gets s·B·diag(d)·A.

Beside the factors of a linear layer, key ``<module>.lora_diag`` (r,). What is taken away depends
on the base; a head that PEFT saved itself has lost it already. ``beta`` and ``gamma`` of
``kasa_config`` weigh losses in training only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds import factors
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Pair, Tensors
    from rankloom.adapter.kinds.reading import Reading

_DIAGONAL = ".lora_diag"


def read(config: AdapterConfig, tensors: Tensors) -> Reading:
    """Return a target for every linear layer, if the config says KaSA."""
    if "kasa_config" not in config.options:
        return factors.reading((), ())
    scales = config.scales()

    def build(pair: Pair) -> Iterable[Target | Finding]:
        rank = scales.rank(pair.module)
        diagonal = tensors.get(pair.module + _DIAGONAL)
        if diagonal is None or diagonal.shape != (rank,):
            found = "none" if diagonal is None else list(diagonal.shape)
            message = f"{pair.module} needs a lora_diag of shape [{rank}], found {found}"
            return [Finding("TEN002", message, where=pair.module, fix="save the adapter again")]
        wrong = [*factors.check_linear(pair, rank), *factors.check_dtype(diagonal)]
        truncates = pair.module + factors.SAVED not in tensors
        change = Computed(
            "kasa",
            {"a": pair.a, "b": pair.b, "diagonal": diagonal},
            {"scale": scales.scale(pair.module), "truncates": truncates},
            needs_base=truncates,
            shape=(pair.b.shape[0], *pair.a.shape[1:]),
        )
        return wrong or [Target(pair.module, "kasa", change)]

    result = factors.read_pairs(tensors, factors.LINEAR, build)
    modules = factors.modules_of(tensors, factors.LINEAR)
    diagonals = {key for module in modules if (key := module + _DIAGONAL) in tensors}
    return factors.reading([*result.targets, *result.findings], result.taken | diagonals)
