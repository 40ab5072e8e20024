"""A live model: changed in place, and given back with the bits it had."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import nn

from rankloom.apply.blocks import blocks
from rankloom.apply.dense import Slabs
from rankloom.apply.live_identity import check_live_identity, renew
from rankloom.apply.modules import find_spots
from rankloom.change.evaluate import Recent, load_all
from rankloom.errors import ConflictError
from rankloom_kernels import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rankloom.apply.modules import Spot
    from rankloom.change.formula import TargetChange
    from rankloom.fingerprint import Fingerprint
    from rankloom.tensorfile.header import TensorEntry

_changed: weakref.WeakKeyDictionary[nn.Module, Handle] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Saved:
    """What a spot held: a copy of the values, or the shared parameter itself."""

    spot: Spot
    values: torch.Tensor


class Spare:
    """Memory for the copies that are kept of one model's parameters, used again each time.

    For one composition after another on the same model: memory that is new each time costs as much
    as the sums, since the system clears every page of it first.
    """

    def __init__(self) -> None:
        self._held: dict[str, torch.Tensor] = {}

    def copy(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Return a copy; one that was given before under that name is overwritten."""
        held = self._held.get(name)
        if held is None or _form(held) != _form(values):
            held = self._held[name] = torch.empty_like(values)
        return held.copy_(values)


def _form(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.device


class Handle:
    """Changes that lie on a model until :meth:`restore` or until the ``with`` block ends.

    Attributes:
        model: the model that was changed.
        targets: full names of the changed parameters in the model.
    """

    def __init__(self, model: nn.Module, saved: Sequence[_Saved]) -> None:
        self.model = model
        self.targets = tuple(item.spot.name for item in saved)
        self._saved: list[_Saved] = list(saved)

    def restore(self) -> None:
        """Write back the saved bits of every changed parameter; a second call does nothing.

        Whatever was done to those parameters meanwhile, such as training, is undone too.
        """
        with _lock, renew(self.model, self.targets):
            _write_back(self._saved)
            self._saved = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.restore()


def apply_to_model(
    model: nn.Module,
    changes: Sequence[TargetChange],
    *,
    expected: Fingerprint | None = None,
    spare: Spare | None = None,
) -> Handle:
    """Add changes to a model's parameters in place.

    The parameters stay the same objects at the same addresses, so optimizers and CUDA graphs that
    hold them stay valid; only of parameters that modules share and of which one changes, that
    module gets one of its own meanwhile. A copy of each changed parameter is kept on its device.
    Nothing else of the model is touched. Do not run the model in another thread meanwhile.

    One composition lies on a model at a time: a second one is refused, since sums would be
    rounded twice. Compose both into one instead.

    Args:
        model: the base.
        changes: what is added to which parameter.
        expected: identity of the base that the changes were made for.
        spare: keeps the memory of the copies for the next composition on this model.

    Raises:
        IncompatibleError: the model has no such parameter, or in another shape, quantised or
            wrapped, or its values are those of another base; nothing was changed.
        ConflictError: another composition lies on the model; nothing was changed.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    spots = find_spots(model, changes)
    saved: list[_Saved] = []
    with _lock:
        _check_free(model)
        check_live_identity(model, expected)
        try:
            for spot in spots:
                _apply(spot, saved, spare or Spare())
        except BaseException:
            _write_back(saved)
            raise
        handle = Handle(model, saved)
        for spot in spots:
            _changed[spot.module] = handle
    return handle


@torch.no_grad()
def _apply(spot: Spot, saved: list[_Saved], spare: Spare) -> None:
    shared = spot.weight
    if spot.own:
        saved.append(_Saved(spot, shared))
        own = nn.Parameter(shared.detach().clone(), requires_grad=shared.requires_grad)
        setattr(spot.module, spot.parameter, own)
    else:
        saved.append(_Saved(spot, spare.copy(spot.name, shared.detach())))
    weight, found = spot.weight.detach(), blocks(spot.contributions)
    if found is None or not weight.is_contiguous():
        _fill_slabs(spot, weight, saved)
        return
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    rows, recent = weight.view(-1, weight.shape[-1]), Recent()
    for block in found:
        loaded = load_all(
            block.items,
            transposed=block.transposed,
            dtype=dtype,
            device=weight.device,
            recent=recent,
            for_bfloat16=weight.dtype == torch.bfloat16,
        )
        loaded.merge_(rows[block.start : block.stop])


def _fill_slabs(spot: Spot, weight: torch.Tensor, saved: Sequence[_Saved]) -> None:
    before = {item.spot.name: item.values.detach() for item in saved}

    def read(entry: TensorEntry) -> torch.Tensor:
        return before[entry.name] if entry.name in before else spot.others[entry.name].detach()

    slabs = Slabs(spot.contributions, read, weight.device)
    if not weight.dim():
        slabs.fill(weight, weight, 0)
        return
    width = weight.numel() // max(1, weight.shape[0])
    height = Workspace().rows(width, torch.float64)
    for start in range(0, weight.shape[0], height):
        rows = weight[start : start + height]
        slabs.fill(rows, rows, start)


@torch.no_grad()
def _write_back(saved: Sequence[_Saved]) -> None:
    for item in saved:
        spot, now = item.spot, item.spot.weight
        if spot.own:  # the model may have moved to another dtype or device meanwhile
            item.values.data = item.values.data.to(now.device, now.dtype)
            setattr(spot.module, spot.parameter, item.values)
        else:
            now.copy_(item.values)
        _changed.pop(spot.module, None)


def _check_free(model: nn.Module) -> None:
    if any(module in _changed for module in model.modules()):
        message = f"another composition lies on this {type(model).__name__}"
        hint = "restore() it first, or compose both into one: a second sum would round twice"
        raise ConflictError(message, hint=hint)
