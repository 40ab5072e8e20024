"""The repairs: each takes a draft and returns it repaired, or as it is.

A repair is here only if there is one way to do it and it loses nothing: keys under their prefix,
wider dtypes that hold every value, numbers that were written as texts, a rank with zeros.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from rankloom.adapter.fields import LIBRARIES
from rankloom.adapter.keys import PREFIX
from rankloom.errors import UnsupportedAdapterError
from rankloom.finding import Finding
from rankloom.repair import values
from rankloom.tensorfile.entries import FLOATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rankloom.repair.draft import Draft, Part

FACTOR = re.compile(r"(.*)\.lora_(?:(A|B)\.weight|embedding_(A|B))")
_ADAPTER_NAME = re.compile(r"(\.lora_(?:A|B))\.default(\.weight)$")
_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_MODULE_START = "model."


def numbers(draft: Draft) -> Draft:
    """CFG004, CFG005: r and lora_alpha are numbers, and whole ones are written as such."""
    for name, rule in (("r", "CFG004"), ("lora_alpha", "CFG005")):
        value = draft.config.get(name)
        number = _number(value)
        if number is not None and (type(number), number) != (type(value), value):
            config = {**draft.config, name: number}
            draft = draft.repaired(rule, f"{name} is {number}, it was {value!r}", config=config)
    return draft


def _number(value: object) -> float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, float) else None


def imports(draft: Draft) -> Draft:
    """SEC002: no library is named that loaders would import for the model's class."""
    mapping = draft.config.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    if not isinstance(library, str) or library.split(".")[0] in LIBRARIES:
        return draft
    config = {**draft.config, "auto_mapping": None}
    return draft.repaired("SEC002", f"auto_mapping is null, it named {library}", config=config)


def adapter_name(draft: Draft) -> Draft:
    """TEN009: keys have no name of an adapter in them, as a state dict of PEFT's model has."""
    named = {key: _ADAPTER_NAME.sub(r"\1\2", key) for key in draft.parts}
    return _renamed(draft, named, "TEN009", "'.default' is taken out of the keys")


def prefix(draft: Draft, start: str) -> Draft:
    """TEN001: keys begin with the prefix once.

    Args:
        draft: the adapter.
        start: what is put before the keys that lack it, one of :func:`starts`.
    """
    named = {key: _once(key, start) for key in draft.parts}
    return _renamed(draft, named, "TEN001", f"keys begin with '{PREFIX}' once")


def _once(key: str, start: str) -> str:
    if not key.startswith(PREFIX):
        return start + key
    while key.startswith(PREFIX + PREFIX):
        key = key.removeprefix(PREFIX)
    return key


def starts(keys: Iterable[str]) -> list[str]:
    """Return what may be missing before the keys; more than one: only the base can tell."""
    lacking = [key for key in keys if not key.startswith(PREFIX)]
    if lacking and all(key.startswith(_MODULE_START) for key in lacking):
        return [PREFIX, PREFIX.removesuffix(_MODULE_START)]
    return [PREFIX]


def _renamed(draft: Draft, named: dict[str, str], rule: str, what: str) -> Draft:
    if all(old == new for old, new in named.items()):
        return draft
    if len(set(named.values())) < len(named):
        return draft  # two keys would be one: nobody can tell which is meant
    parts = {named[key]: part for key, part in draft.parts.items()}
    return draft.repaired(rule, what, parts=parts)


def dtypes(draft: Draft) -> Draft:
    """TEN007, TEN008: all factors have one dtype, which holds every value that they had."""
    found = {part.dtype for key, part in draft.parts.items() if FACTOR.fullmatch(key)}
    one = len(found) == 1 and found <= FLOATS
    if one or not found <= values.WIDENED:
        return draft
    changed = {
        key: values.widened(part) if FACTOR.fullmatch(key) else part
        for key, part in draft.parts.items()
    }
    parts = {key: part for key, part in changed.items() if part is not None}
    if len(parts) < len(changed):
        return draft  # a float64 that float32 does not hold
    rule = "TEN008" if found <= FLOATS else "TEN007"
    was = ", ".join(sorted(found))
    return draft.repaired(rule, f"factors are F32, they were {was}", parts=parts)


def rank(draft: Draft, wanted: int) -> Draft:
    """Fill up the factors with zeros to another rank, at the same scale.

    Raises:
        UnsupportedAdapterError: ranks differ by module, are larger, or no alpha gives the scale.
    """
    config = draft.config
    own = config.get("r")
    if config.get("rank_pattern") or config.get("alpha_pattern") or type(own) is not int:
        raise _refusal(
            "its ranks or alphas differ by module", "'loractl compose' makes one of them"
        )
    if own == wanted:
        return draft
    if own > wanted:
        raise _refusal(f"its rank is {own}, more than {wanted}", "'loractl compose --rank' cuts it")
    alpha = _alpha(config, own, wanted)
    parts = {key: _filled(key, part, own, wanted) for key, part in draft.parts.items()}
    return draft.repaired(
        "ENG001", f"rank {own} is filled up to {wanted}",
        config={**config, "r": wanted, "lora_alpha": alpha}, parts=parts,
    )  # fmt: skip


def _alpha(config: Any, own: int, wanted: int) -> float:  # noqa: ANN401 - a JSON object
    """Return the alpha that gives at the new rank the very same scale, in float64 as in PEFT."""
    divisor: Callable[[float], float] = math.sqrt if config.get("use_rslora") else float
    alpha = config.get("lora_alpha", 8)
    scale = alpha / divisor(own)
    found = scale * divisor(wanted)
    if found / divisor(wanted) != scale:
        raise _refusal(f"no alpha gives the scale {scale} at rank {wanted}", "choose another rank")
    return int(found) if found.is_integer() else found


def _filled(key: str, part: Part, own: int, wanted: int) -> Part:
    matched = FACTOR.fullmatch(key)
    if matched is None:
        return part
    axis = 0 if "A" in (matched[2], matched[3]) else 1
    if len(part.shape) != 2 or part.shape[axis] != own:
        raise _refusal(
            f"{key} has the shape {list(part.shape)}", "only plain factors are filled up"
        )
    return values.fill(part, axis, wanted)


def _refusal(what: str, hint: str) -> UnsupportedAdapterError:
    message = f"CFG012 the adapter cannot be brought to this rank: {what}"
    return UnsupportedAdapterError(message, hint=hint, findings=[Finding("CFG012", what, fix=hint)])
