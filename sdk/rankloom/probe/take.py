"""Runs a base without and with an adapter, and says what a push keeps of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rankloom.apply.live.attach import Changes, apply_to_model
from rankloom.apply.live.load import load_model
from rankloom.apply.live.spots import LiveBase
from rankloom.compose.compute import compute
from rankloom.errors import AdapterError, BackendUnavailableError, RankloomWarning
from rankloom.probe.answer import LEAVE_OUT, Answer, ask, check_takes_tokens
from rankloom.probe.check import effect
from rankloom.probe.tokens import choose
from rankloom.recipe.plan import make_plan
from rankloom.registry.wire import Probe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from rankloom.change.formula import TargetChange
    from rankloom.fingerprint import Fingerprint
    from rankloom.recipe.part import Part

TOLERANCE = 2.0**-13
"""How far a value may be from the recorded one, of the largest recorded value.

Other threads, attention kernels and processors add the same terms in another order. Against
float64, all of these were off by 2⁻²¹ on MiniLM and by less than 2⁻¹⁹ on a random Llama of 16
layers. The limit is 64 times that; the adapters of the example change the answer by more than 2⁻⁴.
"""
KEPT = 8
"""How many values of the answer are kept."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a base answered.

    Attributes:
        tokens: to these.
        alone: without the adapter.
        adapted: with it.
    """

    tokens: tuple[int, ...]
    alone: Answer
    adapted: Answer

    @property
    def effect(self) -> float:
        """The largest change of any value."""
        return float((self.adapted.values - self.alone.values).abs().max())


def take(part: Part, base: Path, tokens: Sequence[int] | None = None) -> Taken:
    """Ask a base without and with an adapter.

    It runs in float32, whatever the checkpoint's dtype, since 16 bits are rounded otherwise on
    every kind of machine: that takes 4 bytes for each parameter.

    Args:
        part: the adapter.
        base: the base's folder.
        tokens: those of a recorded probe; ``None``: see :func:`rankloom.probe.tokens.choose`.

    Raises:
        BackendUnavailableError: the model cannot be loaded, takes no tokens, answers no numbers,
            or answers without what the adapter changes.
        IncompatibleError: the adapter does not fit the base.
    """
    model = load_model(base, dtype=torch.float32)
    check_takes_tokens(model)
    chosen = tuple(tokens or choose(model.config, part.adapter))
    alone = ask(model, chosen)
    if not alone.is_finite:
        message = f"the base {base} answers NaN or infinity without the adapter"
        raise BackendUnavailableError(message, hint=LEAVE_OUT)
    # Not as a composition, which refuses what has no effect: that is to be found here.
    changes, _ = compute(make_plan([part]), [part.digest])
    with warnings.catch_warnings():
        # What there is to say of adapter and base is in the report.
        warnings.simplefilter("ignore", RankloomWarning)
        handle = apply_to_model(model, Changes(changes, part.base))
    with handle:
        taken = Taken(chosen, alone, ask(model, chosen))
        if taken.effect == 0 and not _uses(model, changes, chosen):
            message = f"none of the probe's {len(chosen)} tokens meets what the adapter changes"
            raise BackendUnavailableError(message, hint=LEAVE_OUT)
    return taken


def _uses(model: nn.Module, changes: Sequence[TargetChange], tokens: Sequence[int]) -> bool:
    """Tell whether the answer depends on anything that changes, which is overwritten."""
    with torch.no_grad():
        for spot in LiveBase(model).spots(changes):
            for contribution in spot.contributions:
                spot.weight[contribution.piece.region].fill_(torch.nan)
    # NaN stays in every sum, so that it is in the answer from wherever it is read.
    return not ask(model, tokens).is_finite


def keep(part: Part, base: Path, found: Fingerprint) -> Probe:
    """Return what is kept beside a version.

    Args:
        part: the adapter.
        base: the base's folder.
        found: the base's identity.

    Raises:
        AdapterError: the base answers the same with it, or what is no number.
        BackendUnavailableError: as of :func:`take`.
        IncompatibleError: as of :func:`take`.
    """
    taken = take(part, base)
    if findings := list(effect(taken)):
        message = f"{part.label}: {findings[0]}"
        hint = "push it without a probe if that is meant"
        raise AdapterError(message, hint=hint, findings=findings)
    ids = taken.adapted.top(KEPT)
    return Probe(
        what=taken.adapted.what,
        tokens=taken.tokens,
        base=found.bf16 or found.struct,
        top=tuple(zip(ids, taken.adapted.at(ids), strict=True)),
        norm=taken.adapted.norm,
        effect=taken.effect,
        tolerance=TOLERANCE,
    )
