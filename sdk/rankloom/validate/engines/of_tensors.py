"""Features that names and shapes of tensors show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rankloom.adapter.patterns import TargetRule, UnsafeRegexError
from rankloom.validate.engines.feature import Hit, leaf, some
from rankloom.validate.engines.of_config import VOCABULARY
from rankloom.validate.engines.subject import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.validate.engines.selection import Chosen
    from rankloom.validate.engines.subject import Subject

_EXPERT = re.compile(r"(?:^|\.)experts\.\d+\.")
_FUSED = re.compile(r"(?:^|\.)experts(?:\.base_layer)?$")
_LAYER = re.compile(r"(.*?\.?)(\d+)\.(.+)")
_ATTENTION = ("q_proj", "k_proj", "v_proj")


def dora(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """The config asks for DoRA, or there are magnitudes."""
    if subject.config.get("use_dora"):
        yield Hit("use_dora is true", "use_dora")
    elif keys := [key for key in subject.shapes if "lora_magnitude_vector" in key]:
        yield Hit(f"{some(keys)} are magnitudes", keys[0])


def trained_tokens(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """Rows of the embedding were trained."""
    if keys := [key for key in subject.shapes if "trainable_tokens_" in key]:
        yield Hit(f"{some(keys)} are trained tokens", keys[0])


def padded_rank(subject: Subject, chosen: Chosen) -> Iterator[Hit]:
    """The engine fills up the rank, and more than one sort of module is adapted."""
    rank, ranks = subject.config.get("r"), chosen.engine.ranks
    sorts = {leaf(module) for module in subject.pairs}
    if type(rank) is int and rank > 0 and ranks.padded(rank) != rank and len(sorts) > 1:
        yield Hit(f"r is {rank}, which is filled up to {ranks.padded(rank)}", "r")


def prefix(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """Keys lack PEFT's prefix."""
    keys = [key for key in subject.shapes if ".lora_" in key and not key.startswith(PREFIX)]
    if keys:
        yield Hit(f"{some(keys)} do not begin with {PREFIX}", keys[0])


def half(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """One factor of two is missing."""
    if found := [name for name, pair in subject.pairs.items() if None in {pair.a, pair.b}]:
        yield Hit(f"one factor of {some(found)} is missing", found[0])


def embedding(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """The input embedding is adapted."""
    if found := [name for name, pair in subject.pairs.items() if pair.embedding]:
        yield Hit(f"{some(found)} is an adapted embedding", found[0])


def head(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """The output head is adapted."""
    if found := [name for name in subject.pairs if leaf(name) == "lm_head"]:
        yield Hit(f"{some(found)} is an adapted head", found[0])


def large_head(subject: Subject, chosen: Chosen) -> Iterator[Hit]:
    """The head is adapted, and has more rows than the engine takes."""
    most = chosen.engine.reads.vocabulary
    for name, pair in subject.pairs.items():
        if most and leaf(name) == "lm_head" and pair.b and pair.b[0] > most:
            yield Hit(f"{name} has {pair.b[0]} rows, over {most}", name)


def unnamed_vocabulary(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """Embedding or head is adapted, but ``target_modules`` does not name it."""
    named = subject.config.get("target_modules")
    if not isinstance(named, list):
        return
    names = {leaf(str(name)) for name in named}
    adapted = [name for name in subject.pairs if leaf(name) in VOCABULARY]
    if lost := [name for name in adapted if leaf(name) not in names]:
        yield Hit(f"target_modules does not name {some(lost)}", "target_modules")


def experts(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """Experts have factors of their own."""
    if found := [name for name in subject.pairs if _EXPERT.search(name)]:
        yield Hit(f"{some(found)} are experts", found[0])


def fused_experts(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """One pair of factors holds all experts."""
    if found := [name for name in subject.pairs if _FUSED.search(name)]:
        yield Hit(f"{some(found)} holds all experts", found[0])


def convolution(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """A convolution is adapted."""
    found = [name for name, pair in subject.pairs.items() if pair.a and len(pair.a) > 2]
    if plain := [name for name in found if "experts" not in name]:
        yield Hit(f"{some(plain)} is a convolution", plain[0])


def other_modules(subject: Subject, chosen: Chosen) -> Iterator[Hit]:
    """A module is adapted that the engine does not adapt."""
    known = chosen.engine.reads.modules
    if not known:
        return
    special = (_EXPERT.search, _FUSED.search)
    plain = [name for name in subject.pairs if not any(test(name) for test in special)]
    plain = [name for name in plain if leaf(name) not in known | VOCABULARY]
    if plain:
        yield Hit(f"{some(plain)} is of a sort that it does not adapt", plain[0])


def wide_rank(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """The rank is larger than a side of the module, so that A is tall or B is wide."""
    for name, pair in subject.pairs.items():
        tall = pair.a is not None and len(pair.a) == 2 and pair.a[0] > pair.a[1]
        if tall or (pair.b is not None and len(pair.b) == 2 and pair.b[0] < pair.b[1]):
            yield Hit(f"a factor of {name} has more rank than width", name)
            return


def layers_of(subject: Subject) -> Mapping[str, Mapping[str, set[str]]]:
    """Return, by list of layers and layer, which modules of it are adapted."""
    found: dict[str, dict[str, set[str]]] = {}
    for name in subject.pairs:
        if matched := _LAYER.fullmatch(name):
            found.setdefault(matched[1], {}).setdefault(matched[2], set()).add(matched[3])
    return found


def incomplete_attention(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """In some layer q or v is missing of q, k and v, or k where other layers have it."""
    for stack, layers in layers_of(subject).items():
        for index, modules in layers.items():
            leaves = {leaf(module) for module in modules} & set(_ATTENTION)
            if leaves and not {"q_proj", "v_proj"} <= leaves:
                lacking = some([name for name in ("q_proj", "v_proj") if name not in leaves])
                yield Hit(f"{stack}{index} has {some(sorted(leaves))} without {lacking}")
                return


def some_layers(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """A module is adapted in some layers only, and the config says so."""
    if lost := missing(subject, declared=True):
        yield Hit(f"layers without {some(lost)}, as the config says", lost[0])


def missing_layers(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """A module is adapted in some layers only, although the config says otherwise."""
    if lost := missing(subject, declared=False):
        yield Hit(f"there are no factors for {some(lost)}", lost[0])


def missing(subject: Subject, *, declared: bool) -> list[str]:
    """Return modules that other layers have, by whether the config leaves them out.

    Without a base the last layer is the last that is adapted.
    """
    rule = _rule(subject)
    chosen_layers = subject.config.get("layers_to_transform") is not None
    found: list[str] = []
    for stack, layers in layers_of(subject).items():
        every = sorted(set().union(*layers.values()))
        names = (f"{stack}{index}.{module}" for index in _all(subject, stack) for module in every)
        for name in (
            name for name in names if name not in subject.pairs and _exists(subject, name)
        ):
            left_out = chosen_layers or (rule is not None and not rule.matches(name))
            if left_out is declared:
                found.append(name)
    return found


def _rule(subject: Subject) -> TargetRule | None:
    value = subject.config.get("target_modules")
    if not isinstance(value, str | list) or value in ("all", "all-linear"):
        return None
    try:
        return TargetRule.of(value if isinstance(value, str) else tuple(map(str, value)))
    except UnsafeRegexError:
        return None


def _all(subject: Subject, stack: str) -> range:
    last = max(int(index) for index in layers_of(subject)[stack])
    if subject.fit:
        pattern = re.compile(rf"(?:.*\.)?{re.escape(stack)}(\d+)\.")
        seen = (pattern.match(name) for name in subject.fit.base.tensors)
        last = max((int(found[1]) for found in seen if found), default=last)
    return range(last + 1)


def _exists(subject: Subject, module: str) -> bool:
    """Tell whether the base has a module; without one, or where it is fused, whether it may."""
    if subject.fit is None:
        return True
    name, sort = f".{module}.weight", f".{leaf(module)}."
    names = [f".{found}" for found in subject.fit.base.tensors]
    alike = (found.endswith(name) or name.endswith(found) for found in names)
    return any(alike) or not any(sort in found for found in names)
