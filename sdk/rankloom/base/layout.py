"""The parameters of a model, by their names in memory, as views of what a checkpoint stores."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from rankloom.base import renaming, view
from rankloom.base.view import NotAViewError, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rankloom.base.naming import Naming
    from rankloom.base.renaming import Rule
    from rankloom.tensorfile.header import TensorEntry

    Sources = list[list[View]]
    """For each source of a conversion, the tensors that its pattern matched, in order."""


@dataclass
class _Made:
    """Parameters that one rule makes of some stored tensors (``None``: one, as it is)."""

    rule: Rule | None
    names: tuple[str, ...]
    sources: dict[int, list[TensorEntry]] = field(default_factory=dict)


class Layout:
    """A checkpoint under the names of one class.

    Args:
        tensors: the stored tensors by name.
        naming: how the class names them.
    """

    def __init__(self, tensors: Mapping[str, TensorEntry], naming: Naming) -> None:
        self.prefix = naming.prefix
        self._tensors, self._rules = tensors, naming.rules
        self._made: dict[str, _Made] = {}
        for name in sorted(tensors, key=renaming.natural):
            new, rule, number = self._rules.apply(name)
            made = self._made.get(new)
            if made is None:
                made = _Made(rule, tuple(_names(new, rule)))
                self._made |= dict.fromkeys(made.names, made)
            made.sources.setdefault(number, []).append(tensors[name])

    def in_memory(self, name: str) -> str | None:
        """Return the name in memory of what has a name, perhaps an older one; ``None``: nothing."""
        new = self._rules.apply(name)[0]
        return new if new in self._made else None

    @property
    def names(self) -> frozenset[str]:
        """All names in memory."""
        return frozenset(self._made)

    @cached_property
    def heads(self) -> frozenset[str]:
        """The first parts of all names in memory."""
        return frozenset(name.partition(".")[0] for name in self._made)

    @cached_property
    def all_heads(self) -> frozenset[str]:
        """The first parts of all names."""
        return frozenset(name.partition(".")[0] for name in self.known)

    def spellings(self, name: str) -> Iterator[str]:
        """Yield a name, and the same with or without the prefix of the class's backbone."""
        yield name
        start = f"{self.prefix}."
        if not self.prefix:
            return
        if not name.startswith(start):
            yield start + name
        elif self.prefix not in self.heads:  # else this part is here, and the name is not in it
            yield name.removeprefix(start)

    @cached_property
    def known(self) -> frozenset[str]:
        """All names, in memory and on disk."""
        return frozenset({*self._tensors, *self._made})

    def parameter(self, name: str) -> View | None:
        """Return a parameter of the model; ``None``: there is none of this name.

        Raises:
            NotAViewError: it is made of stored tensors in a way that a view cannot say.
        """
        made = self._made.get(name)
        if made is None:
            return None
        sources = [[view.whole(e) for e in found] for _, found in sorted(made.sources.items())]
        if made.rule is None:
            if len(sources) != 1 or len(sources[0]) != 1:
                raise NotAViewError(f"{name} is stored {len(sources[0])} times")
            return sources[0][0]
        if len(sources) != len(made.rule.sources):
            raise NotAViewError(f"only {len(sources)} of {len(made.rule.sources)} parts are stored")
        return _converted(made.rule, sources)[made.names.index(name)]

    def stored(self, name: str) -> View | None:
        """Return what another checkpoint of this model would store under a name.

        So names of older versions of the model are found in a checkpoint that a newer one saved.
        """
        new, rule, number = self._rules.apply(name)
        if name in self._tensors or (rule is None and new == name):
            return None
        names = tuple(_names(new, rule))
        made = [self._made.get(target) for target in names]
        if any(item is None or (rule and item.rule is rule) for item in made):
            return None  # nothing of it is here, or it is here as parts of which this is none
        try:
            targets = [found for target in names if (found := self.parameter(target))]
            return _unconverted(rule, number, name, targets) if rule else targets[0]
        except NotAViewError:
            return None


def _names(first: str, rule: Rule | None) -> Iterator[str]:
    """Yield the names that a rule makes, of which a renamed name is the first."""
    yield first
    if rule is not None:
        head, _, tail = first.partition(rule.targets[0])
        yield from (head + target + tail for target in rule.targets[1:])


def _converted(rule: Rule, sources: Sources) -> list[View]:
    for name, *arguments in rule.operations:
        step = _FORWARD.get(name)
        if step is None:
            raise NotAViewError(f"transformers converts it with {name} while loading")
        sources = step(sources, rule, *arguments)
    if len(sources) != len(rule.targets) or any(len(found) != 1 for found in sources):
        raise NotAViewError("the conversion makes another number of parameters")
    return [found[0] for found in sources]


def _merge(sources: Sources, _: Rule, dim: int) -> Sources:
    if dim:
        raise NotAViewError(f"experts along axis {dim}")
    return [[view.stack(found)] for found in sources]


def _concatenate(sources: Sources, _: Rule, dim: int, *_config: str) -> Sources:
    return [[view.concatenate([one for found in sources for one in found], dim)]]


def _chunk(sources: Sources, rule: Rule, dim: int, *config: str) -> Sources:
    if config:
        raise NotAViewError(f"the number of parts is the config's {config[0]}")
    [[whole]] = sources
    return [[part] for part in view.chunk(whole, dim, len(rule.targets))]


def _transpose(sources: Sources, _: Rule, dim0: int, dim1: int, check: object = False) -> Sources:
    # Where the shapes decide (check), they also decide later, against the change's own.
    return sources if check else [[view.transpose(found[0], dim0, dim1)] for found in sources]


def _interleave(sources: Sources, _: Rule, dim: int, inverse: object = False) -> Sources:
    if inverse:
        raise NotAViewError("its elements are interleaved")
    return [[view.deinterleave(found[0], dim)] for found in sources]


_FORWARD: dict[str, Callable[..., Sources]] = {
    "MergeModulelist": _merge,
    "Concatenate": _concatenate,
    "Chunk": _chunk,
    "Transpose": _transpose,
    "Interleave": _interleave,
}


def _unconverted(rule: Rule, number: int, name: str, targets: Sequence[View]) -> View:
    """Return what a rule would have made ``targets`` of: its source of this number and name."""
    views = list(targets)
    for kind, *arguments in reversed(rule.operations):
        if kind == "MergeModulelist":
            views = [view.select(views[0], _expert(rule.sources[number], name))]
        elif kind == "Concatenate" and len(arguments) == 1:
            views = [view.chunk(views[0], arguments[0], len(rule.sources))[number]]
        elif kind in {"Chunk", "Split"} and len(arguments) == 1:
            views = [view.concatenate(views, arguments[0])]
        elif kind == "Transpose":
            views = [view.transpose(views[0], *arguments[:2])]
        else:
            raise NotAViewError(kind)
    [found] = views
    return found


def _expert(source: str, name: str) -> int:
    before, star, after = source.partition("*.")
    found = re.search(rf"{before}(\d+)\.{after}", name) if star else None
    if found is None:
        raise NotAViewError(name)
    return int(found[1])
