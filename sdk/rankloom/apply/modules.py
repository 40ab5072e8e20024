"""Finds the parameters of a live model that a composition changes."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from rankloom.change.dtypes import CODES
from rankloom.errors import IncompatibleError
from rankloom.tensorfile.index import swapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from rankloom.change.formula import TargetChange


@dataclass(frozen=True, slots=True)
class Spot:
    """One parameter of a model.

    Attributes:
        module: the module that owns it.
        parameter: its name there.
        name: its full name in the model.
        transposed: it is stored as (in, out), as transformers' ``Conv1D`` does.
    """

    module: nn.Module
    parameter: str
    name: str
    transposed: bool

    @property
    def weight(self) -> torch.Tensor:
        """The parameter itself."""
        weight = getattr(self.module, self.parameter)
        assert isinstance(weight, nn.Parameter)  # noqa: S101 - found and checked as one
        return weight


def find_parameter(model: nn.Module, change: TargetChange) -> Spot:
    """Return the parameter that a change is for.

    A name is looked up as it is, then without and with the model's ``base_model_prefix``, as
    transformers does on loading.

    Raises:
        IncompatibleError: there is none, or no exact sum can be formed in it.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    name = next((name for name in _spellings(model, change.module) if name in modules), None)
    if name is None:
        near = ", ".join(difflib.get_close_matches(change.module, modules, 3)) or "nothing like it"
        message = f"TEN005 {type(model).__name__} has no module {change.module}; nearest: {near}"
        raise IncompatibleError(message, hint="apply to the model that the adapters were made for")
    spot = Spot(
        modules[name], change.parameter, f"{name}.{change.parameter}", _transposed(modules[name])
    )
    _check(spot, change)
    return spot


def _spellings(model: nn.Module, name: str) -> list[str]:
    prefix = getattr(model, "base_model_prefix", "")
    names = [name]
    if prefix:
        names += [name.removeprefix(f"{prefix}."), f"{prefix}.{name}"]
    return names


def _transposed(module: nn.Module) -> bool:
    """Whether the weight is (in, out): ``Conv1D`` of transformers, told by type as PEFT does."""
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers")


def _check(spot: Spot, change: TargetChange) -> None:
    kind = type(spot.module).__name__
    if not isinstance(spot.module, nn.Linear) and not spot.transposed:
        message = f"{spot.name} belongs to a {kind}: how its weight is oriented is not known"
        raise IncompatibleError(message, hint="unwrap the model first (PEFT: unload the adapter)")
    weight = spot.module._parameters.get(spot.parameter)
    if weight is None:
        message = f"{spot.name} of a {kind} is no plain parameter"
        raise IncompatibleError(message, hint="remove the parametrization or wrapper first")
    if weight.dtype not in CODES or weight.is_meta:
        stored = "a meta tensor" if weight.is_meta else f"stored as {weight.dtype}"
        message = f"BASE006 {spot.name} is {stored}: a delta cannot be added exactly"
        raise IncompatibleError(message, hint="load the unquantised base, with its values")
    shape = change.shape
    wanted = swapped(shape) if spot.transposed and shape is not None else shape
    if wanted is not None and tuple(weight.shape) != wanted:
        message = f"BASE002 {spot.name} is {tuple(weight.shape)}, but the change is {wanted}"
        raise IncompatibleError(message, hint="apply to the model that the adapters were made for")


def check_untied(model: nn.Module, spots: Sequence[Spot]) -> None:
    """Refuse to change memory that the model also uses under another name.

    Raises:
        IncompatibleError: naming both.
    """
    users: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not parameter.is_meta:
            users.setdefault(parameter.untyped_storage().data_ptr(), []).append(name)
    for spot in spots:
        names = users[spot.weight.untyped_storage().data_ptr()]
        if len(names) > 1:
            message = f"BASE004 {' and '.join(names)} share memory: changing one changes the other"
            hint = "untie them first: give one of them a clone of its own as nn.Parameter"
            raise IncompatibleError(message, hint=hint)
