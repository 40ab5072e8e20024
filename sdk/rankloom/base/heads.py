"""Heads of a task that PEFT saves whole, and that a base need not have."""

from __future__ import annotations

from rankloom.adapter.change import Change, Replacement

HEADS = frozenset(["score", "classifier", "qa_outputs"])
"""Modules that PEFT saves whole for classification and question answering."""


def is_head(name: str) -> bool:
    """Tell whether a parameter is of such a head, by its full name in the model."""
    return name.partition(".")[0] in HEADS


def brings_head(name: str, change: Change) -> bool:
    """Tell whether a change is all of such a parameter, so that the base need not have it."""
    return is_head(name) and isinstance(change, Replacement)
