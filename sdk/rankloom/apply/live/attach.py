"""Puts the first composition on a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.apply.live.claims import claim, release
from rankloom.apply.live.handle import Handle
from rankloom.apply.live.originals import Originals
from rankloom.apply.live.spots import LiveBase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from rankloom.apply.live.handle import Applicable
    from rankloom.change.formula import TargetChange
    from rankloom.fingerprint import Fingerprint


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes that are no composition; see :class:`rankloom.apply.live.handle.Applicable`."""

    changes: Sequence[TargetChange]
    base: Fingerprint | None = None
    digest: str = ""


def apply_to_model(
    model: nn.Module, composition: Applicable, *, originals: Originals | None = None
) -> Handle:
    """Let a composition lie on a model, in place.

    Nothing of the model is touched but the parameters that change. Only from here on the handle
    can keep other threads out, so do not run the model in one meanwhile.

    Args:
        model: the base; its parameters may be sharded over processes (DTensor), of which each
            calls this, and applies to what it holds without a word to the others.
        composition: what is added to which parameter.
        originals: where the base's values are kept; one that a restored handle on this model had
            saves their memory from being allocated again.

    Raises:
        IncompatibleError: the model has no such parameter, or in another shape, quantised or
            wrapped, or its values are those of another base; nothing was changed.
        ConflictError: another composition lies on the model; nothing was changed.
        BackendUnavailableError: the budget has no room for copies; nothing was changed.
        AdapterError: a factor cannot be read; nothing was changed.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    claim(model)
    try:
        handle = Handle(LiveBase(model), originals or Originals())
        handle.swap(composition)
    except BaseException:
        release(model)
        raise
    return handle
