"""Finds the base tensors that an adapter's target means."""

from __future__ import annotations

import difflib
from functools import partial
from typing import TYPE_CHECKING

from rankloom.adapter.change import ExpertLowRank, Replacement, Rows
from rankloom.base import fused, orientation, quantised, tying, view
from rankloom.base.view import NotAViewError
from rankloom.errors import BaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.adapter.change import Change, Target
    from rankloom.base.layout import Layout
    from rankloom.base.model import Base, Piece
    from rankloom.base.view import View


def locate(base: Base, target: Target) -> tuple[Piece, ...]:
    """Return where a target lies in the base: nothing if nothing there can be meant.

    A name may be that of transformers' module in memory, or the one on disk, which older versions
    of transformers had in memory as well; and each with or without the prefix that model classes
    put before their backbone (``bert.``, ``model.``). Where the file does not name the parameter,
    it is the one of the target's candidates that has the change's shape.

    Raises:
        BaseError: the name can mean two tensors, or several modules share it; or the base keeps
            the values in a form to which nothing can be added exactly; or nothing tells whether
            the tensor is stored as (out, in) or as (in, out).
        IncompatibleError: the base keeps it quantised.
    """
    found = {name: seen for name in _names(target) if (seen := resolve(base, name))}
    views = {name: _oriented(base, target, seen) for name, seen in found.items()}
    shape = target.change.shape
    fitting = {name: seen for name, seen in views.items() if shape in {None, seen.shape}}
    chosen = fitting or views
    if len(chosen) > 1:
        message = f"{target.module}: {' and '.join(chosen)} have the same shape"
        hint = "save one adapter for each of the parameters, so that each is named"
        raise BaseError(f"{message}, and the adapter does not say which it changes", hint=hint)
    for name, seen in chosen.items():
        tying.check(base, name)
        for block in seen.blocks:
            quantised.check(base, block.entry.name)
        return _pieces(name, seen)
    for name in _names(target):
        _check_absent(base, name)
    return ()


def _check_absent(base: Base, name: str) -> None:
    """Refuse a parameter that the base has in a form of its own instead."""
    for spelled in base.layouts[0].spellings(name):
        quantised.check(base, spelled)
        module, _, parameter = spelled.rpartition(".")
        for form in (f"parametrizations.{parameter}.original0", f"{parameter}_g"):
            if f"{module}.{form}" in base.layouts[0].known:
                why = f"it is computed from {form} and its like (weight norm)"
                raise _kept_otherwise(name, why, "leave this module out of the adapter's targets")


def _names(target: Target) -> Iterator[str]:
    if target.parameter:
        yield target.name
        return
    for candidate in target.candidates:
        name = f"{target.module}.{candidate.rpartition('.')[2]}"
        if name == candidate or name.endswith(f".{candidate}"):
            yield name


def resolve(base: Base, name: str) -> View | None:
    """Return a parameter of the model, by its name in memory or on disk; see :func:`locate`.

    Raises:
        BaseError: see :func:`locate`.
    """
    for layout in base.layouts:
        for spelled in layout.spellings(name):
            if found := _named(base, layout, spelled):
                return found
    layout = base.layouts[0]
    if guessed := _guessed(name, layout):
        return _named(base, layout, guessed)
    return fused.part(base.config, name, partial(resolve, base))


def _named(base: Base, layout: Layout, name: str) -> View | None:
    stored = base.tensors.get(name)
    try:
        found = layout.parameter(name)
    except NotAViewError as error:
        raise _kept_otherwise(name, str(error)) from None
    if found and stored:
        if {block.entry.name for block in found.blocks} != {name}:
            other = found.blocks[0].entry.name
            message = f"{name} can mean two tensors: {other} has this name in newer transformers"
            hint = "save the adapter with transformers 5, on the base as it loads it"
            raise BaseError(message, hint=hint)
        return found
    if stored:
        return view.whole(stored)
    return found or layout.stored(name)


_AS_IN_MEMORY = "load the base with transformers, save it with save_original_format=False"


def _kept_otherwise(name: str, why: str, hint: str = _AS_IN_MEMORY) -> BaseError:
    return BaseError(f"{name} is not in the base as such: {why}", hint=hint)


def _guessed(name: str, layout: Layout) -> str | None:
    """Return the one name that can be meant where a prefix is missing or too many."""
    first, _, rest = name.partition(".")
    if first in layout.all_heads:
        return None  # the checkpoint has this part of the model, and the name is not in it
    if rest in layout.known:
        return rest
    found = [key for head in layout.all_heads if (key := f"{head}.{name}") in layout.known]
    return found[0] if len(found) == 1 else None


def _oriented(base: Base, target: Target, seen: View) -> View:
    """Turn a view from how the module keeps the parameter to how the change counts its axes."""
    change = target.change
    if len(seen.shape) == 2 and not isinstance(change, Replacement | Rows):
        turn = orientation.is_transposed(base, target, seen)
        return view.transpose(seen, 0, 1) if turn else seen
    is_stack = isinstance(change, ExpertLowRank) or "experts" in target.module
    if len(seen.shape) == 3 and is_stack and _is_turned(base, change, seen):
        return view.transpose(seen, 1, 2)
    return seen


def _is_turned(base: Base, change: Change, seen: View) -> bool:
    turned = (seen.shape[0], seen.shape[2], seen.shape[1])
    if seen.shape == turned:
        return isinstance(change, ExpertLowRank) and orientation.has_transposed_experts(base.config)
    # Versions of transformers differ in how they keep experts; the change knows its own.
    return change.shape == turned


def _pieces(name: str, seen: View) -> tuple[Piece, ...]:
    try:
        return view.pieces(seen)
    except NotAViewError as error:
        raise _kept_otherwise(name, str(error)) from None


def nearest(base: Base, name: str, count: int = 3) -> list[str]:
    """Return names of the base that a reader may have meant by ``name``, best first."""
    known = base.layouts[0].known
    ending = name.split(".")[-2:]
    same = sorted(key for key in known if key.split(".")[-2:] == ending)
    # difflib compares all pairs of characters, so it gets a sample of a large base.
    pool = same or sorted(known)
    return difflib.get_close_matches(name, pool[:400], n=count, cutoff=0.4)
