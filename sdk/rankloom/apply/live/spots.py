"""A live model as a base: its parameters by name, and where a composition's changes lie in them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rankloom.adapter.change import LowRank, Replacement
from rankloom.apply.live.shards import local
from rankloom.apply.place import by_tensor, find, lost_target, raise_for
from rankloom.apply.untie import settle
from rankloom.base.locate import locate
from rankloom.base.model import Base, Piece
from rankloom.change.dtypes import ALL_CODES
from rankloom.errors import IncompatibleError
from rankloom.tensorfile.header import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rankloom.adapter.change import Target
    from rankloom.apply.placed import Contribution
    from rankloom.change.formula import TargetChange
    from rankloom.finding import Finding


@dataclass(frozen=True, slots=True)
class Spot:
    """One parameter or buffer of a model.

    Attributes:
        module: the module that owns it.
        parameter: its name there.
        name: its full name in the model.
        contributions: what is added to it.
        own: the module gets a parameter of its own meanwhile: others that share this one stay.
        shared: the tensor that the module has as long as nothing is added to it.
    """

    module: nn.Module
    parameter: str
    name: str
    contributions: tuple[Contribution, ...]
    own: bool
    shared: torch.Tensor = field(repr=False)

    @property
    def weight(self) -> torch.Tensor:
        """The values themselves."""
        weight: torch.Tensor = getattr(self.module, self.parameter)
        return weight


class LiveBase:
    """A model as a base: its parameters and buffers under the names of its state.

    Args:
        model: it has its own values now; later, the tensors it had now are still found here.

    Attributes:
        model: the same.
        tensors: every tensor of it by name.
        base: their names and shapes.
        ties: which are the same memory as one before them, and which that is.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        state = model.state_dict(keep_vars=True)
        self.tensors = {
            name: tensor
            for name, tensor in state.items()
            if isinstance(tensor, torch.Tensor) and tensor.dtype in ALL_CODES
        }
        entries = {name: _entry(name, tensor) for name, tensor in self.tensors.items()}
        to_dict = getattr(getattr(model, "config", None), "to_dict", dict)
        config: dict[str, Any] = to_dict()
        self.base = Base(Path(), config, entries)
        self.ties = _ties(self.tensors)

    @property
    def device(self) -> torch.device:
        """Where the first tensor is."""
        found = next(iter(self.tensors.values()), None)
        return torch.device("cpu") if found is None else found.device

    def spots(self, changes: Sequence[TargetChange]) -> tuple[Spot, ...]:
        """Return every parameter that changes.

        A name is looked up as the model has it, then without and with its ``base_model_prefix``,
        then under the names that other versions of transformers gave it.

        Raises:
            IncompatibleError: the model has no such parameter, or no exact sum can be formed in it.
        """
        located, absent, findings = find(changes, self._locate)
        settled, untied = settle(located, self.base, self.ties)
        contributions = by_tensor(settled, findings)
        findings += [self._lost(change.name) for change in absent]
        raise_for(findings)
        names = [name for name in contributions if name in untied or name not in self.ties]
        _check_memory(self.tensors, self.ties, names)
        return tuple(self._spot(name, contributions[name], own=name in untied) for name in names)

    def _locate(self, target: Target) -> tuple[Piece, ...]:
        """Return where a target lies."""
        names = self._spellings(target.name) if target.parameter else []
        for name in names:
            if name in self.tensors:
                module = self.model.get_submodule(name.rpartition(".")[0])
                _check_values(module, name, self.tensors[name], target)
                turned = is_conv1d(module) and not isinstance(target.change, Replacement)
                matrix = self.tensors[name].dim() == 2
                return (Piece(self.base.tensors[name], turned and matrix),)
        self._check_wrapped(names)
        pieces = locate(self.base, target)
        for piece in pieces:
            _check_meta(piece.entry.name, self.tensors[piece.entry.name])
        return pieces

    def _spellings(self, name: str) -> list[str]:
        prefix = getattr(self.model, "base_model_prefix", "")
        return [name, *([name.removeprefix(f"{prefix}."), f"{prefix}.{name}"] if prefix else [])]

    def _check_wrapped(self, names: Sequence[str]) -> None:
        """Refuse a module that has the parameter, but not as one that can be changed in place."""
        modules = dict(self.model.named_modules(remove_duplicate=False))
        for name in names:
            module, _, parameter = name.rpartition(".")
            if getattr(modules.get(module), parameter, None) is not None:
                message = f"{name} of a {type(modules[module]).__name__} is no plain parameter"
                hint = "remove the parametrization or wrapper first (PEFT: unload the adapter)"
                raise IncompatibleError(message, hint=hint)

    def _lost(self, name: str) -> Finding:
        """Return the finding that a change has no place."""
        near = difflib.get_close_matches(name, self.tensors, 3)
        return lost_target(f"this {type(self.model).__name__}", name, near)

    def _spot(self, name: str, contributions: tuple[Contribution, ...], *, own: bool) -> Spot:
        """Return a parameter that changes."""
        module, _, parameter = name.rpartition(".")
        owner = self.model.get_submodule(module)
        return Spot(owner, parameter, name, contributions, own, self.tensors[name])


def _entry(name: str, tensor: torch.Tensor) -> TensorEntry:
    shape = tuple(tensor.shape)
    return TensorEntry(Path(), name, ALL_CODES[tensor.dtype], shape, 0, tensor.nbytes)


def _ties(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return which tensors are the same memory as one before them."""
    first: dict[tuple[object, ...], str] = {}
    ties = {}
    for name, tensor in tensors.items():
        held = local(tensor)
        key = (held.data_ptr(), held.device, tensor.shape, held.shape, held.stride())
        if tensor.is_meta or held.numel() == 0 or (source := first.setdefault(key, name)) == name:
            continue
        ties[name] = source
    return ties


def is_conv1d(module: nn.Module) -> bool:
    """Whether the weight is (in, out): ``Conv1D`` of transformers, told by type as PEFT does."""
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers")


def _check_values(module: nn.Module, name: str, tensor: torch.Tensor, target: Target) -> None:
    _check_meta(name, tensor)
    change = target.change
    if isinstance(module, nn.Embedding) and isinstance(change, LowRank) and not change.transposed:
        message = f"{name} belongs to a {type(module).__name__}, the change to a linear layer"
        raise IncompatibleError(message, hint="apply to the model that the adapters were made for")


def _check_meta(name: str, tensor: torch.Tensor) -> None:
    if tensor.is_meta:
        message = f"BASE006 {name} is a meta tensor: it has no values"
        raise IncompatibleError(message, hint="load the unquantised base, with its values")


def _check_memory(
    tensors: Mapping[str, torch.Tensor], ties: Mapping[str, str], names: Sequence[str]
) -> None:
    """Refuse to change memory of which the model uses a part under another name.

    Raises:
        IncompatibleError: naming both.
    """
    spans = {name: _span(tensor) for name, tensor in tensors.items() if not tensor.is_meta}
    for name in names:
        start, stop = spans[name]
        source = ties.get(name, name)
        for other, (begin, end) in spans.items():
            if ties.get(other, other) != source and begin < stop and start < end:
                message = f"BASE004 {name} and {other} share memory: changing one changes the other"
                hint = "give one of them a clone of its own as nn.Parameter first"
                raise IncompatibleError(message, hint=hint)


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """Return first and last + 1 byte that a tensor may touch."""
    tensor = local(tensor)
    last = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.itemsize if tensor.numel() else start
