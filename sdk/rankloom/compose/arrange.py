"""Which form each change of a composition is kept in, all of them together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rankloom.adapter.change import Replacement, Rows
from rankloom.adapter.kinds.lora_parameters import ORDER
from rankloom.change.formula import Sum
from rankloom.compose.forms import CannotSaveError, Form, layer, parameter, whole
from rankloom.errors import UnsupportedAdapterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rankloom.change.formula import TargetChange

KIND = "lora_parameter"
"""Kind of what an adapter adds to parameters that belong to no layer."""


def arrange(changes: Iterable[TargetChange]) -> list[Form]:
    """Return a form for every change.

    Raises:
        UnsupportedAdapterError: PEFT has none for some of them; it names the first and says why.
    """
    split = [_joined(same) for same in _grouped(changes)]
    factored = [change for change in split if not _replaces(change)]
    forms: list[Form] = []
    refused: list[tuple[str, CannotSaveError]] = []
    for change in split:
        try:
            forms.append(_form(change, factored))
        except CannotSaveError as error:
            refused.append((change.name, error))
    if not refused and not any(form.ranks or form.tokens for form in forms):
        why = "PEFT loads no adapter that only replaces modules"
        refused.append((split[0].name, CannotSaveError(why)))
    if refused:
        raise _refusal(refused)
    return forms


def _refusal(refused: Sequence[tuple[str, CannotSaveError]]) -> UnsupportedAdapterError:
    (name, first), *others = refused
    more = f" (and {len(others)} more)" if others else ""
    message = f"MRG012 PEFT has no form for what this changes in {name}: {first}{more}"
    hint = "apply it to a base instead: 'loractl apply', or composition.apply_to()"
    return UnsupportedAdapterError(message, hint=f"{first.step}; or {hint}" if first.step else hint)


def _grouped(changes: Iterable[TargetChange]) -> Iterable[list[TargetChange]]:
    """Bring together what is of one parameter; what replaces values stays for itself."""
    groups: dict[tuple[object, ...], list[TargetChange]] = {}
    for change in (part for one in changes for part in one.by_orientation()):
        key = (change.module, change.parameter, change.candidates, _replaces(change))
        groups.setdefault(key, []).append(change)
    return groups.values()


def _joined(same: Sequence[TargetChange]) -> TargetChange:
    terms = tuple(term for change in same for term in change.formula.terms)
    return replace(same[0], formula=Sum(terms))


def _replaces(change: TargetChange) -> bool:
    return isinstance(change.formula.terms[0].change, Replacement | Rows)


def _form(change: TargetChange, factored: Sequence[TargetChange]) -> Form:
    if _replaces(change):
        there = [other for other in factored if other.module == change.module]
        same = any(other.parameter == change.parameter for other in there)
        return whole(change, beside="parameter" if same else "module" if there else "")
    if change.formula.replaces:
        message = "trained tokens and factors of one embedding have no common form"
        raise CannotSaveError(message)
    if KIND in change.kinds:
        return parameter(change, _level(change, factored))
    if change.parameter != "weight":
        message = "it is no module's weight"
        raise CannotSaveError(message)
    return layer(change)


def _level(change: TargetChange, factored: Sequence[TargetChange]) -> int:
    """Return how many parameters of its module PEFT wraps around this one: those after it."""
    own = [other for other in factored if other.module == change.module]
    if len(own) == 1:
        return 0
    bare = [KIND in other.kinds for other in own]
    if all(bare) and all(other.candidates for other in own):
        number = sorted(change.candidates).index(change.candidates[0])
        return len(own) - 1 - number
    names = [other.parameter for other in own]
    if not all(bare) or not set(names) <= set(ORDER):
        message = f"the order of {', '.join(names)} in their module is not known"
        raise CannotSaveError(message)
    return sum(ORDER.index(name) > ORDER.index(change.parameter) for name in names)
