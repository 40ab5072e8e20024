"""From the header of another tool's file to the content of PEFT folders, one for each model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from rankloom.adapter.foreign import diffusers, keys, lora, lycoris, names
from rankloom.adapter.foreign.refusals import broken, refusal
from rankloom.tensorfile.values import load_numpy

if TYPE_CHECKING:
    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.foreign.keys import Module
    from rankloom.adapter.foreign.output import Output
    from rankloom.tensorfile.header import Header

Spellings = Callable[[str], Mapping[str, str] | None]
"""From a model's name in a pipeline to how its modules can be spelled, if its base is known."""


def plan(header: Header, kind: str, alpha: float | None, spellings: Spellings) -> dict[str, Output]:
    """Return what is to be written, by the model's name in a pipeline (empty: not said).

    Args:
        header: of the file.
        kind: one of :data:`rankloom.adapter.foreign.keys.FORMATS`.
        alpha: of a loralib file, which does not hold it.
        spellings: the names that a model's modules can have; called once for each model.

    Raises:
        AdapterError: the file is broken.
        UnsupportedAdapterError: something cannot be converted exactly.
    """
    found = keys.read(header.tensors, kind)
    if not found:
        raise broken(header.path.name, "holds no factors", "TEN002")
    if kind == "loralib" and alpha is None:
        raise refusal(found[0].name, "has its alpha in code", "give it with --alpha")
    if kind != "loralib" and alpha is not None:
        raise refusal(header.path.name, f"is {kind}, which says its alpha", "leave out --alpha")
    configs = diffusers.configs(header.metadata) if kind == "diffusers" else {}
    models: dict[str, list[Module]] = {}
    for module in found:
        models.setdefault(names.model(names.part(module.name)), []).append(module)
    return {
        model: _output(_named(own, spellings(model)), configs.get(model), alpha)
        for model, own in models.items()
    }


def _named(found: list[Module], spellings: Mapping[str, str] | None) -> dict[str, Module]:
    named: dict[str, Module] = {}
    index = names.Index(spellings)
    for module in found:
        name = index.resolve(module.name)
        if named.setdefault(name, module) is not module:
            what = f"changes {name}, as {named[name].name} does"
            raise refusal(module.name, what, "split the file")
    return named


def _output(
    modules: dict[str, Module], config: AdapterConfig | None, alpha: float | None
) -> Output:
    kinds = {module.kind: module.name for module in modules.values()}
    if len(kinds) > 1:
        what = " and ".join(f"{name} is {kind}" for kind, name in sorted(kinds.items()))
        raise refusal("the file", f"is of several types: {what}", "split it by type")
    if "LORA" not in kinds:
        alphas = {name: _lycoris_alpha(module) for name, module in modules.items()}
        return lycoris.write(modules, alphas)
    scaled = {
        name: lora.Scaled(module, _scale(name, module, config, alpha))
        for name, module in modules.items()
    }
    return lora.write(scaled)


def _lycoris_alpha(module: Module) -> float:
    rank = lycoris.rank_of(module)
    written = _written_alpha(module)
    return rank if written is None or lycoris.is_full(module) else written


def _scale(
    name: str, module: Module, config: AdapterConfig | None, alpha: float | None
) -> Fraction:
    rank = module.tensors[keys.A].shape[0]
    written = _written_alpha(module)
    if config is None:
        given = alpha if written is None else written
        return Fraction(rank if given is None else given) / rank  # no alpha: kohya and diffusers
    if written is not None:
        raise refusal(module.name, "has an alpha in the metadata and one of its own", "split them")
    scales = config.scales()
    if scales.rank(name) != rank:
        what = f"has rank {rank}, and {scales.rank(name)} in the metadata"
        raise broken(module.name, what, "TEN004")
    if config.use_rslora:
        return Fraction(scales.scale(name))
    return Fraction(scales.alpha(name)) / rank


def _written_alpha(module: Module) -> float | None:
    if module.alpha is None:
        return None
    if math.prod(module.alpha.shape) != 1:
        raise broken(module.name, "has an alpha that is no number", "TEN004")
    value = float(load_numpy(module.alpha).reshape(-1)[0])
    if not math.isfinite(value):
        raise broken(module.name, f"has alpha {value}", "NUM001")
    return value
