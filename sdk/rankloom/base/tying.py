"""Which parameters of a base are one in the model: a head that is the input embedding once more.

What is tied is decided as transformers decides it: by the class's pairs, by the config's
``tie_word_embeddings``, and where the checkpoint holds both of a pair, by their values.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from rankloom.base import naming
from rankloom.base.view import NotAViewError
from rankloom.errors import BaseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.base.layout import Layout
    from rankloom.base.model import Base
    from rankloom.tensorfile.header import TensorEntry

FLAG = "tie_word_embeddings"
_SCALED = frozenset(["switch_transformers", "pix2struct", "t5gemma"])
"""Models that compute otherwise where the field says that nothing is tied."""
_PLAIN = re.compile(r"[\w.]+\.(?:weight|bias)")


def ties(base: Base) -> dict[str, str]:
    """Return the names on disk of tied tensors, each with the stored one that it repeats.

    A name that the base does not store is the one under which transformers would load it.

    Raises:
        IntegrityError: a file became shorter meanwhile.
    """
    layout = base.layouts[0]
    found: dict[str, str] = {}
    for members in _groups(base):
        entries = {name: _stored(layout, name) for name in members}
        source = next((entry for entry in entries.values() if entry), None)
        for name, entry in entries.items():
            if source is None or entry is source:
                continue
            if entry is None:
                found[_new_name(layout, name)] = source.name
            elif _equal(base, entry, source):
                found[entry.name] = source.name
    return found


def with_own(base: Base, ties: Mapping[str, str]) -> Base:
    """Return the base as if every tied tensor were stored, under its own name.

    Args:
        base: a base.
        ties: name of each tensor that is tied → name of the one that it repeats.
    """
    own = {
        name: replace(base.tensors[source], name=name)
        for name, source in ties.items()
        if name not in base.tensors and source in base.tensors
    }
    return replace(base, tensors={**base.tensors, **own}) if own else base


def _stored(layout: Layout, name: str) -> TensorEntry | None:
    """Return the stored tensor that is a parameter; ``None``: it is not one, or not there."""
    for spelled in layout.spellings(name):
        try:
            view = layout.parameter(spelled)
        except NotAViewError:
            continue
        if view and [block.entry.shape for block in view.blocks] == [view.shape]:
            return view.blocks[0].entry
    return None


def _new_name(layout: Layout, name: str) -> str:
    """Return the name under which a checkpoint like this one stores a parameter."""
    with_prefix = layout.prefix in layout.heads
    return name if with_prefix else name.removeprefix(f"{layout.prefix}.")


def _equal(base: Base, one: TensorEntry, two: TensorEntry) -> bool:
    if (one.dtype, one.shape) != (two.dtype, two.shape):
        return False
    if not base.files:  # known by its record only
        return True
    from rankloom.tensorfile.values import raw_chunks  # numpy, which headers do not need

    chunks = zip_longest(raw_chunks(one), raw_chunks(two))
    return all(first == second for first, second in chunks)


def _groups(base: Base) -> Iterator[list[str]]:
    """Yield names in memory of parameters that are one, first the one that the others repeat."""
    groups: dict[str, list[str]] = {}
    for module, place, pairs in naming.tied_names(base.config):
        start = f"{module}." if module else ""
        for name, source in pairs.items() if is_tied(base.config, place) else ():
            if _PLAIN.fullmatch(name) and _PLAIN.fullmatch(source):
                groups.setdefault(start + source, [start + source]).append(start + name)
    if naming.class_of(base.config) is None and is_tied(base.config):
        embeddings = [name for name in base.tensors if name.endswith("embed_tokens.weight")]
        groups |= {name: [name, "lm_head.weight"] for name in embeddings if len(embeddings) == 1}
    yield from groups.values()


def is_tied(config: Mapping[str, Any], place: str = "") -> bool:
    """Tell whether the config at a place within a base's config says that embeddings are tied."""
    found = naming.at(config, place)
    known = naming.data()["tying"].get(naming.kind_of(found), {})
    if known.get("forced"):
        return True
    value = found.get(FLAG)
    own = known.get("default", False) if value is None else value is True
    text = found.get("text_config")
    return own or (known.get("inner", False) and isinstance(text, dict) and is_tied(text))


def check(base: Base, name: str) -> None:
    """Refuse a parameter that whole modules of the model share.

    Raises:
        BaseError: it is one of them.
    """
    if any(pattern.search(name) for pattern in base.shared):
        message = f"{name} is shared by several modules of the model"
        raise BaseError(message, hint="leave these modules out of the adapter's targets")


def shared(config: Mapping[str, Any]) -> Iterator[re.Pattern[str]]:
    """Yield what is found in the names of parameters that whole modules share."""
    for module, place, pairs in naming.tied_names(config):
        start = re.escape(f"{module}.") + ".*" if module else ""
        for text in (text for pair in pairs.items() for text in pair):
            if not _PLAIN.fullmatch(text) and is_tied(config, place):
                yield re.compile(start + text)


def keeps_flag(config: Mapping[str, Any]) -> bool:
    """Tell whether the config of a base must go on saying that its embeddings are tied.

    In some models the field means something else besides, or nothing; transformers then loads two
    tensors of different values as two.
    """
    kind = naming.kind_of(config)
    return kind in _SCALED or bool(naming.data()["tying"].get(kind, {}).get("forced"))


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config that says that nothing is tied, also in the configs within it."""
    new = dict(config)
    if keeps_flag(config):
        return new
    for place in sorted({"", *_places(config)}):
        new = _without(new, place.split(".") if place else [])
    return new


def _without(config: Mapping[str, Any], path: list[str]) -> dict[str, Any]:
    if not path:
        return {**config, FLAG: False}
    inner = config.get(path[0])
    return {**config, path[0]: _without(inner if isinstance(inner, dict) else {}, path[1:])}


def _places(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the configs within that say, or can say, that something is tied."""
    yield from (place for _, place, _ in naming.tied_names(config))
    known = naming.data()["tying"].get(naming.kind_of(config), {})
    for name, inner in config.items():
        asked = name == "text_config" and known.get("inner")
        if isinstance(inner, dict) and (FLAG in inner or asked):
            yield name
