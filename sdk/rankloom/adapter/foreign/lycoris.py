"""LoHa and LoKr of LyCORIS (arXiv 2309.14859) as PEFT folders; all tensors keep their bytes.

PEFT's formulas are those of LyCORIS, but it makes the shapes of LoKr from its config alone: from
``decompose_factor``, ``decompose_both`` and the rank. So a config is searched that gives the
shapes of the file; where there is none, the file is refused.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rankloom.adapter.foreign.output import Output, copy, key, number, pattern
from rankloom.adapter.foreign.refusals import broken, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.foreign.keys import Module

    Shape = tuple[int, ...]

_MERGE = "merge it with the tool that made it"


def rank_of(module: Module) -> int:
    """Return the rank of a module; of LoKr with two full matrices the one that PEFT needs.

    Raises:
        AdapterError: no tensor tells it.
    """
    tensors = module.tensors
    if module.kind == "LOHA" and "hada_w1_b" in tensors:
        return tensors["hada_w1_b"].shape[0]
    for name in ("lokr_w2_b", "lokr_w1_b"):
        if name in tensors:
            return tensors[name].shape[0]
    if not {"lokr_w1", "lokr_w2"} <= tensors.keys():
        raise broken(module.name, "has one factor without the other", "TEN002")
    return max(tensors["lokr_w2"].shape[:2])


def is_full(module: Module) -> bool:
    """Tell whether LyCORIS takes 1 as the scale, whatever alpha says: both matrices are full."""
    return {"lokr_w1", "lokr_w2"} <= module.tensors.keys()


def write(modules: Mapping[str, Module], alphas: Mapping[str, float]) -> Output:
    """Return the folder of modules of one kind, by their names in the model.

    Raises:
        UnsupportedAdapterError: PEFT has no config that gives these shapes.
        AdapterError: a tensor is missing.
    """
    kind = next(iter(modules.values())).kind
    ranks = {name: rank_of(module) for name, module in modules.items()}
    rank, alpha = max(ranks.values()), alphas[max(ranks, key=ranks.__getitem__)]
    config: dict[str, Any] = {
        "peft_type": kind,
        "r": rank,
        "alpha": number(alpha),
        "rank_pattern": pattern(ranks, rank),
        "alpha_pattern": pattern(alphas, alpha),
        "target_modules": sorted(modules),
        "use_effective_conv2d": _has_core(modules),
        "inference_mode": True,
    }
    if kind == "LOKR":
        config |= _division(modules, ranks)
    tensors = {
        key(name, leaf): copy(entry)
        for name, module in modules.items()
        for leaf, entry in module.tensors.items()
    }
    return Output(config, tensors)


def _has_core(modules: Mapping[str, Module]) -> bool:
    return any({"hada_t1", "lokr_t2"} & module.tensors.keys() for module in modules.values())


def _division(modules: Mapping[str, Module], ranks: Mapping[str, int]) -> dict[str, Any]:
    """Return the fields from which PEFT makes the shapes of LoKr's matrices."""
    both = any("lokr_w1_a" in module.tensors for module in modules.values())
    firsts = {_first(module) for module in modules.values()}
    for factor in (-1, *sorted({size for first in firsts for size in first})):
        if all(_fits(modules[name], ranks[name], factor, both=both) for name in modules):
            return {"decompose_factor": factor, "decompose_both": both}
    name = next(iter(modules))
    hint = f"{_MERGE}, or train it with one decomposition factor"
    raise refusal(name, "and the others are divided in a way that PEFT's LoKr has not", hint)


def _first(module: Module) -> tuple[int, int]:
    """Return the sizes (l, m) of the first matrix."""
    tensors = module.tensors
    if "lokr_w1" in tensors:
        return tensors["lokr_w1"].shape[0], tensors["lokr_w1"].shape[1]
    if {"lokr_w1_a", "lokr_w1_b"} <= tensors.keys():
        return tensors["lokr_w1_a"].shape[0], tensors["lokr_w1_b"].shape[1]
    raise broken(module.name, "has one factor without the other", "TEN002")


def _second(module: Module) -> Iterator[tuple[int, int]]:
    """Yield the sizes (k, n) that the second matrix can have, kernel left out."""
    tensors = module.tensors
    if "lokr_w2" in tensors:
        yield tensors["lokr_w2"].shape[0], tensors["lokr_w2"].shape[1]
        return
    if not {"lokr_w2_a", "lokr_w2_b"} <= tensors.keys():
        raise broken(module.name, "has one factor without the other", "TEN002")
    a, b = tensors["lokr_w2_a"].shape, tensors["lokr_w2_b"].shape
    if "lokr_t2" in tensors:
        yield a[1], b[1]
        return
    yield a[0], b[1]
    for area in (3, 9, 25, 49):  # of a kernel, which a matrix has among its columns
        if b[1] % area == 0:
            yield a[0], b[1] // area


def _fits(module: Module, rank: int, factor: int, *, both: bool) -> bool:
    """Tell whether PEFT makes these shapes (``peft.tuners.lokr.layer.LoKrLayer.update_layer``)."""
    (l, m), tensors = _first(module), module.tensors  # noqa: E741 - the paper's names
    return any(
        _divided(l * k, factor) == (l, k)
        and _divided(m * n, factor) == (m, n)
        and ("lokr_w1" in tensors) is not (both and rank < max(l, m) / 2)
        and ("lokr_w2" in tensors) is (rank >= max(k, n) / 2)
        for k, n in _second(module)
    )


def _divided(size: int, factor: int) -> tuple[int, int]:
    """Return how LyCORIS and PEFT divide a size: the factor first, or near the square root."""
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    limit = math.isqrt(size) if factor == -1 else min(factor, math.isqrt(size))
    small = next((divisor for divisor in range(limit, 1, -1) if size % divisor == 0), 1)
    return small, size // small
