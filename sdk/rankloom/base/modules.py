"""The modules of a base by the names that they have in memory, under which PEFT looks for them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rankloom.base import naming

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.base.layout import Layout
    from rankloom.base.model import Base

_WEIGHT = ".weight"
_OLD_STARTS = ("text_model", "model", "transformer")
"""Backbones that modules had around them in other versions of transformers."""
_HEADED = re.compile(r"For(?:SequenceClassification|TokenClassification|QuestionAnswering)")


def spellings(base: Base) -> dict[str, str]:
    """Return every name that a module with a weight can have, with its name in memory.

    The class is the one that the base's config names; it decides whether names begin with the
    backbone's prefix, as in ``transformer.h.0.attn.c_attn`` of GPT-2, whatever the files say.
    """
    layout = base.layouts[0]
    start = _missing_start(base, layout)
    found: dict[str, str] = {}
    for spelling, name in (*_others(layout), *((name, name) for name in layout.names)):
        if spelling.endswith(_WEIGHT) and name.endswith(_WEIGHT):  # real names come last, and stay
            found[spelling.removesuffix(_WEIGHT)] = start + name.removesuffix(_WEIGHT)
    return found


def _others(layout: Layout) -> Iterator[tuple[str, str]]:
    for stored in layout.known:
        if name := layout.in_memory(stored):
            yield stored, name
    for name in layout.names:
        for start in _OLD_STARTS:
            if layout.in_memory(f"{start}.{name}") == name:
                yield f"{start}.{name}", name
        for spelling in layout.spellings(name):
            yield spelling, name
        if layout.prefix and name.startswith(f"{layout.prefix}."):
            yield name.removeprefix(f"{layout.prefix}."), name


def _missing_start(base: Base, layout: Layout) -> str:
    """Return what the class puts before all names and the files leave out, mostly nothing."""
    named = base.config.get("architectures")
    name = named[0] if isinstance(named, list) and named else ""
    known = naming.data()["classes"].get(name)
    if known is None or not layout.prefix or layout.prefix in layout.heads:
        return ""
    start = f"{layout.prefix}."
    sources = [source for _, _, pairs in known.get("tied", ()) for source in pairs.values()]
    if sources:
        return start if any(source.startswith(start) for source in sources) else ""
    return start if _HEADED.search(name) else ""
