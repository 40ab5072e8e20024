"""Tensors that all modules of an adapter share; PEFT keeps them outside of the model's modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.kinds.reading import Reading
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rankloom.tensorfile.header import TensorEntry

ROOT = "base_model."
"""What stands before the name of a shared tensor in the file."""


def take(tensors: Mapping[str, TensorEntry], names: Iterable[str]) -> dict[str, TensorEntry]:
    """Return the shared tensors that are there, by name without :data:`ROOT`."""
    return {name: tensors[ROOT + name] for name in names if ROOT + name in tensors}


def with_taken(reading: Reading, shared: Mapping[str, TensorEntry]) -> Reading:
    """Return a reading that took the shared tensors too."""
    taken = reading.taken | {ROOT + name for name in shared}
    return Reading(reading.targets, taken, reading.findings)


def lacks(tensors: Mapping[str, TensorEntry], option: str, what: str) -> Reading:
    """Refuse an adapter whose file leaves out what PEFT would draw again from a seed.

    Args:
        tensors: all of the file, which are taken, so that nothing else is said of them.
        option: the config field that makes PEFT save it.
        what: the tensors that are missing.
    """
    message = (
        f"the file holds no {what}: PEFT draws them from a seed, in the order and for the sizes of "
        f"the model's modules, and rounds them as it has loaded the base ({option} is false)"
    )
    fix = f"load the adapter with PEFT, set {option}=True in its config and save it again"
    return Reading((), frozenset(tensors), (Finding("CFG012", message, where=option, fix=fix),))
