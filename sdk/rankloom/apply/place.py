"""Finds the base tensor of every change, and refuses before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.adapter.change import Target
from rankloom.base.locate import locate, nearest
from rankloom.change.dtypes import FLOATS
from rankloom.change.formula import Formula, Sum
from rankloom.errors import IncompatibleError
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.base.model import Base, Piece
    from rankloom.change.formula import TargetChange
    from rankloom.tensorfile.header import TensorEntry


@dataclass(frozen=True, slots=True)
class Placed:
    """A base tensor on disk and what is added to it.

    Attributes:
        entry: the tensor's header.
        transposed: it is stored as (in, out).
        formula: what is added.
    """

    entry: TensorEntry
    transposed: bool
    formula: Formula


def place(base: Base, changes: Sequence[TargetChange]) -> tuple[Placed, ...]:
    """Return one ``Placed`` for every base tensor that changes.

    Adapters that name one tensor differently (with and without the model's prefix) meet here, and
    their changes are summed before anything is rounded.

    Raises:
        IncompatibleError: with a finding for every change that has no place in this base.
    """
    findings: list[Finding] = []
    found: dict[str, Placed] = {}
    for change in changes:
        tensor = next(iter(locate(base, _as_target(change))), None)
        problem = _problem(base, change, tensor)
        if tensor is None or problem is not None:
            findings += [problem] if problem else []
            continue
        name = tensor.entry.name
        earlier = found[name].formula.terms if name in found else ()
        formula = Sum(earlier + change.formula.terms)
        found[name] = Placed(tensor.entry, tensor.transposed, formula)
    if findings:
        message = f"{findings[0]}" + (f" and {len(findings) - 1} more" if findings[1:] else "")
        hint = "the adapters were made for another base; nothing was written"
        raise IncompatibleError(message, hint=hint, findings=findings)
    return tuple(found.values())


def _as_target(change: TargetChange) -> Target:
    return Target(change.module, "lora", change.formula.terms[0].change, change.parameter)


def _problem(base: Base, change: TargetChange, tensor: Piece | None) -> Finding | None:
    if tensor is None:
        near = ", ".join(nearest(base, change.name)) or "nothing like it"
        message = f"{base.path} has no tensor {change.name}; nearest: {near}"
        return Finding("TEN005", message, where=change.name)
    entry = tensor.entry
    if entry.dtype not in FLOATS:
        message = f"{entry.name} is stored as {entry.dtype}: a delta cannot be added exactly"
        return Finding("BASE006", message, where=change.name, fix="use the unquantised base")
    wanted = change.shape[::-1] if tensor.transposed else change.shape
    if entry.shape != wanted:
        message = f"{entry.name} is {entry.shape} in the base, but the change is {wanted}"
        return Finding("BASE002", message, where=change.name)
    return _tied(base, change, entry)


def _tied(base: Base, change: TargetChange, entry: TensorEntry) -> Finding | None:
    embeddings = {"lm_head", "embed_tokens", "wte", "word_embeddings", "embed_out", "decoder"}
    if base.config.get("tie_word_embeddings") and change.module.rpartition(".")[2] in embeddings:
        message = f"{entry.name} is tied to another tensor by the base's config"
        fix = "untie the base (tie_word_embeddings=false, both tensors saved) first"
        return Finding("BASE004", message, where=change.name, fix=fix)
    return None
