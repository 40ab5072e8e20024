"""From the header of another tool's file to the content of PEFT folders, one for each model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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


def plan(
    header: Header, kind: str, alpha: float | None, spellings: Spellings, *, apart: bool
) -> dict[str, Output]:
    """Return what is to be written, by the model's name in a pipeline (empty: not said).

    Args:
        header: of the file.
        kind: one of :data:`rankloom.adapter.foreign.keys.FORMATS`.
        alpha: of a loralib file, which does not hold it.
        spellings: the names that a model's modules can have; called once for each model.
        apart: names begin with their model's; else all are of one model, however they begin.

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
    scaling = _Scaling(configs, alpha)
    return {
        model: _output(_named(own, spellings(model)), scaling)
        for model, own in _models(found, apart=apart).items()
    }


def _models(found: list[Module], *, apart: bool) -> dict[str, list[Module]]:
    models: dict[str, list[Module]] = {}
    for module in found:
        models.setdefault(_model(module), []).append(module)
    if apart and "" in models and len(models) > 1:
        other = next(own[0].name for model, own in models.items() if model)
        what = f"does not say which model it is for, as {other} does"
        raise refusal(models[""][0].name, what, "give the one model's folder with --base")
    only = next(iter(models)) if len(models) == 1 else ""
    return models if apart else {only: found}


def _model(module: Module) -> str:
    return names.model(names.part(module.name))


@dataclass(frozen=True, slots=True)
class _Scaling:
    """What says the scale besides a module's own alpha.

    Attributes:
        configs: of diffusers' metadata, by model.
        alpha: as the user gave it.
    """

    configs: Mapping[str, AdapterConfig]
    alpha: float | None

    def scale(self, name: str, module: Module) -> Fraction:
        """Return what multiplies B·A of a module that is called ``name`` in its model."""
        rank = module.tensors[keys.A].shape[0]
        written = _written_alpha(module)
        config = self.configs.get(_model(module))
        if config is None:
            given = self.alpha if written is None else written
            return Fraction(rank if given is None else given) / rank  # kohya's and diffusers' rule
        if written is not None:
            hint = "keep one of the two"
            raise refusal(module.name, "has an alpha of its own and one in the metadata", hint)
        scales = config.scales()
        if scales.rank(name) != rank:
            what = f"has rank {rank}, and {scales.rank(name)} in the metadata"
            raise broken(module.name, what, "TEN004")
        if config.use_rslora:
            return Fraction(scales.scale(name))
        return Fraction(scales.alpha(name)) / rank


def _named(found: list[Module], spellings: Mapping[str, str] | None) -> dict[str, Module]:
    named: dict[str, Module] = {}
    index = names.Index(spellings)
    for module in found:
        name = index.resolve(module.name)
        if named.setdefault(name, module) is not module:
            what = f"changes {name}, as {named[name].name} does"
            raise refusal(module.name, what, "split the file")
    return named


def _output(modules: dict[str, Module], scaling: _Scaling) -> Output:
    kinds = {module.kind: module.name for module in modules.values()}
    if len(kinds) > 1:
        what = " and ".join(f"{name} is {kind}" for kind, name in sorted(kinds.items()))
        raise refusal("the file", f"is of several types: {what}", "split it by type")
    if "LORA" in kinds:
        scale = scaling.scale
        return lora.write({name: lora.Scaled(m, scale(name, m)) for name, m in modules.items()})
    return lycoris.write(modules, {name: _lycoris_alpha(m) for name, m in modules.items()})


def _lycoris_alpha(module: Module) -> float:
    rank = lycoris.rank_of(module)
    written = _written_alpha(module)
    return rank if written is None or lycoris.is_full(module) else written


def _written_alpha(module: Module) -> float | None:
    if module.alpha is None:
        return None
    if math.prod(module.alpha.shape) != 1:
        raise broken(module.name, "has an alpha that is no number", "TEN004")
    value = float(load_numpy(module.alpha).reshape(-1)[0])
    if not math.isfinite(value):
        raise broken(module.name, f"has alpha {value}", "NUM001")
    return value
