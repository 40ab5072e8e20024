"""Features that show beside a base."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rankloom.base import naming, tying
from rankloom.validate.engines.feature import Hit, leaf, some
from rankloom.validate.engines.of_tensors import layers_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rankloom.base.model import Base
    from rankloom.validate.engines.selection import Chosen
    from rankloom.validate.engines.subject import Fit, Subject

_INDEX = re.compile(r"\.(\d+)\.")
_ATTENTION = frozenset(["q_proj", "k_proj", "v_proj"])


def absent(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """The base has no such module in any layer."""
    if subject.fit and (lost := _lost(subject.fit, beyond=False)):
        yield Hit(f"the base has no {some(lost)}", lost[0])


def beyond(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """The base has the module, but fewer layers."""
    if subject.fit and (lost := _lost(subject.fit, beyond=True)):
        yield Hit(f"the base has no layer for {some(lost)}", lost[0])


def _lost(fit: Fit, *, beyond: bool) -> list[str]:
    forms = {_INDEX.sub(".#.", name) for name in fit.base.tensors}
    return [t.name for t in fit.lost if (_INDEX.sub(".#.", t.name) in forms) is beyond]


def other_name(subject: Subject, chosen: Chosen) -> Iterator[Hit]:
    """A module has a name by which rankloom finds it in the base, and the engine does not."""
    if subject.fit is None:
        return
    layout = subject.fit.base.layouts[0]
    ends = {_end(name) for name in layout.names}
    names = dict.fromkeys(target.name for target, _ in subject.fit.placed)
    # What is a part of a fused tensor has no name of its own there.
    others = [
        name
        for name in names
        if _end(name) in ends and not _is_known(name, subject.fit.base, chosen.engine.reads.names)
    ]
    if others:
        yield Hit(f"{some(others)} has another name in the model", others[0])


def _end(name: str) -> str:
    return ".".join(name.rsplit(".", 2)[-2:])


def _is_known(name: str, base: Base, known: Sequence[str]) -> bool:
    layout = base.layouts[0]
    bare = name.removeprefix(f"{layout.prefix}.") if layout.prefix else name
    if name in layout.names or (layout.prefix not in layout.heads and bare in layout.names):
        return True
    forms = {
        "checkpoint": lambda: name in base.tensors,
        "converted": lambda: name in base.tensors and naming.is_converted(base.config),
        "backbone": lambda: any(f"{head}.{name}" in layout.names for head in layout.heads),
    }
    return any(forms[form]() if form in forms else name.startswith(form) for form in known)


def smaller(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """A factor is smaller than the base's tensor, and in no direction larger."""
    for target, wanted, found in subject.fit.unequal if subject.fit else ():
        if len(wanted) == len(found) and all(a <= b for a, b in zip(wanted, found, strict=True)):
            yield Hit(f"{target.name} changes {list(wanted)} of {list(found)}", target.name)
            return


def larger(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """A factor is larger than the base's tensor in some direction."""
    for target, wanted, found in subject.fit.unequal if subject.fit else ():
        if len(wanted) != len(found) or any(a > b for a, b in zip(wanted, found, strict=True)):
            yield Hit(f"{target.name} changes {list(wanted)} of {list(found)}", target.name)
            return


def other_values(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """The base is another one than the adapter was made for, of whatever shape."""
    if subject.fit and subject.fit.same is False:
        yield Hit("the base is not the one that the adapter was made for")


def tied_head(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """The head is adapted, and is the input embedding once more."""
    if subject.fit is None or not (heads := [n for n in subject.pairs if leaf(n) == "lm_head"]):
        return
    ties = tying.ties(subject.fit.base)
    if any(leaf(name.removesuffix(".weight")) == "lm_head" for name in (*ties, *ties.values())):
        yield Hit(f"the base ties {heads[0]} to its embedding", heads[0])


def uneven_attention(subject: Subject, _: Chosen) -> Iterator[Hit]:
    """Some of q, k and v are adapted, and the base has fewer heads for k and v."""
    if subject.fit is None:
        return
    config = subject.fit.base.config
    heads, shared = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if not shared or heads == shared:
        return
    for layers in layers_of(subject).values():
        for modules in layers.values():
            leaves = {leaf(module) for module in modules} & _ATTENTION
            if leaves and leaves != _ATTENTION:
                yield Hit(f"{some(sorted(leaves))} without {some(sorted(_ATTENTION - leaves))}")
                return
