"""LN tuning (arXiv 2312.11420): normalisation layers that were trained as a whole.

Keys ``<module>.ln_tuning_layers.<parameter>`` hold what the module's parameters become.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import Replacement, Target
from rankloom.adapter.kinds.kind import Kind
from rankloom.adapter.kinds.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.tensorfile.header import TensorEntry

_MARK = ".ln_tuning_layers."


def _read(_config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    keys = [key for key in tensors if _MARK in key]
    return Reading(tuple(_target(key, tensors[key]) for key in keys), frozenset(keys), ())


def _target(key: str, entry: TensorEntry) -> Target:
    """A layer that is a container has parameters of modules within."""
    name = key.replace(_MARK, ".", 1)
    module, _, parameter = name.rpartition(".")
    return Target(module, "ln_tuning", Replacement(entry), parameter)


KIND = Kind("LN_TUNING", _read)
