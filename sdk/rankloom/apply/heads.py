"""Heads of a task that the base does not have and an adapter brings whole."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rankloom.adapter.change import Replacement
from rankloom.apply.placed import Contribution, Placed
from rankloom.base.heads import is_head
from rankloom.base.model import Piece
from rankloom.change.dtypes import FLOATS
from rankloom.tensorfile.header import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rankloom.base.model import Base
    from rankloom.change.formula import TargetChange


def new_heads(base: Base, absent: Iterable[TargetChange]) -> dict[str, Placed]:
    """Return the tensors of heads, as new tensors of the base, by name.

    Only what is brought whole with weight 1 can be written: there is nothing to add it to.
    """
    found = (change for change in absent if is_head(change.name))
    return {change.name: _placed(base, change) for change in found if _is_whole(change)}


def _is_whole(change: TargetChange) -> bool:
    terms, share = change.formula.terms, change.formula.share
    return share == 1 and all(isinstance(term.change, Replacement) for term in terms)


def _placed(base: Base, change: TargetChange) -> Placed:
    shape = change.shape
    assert shape is not None  # noqa: S101 - a replacement has one
    dtypes = Counter(entry.dtype for entry in base.tensors.values() if entry.dtype in FLOATS)
    dtype, _ = dtypes.most_common(1)[0]
    file = base.files[-1]
    entry = TensorEntry(file, change.name, dtype, shape, 0, 0)
    one = Contribution(Piece(entry), (), shape, change.formula.put_in_once)
    return Placed(change.name, None, dtype, shape, (one,), file, is_new=True)


def label_edits(base: Base, tensors: Mapping[str, Placed]) -> dict[str, Any]:
    """Return what the config says of the labels of a new classifier."""
    heads = [item for name, item in tensors.items() if item.is_new and is_head(name)]
    counts = {item.shape[0] for item in heads if item.name in _LAST}
    known = base.config.get("id2label")
    if len(counts) != 1 or counts == {len(known) if isinstance(known, dict) else 2}:
        return {}
    labels = [f"LABEL_{number}" for number in range(counts.pop())]
    ids = {label: number for number, label in enumerate(labels)}
    return {"id2label": {str(n): label for label, n in ids.items()}, "label2id": ids}


_LAST = frozenset(["score.weight", "classifier.weight", "classifier.out_proj.weight"])
"""Weights with a row for each label."""
