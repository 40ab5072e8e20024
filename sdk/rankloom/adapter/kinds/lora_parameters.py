"""LoRA on parameters that belong to no linear layer (``target_parameters``), mostly experts.

The keys name the module but not the parameter: PEFT wraps the module once for each parameter, in
the order in which the module registered them, so the keys of the first one have the most
``.base_layer`` in them. Ranks and alphas go by the parameter's full name. A is (experts·r, in),
B (out, r·experts); a matrix counts as one expert.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.adapter.change import ExpertLowRank, LowRank, Target
from rankloom.adapter.config import FILE
from rankloom.adapter.kinds import factors
from rankloom.adapter.patterns import ends_with
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Pair, Tensors
    from rankloom.adapter.kinds.reading import Reading

_LEVELS = re.compile(r"(.+?)((?:\.base_layer)*)")
ORDER = ("gate_up_proj", "gate_proj", "up_proj", "down_proj")
"""The order in which every class of experts in transformers registers its parameters."""


@dataclass(frozen=True, slots=True)
class _Place:
    """One level of one module, and the parameters that it can be of; several: the base decides."""

    module: str
    parameters: tuple[str, ...]


def read(config: AdapterConfig, tensors: Tensors) -> Reading:
    """Return a target for every level of every module of which parameters are targeted."""
    names = config.options.get("target_parameters")
    if names is None:
        return factors.reading((), ())
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        message = f"{FILE}: target_parameters is {names!r:.80}, not a list of names"
        finding = Finding("CFG001", message, where="target_parameters", fix="save it again")
        return factors.reading([finding], ())
    places, wrong = _places(config, tensors, sorted(set(names)))

    def build(pair: Pair) -> Iterable[Target | Finding]:
        return _build(config, pair, places[pair.module])

    result = factors.read_pairs(tensors, factors.LINEAR, build, places)
    return factors.reading([*wrong, *result.targets, *result.findings], result.taken)


def _places(
    config: AdapterConfig, tensors: Tensors, names: list[str]
) -> tuple[dict[str, _Place], list[Finding]]:
    """Return the place of each key's module, and what is wrong with them."""
    levels: dict[str, list[str]] = {}
    for key in factors.modules_of(tensors, factors.LINEAR):
        matched = _LEVELS.fullmatch(key)
        levels.setdefault(matched[1] if matched else key, []).append(key)
    places: dict[str, _Place] = {}
    findings: list[Finding] = []
    for module, keys in levels.items():
        if not (parameters := _parameters(config, tensors, module, keys, names)):
            continue
        inner_first = sorted(keys, key=len, reverse=True)
        if len(keys) > len(parameters):
            message = f"{module} has {len(keys)} pairs of factors, but target_parameters names"
            findings.append(Finding("CFG006", f"{message} {', '.join(parameters)}", where=module))
        places |= zip(inner_first, _order(module, parameters, len(keys)), strict=False)
    return places, findings


def _parameters(
    config: AdapterConfig, tensors: Tensors, module: str, keys: list[str], names: list[str]
) -> list[str]:
    """Return the parameters of a module that the config names; none: its layer is targeted."""
    found, here = [], []
    for name in names:
        owner, _, parameter = name.rpartition(".")
        if not owner or ends_with(module, owner):
            found.append(parameter)
            here += [parameter] if owner else []
    if len(here) == len(keys):  # one for each: what is named without a module is elsewhere
        return here
    is_ours = here or len(keys) > 1 or _is_stack(config, tensors, module)
    return found if is_ours else []


def _is_stack(config: AdapterConfig, tensors: Tensors, module: str) -> bool:
    """Tell a stack of experts from a targeted layer, where only a parameter's name is given."""
    rule = config.target_rule()
    if rule is not None:
        return not rule.matches(module)
    a = tensors.get(module + factors.LINEAR[0])
    return a is not None and a.shape[0] > config.scales().rank(module)


def _order(module: str, parameters: list[str], count: int) -> Iterator[_Place]:
    """Yield the places of a module's levels, the innermost first."""
    if count == len(parameters) and (count == 1 or set(parameters) <= set(ORDER)):
        yield from (_Place(module, (name,)) for name in sorted(parameters, key=_rank))
        return
    for level in range(count):  # each level prefers another one, so that their names differ
        yield _Place(module, tuple(parameters[level:] + parameters[:level]))


def _rank(parameter: str) -> int:
    return ORDER.index(parameter) if parameter in ORDER else 0


def _build(config: AdapterConfig, pair: Pair, place: _Place) -> Iterable[Target | Finding]:
    scales = config.scales()
    full = [f"{place.module}.{name}" for name in place.parameters]
    meant = {(scales.rank(name), scales.scale(name)) for name in full}
    if len(meant) > 1:
        names = " or ".join(sorted(place.parameters))
        what = f"can be of {names}, for which ranks or alphas differ"
        return [factors.refused(pair.module, what, "give all of them one rank and alpha")]
    rank, scale = meant.pop()
    a, b = pair.a.shape, pair.b.shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or a[0] % rank:
        message = f"{pair.module} has ranks that differ: {pair.shapes}, config rank {rank}"
        fix = "lora_A is (experts·r, in), lora_B is (out, r·experts)"
        return [Finding("TEN004", message, where=pair.module, fix=fix)]
    change = (
        LowRank(pair.a, pair.b, scale)
        if a[0] == rank
        else ExpertLowRank(pair.a, pair.b, rank, scale)
    )
    one = place.parameters[0] if len(place.parameters) == 1 else ""
    return [Target(place.module, "lora_parameter", change, one, () if one else place.parameters)]
