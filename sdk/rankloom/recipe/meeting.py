"""What changes of one parameter may meet in one sum."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Replacement, Rows
from rankloom.errors import IncompatibleError, UnsupportedAdapterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.adapter.change import Change
    from rankloom.recipe.plan import PlannedPart
    from rankloom.tensorfile.header import TensorEntry


_CHUNK = 1 << 20


def check_shapes(name: str, changes: Sequence[tuple[str, Change]]) -> None:
    """Demand that all changes of one parameter, each with its adapter's label, agree on its shape.

    Raises:
        IncompatibleError: naming the first two that do not.
    """
    known = [(label, change.shape) for label, change in changes if change.shape is not None]
    for label, shape in known[1:]:
        first, wanted = known[0]
        if shape != wanted:
            message = f"BASE002 {name} is {wanted} in {first}, but {shape} in {label}"
            raise IncompatibleError(message, hint="adapters of one base agree on every shape")


def check_meeting(name: str, parts: Sequence[PlannedPart]) -> None:
    """Refuse parts that cannot be summed on one parameter.

    Raises:
        IncompatibleError: two adapters put different values in the same place.
        UnsupportedAdapterError: one adapter both replaces the parameter and computes from it.
    """
    for one, two in combinations(parts, 2):
        if one.part == two.part:
            _check_own(name, one, two)
        elif clash(one.change, two.change):
            message = f"MRG005 {one.label} and {two.label} both put values of their own in {name}"
            hint = "compose adapters of which one at most replaces it, or keep their trained parts"
            raise IncompatibleError(message, hint=hint)


def _check_own(name: str, one: PlannedPart, two: PlannedPart) -> None:
    changes = one.change, two.change
    replaces = any(isinstance(change, Replacement | Rows) for change in changes)
    computes = any(isinstance(change, Computed) and change.needs_base for change in changes)
    if replaces and computes:
        message = f"MRG005 {one.label} replaces {name} and computes another change from it"
        raise UnsupportedAdapterError(message, hint="merge this adapter with PEFT")


def clash(one: object, two: object) -> bool:
    """Tell whether both put values in the same place, and not the very same values."""
    if not isinstance(one, Replacement | Rows) or not isinstance(two, Replacement | Rows):
        return False
    if isinstance(one, Rows) and isinstance(two, Rows):
        common = set(one.indices) & set(two.indices)
        return any(_row(one, row) != _row(two, row) for row in common)
    if isinstance(one, Rows) or isinstance(two, Rows):
        # An embedding's own values stand beside its factors: they leave room for rows.
        return not any(isinstance(item, Replacement) and item.spreads for item in (one, two))
    return not same(one, two)


def same(one: object, two: object) -> bool:
    """Tell whether two changes are the same, by their bytes where they put in values."""
    if isinstance(one, Replacement) and isinstance(two, Replacement):
        return _same_values(one.value, two.value) and _same_rows(one.rows, two.rows)
    if isinstance(one, Rows) and isinstance(two, Rows):
        return _same_rows(one, two)
    return one == two


def _same_rows(one: Rows | None, two: Rows | None) -> bool:
    if one is None or two is None:
        return one is two
    return one.indices == two.indices and _same_values(one.value, two.value)


def _same_values(one: TensorEntry, two: TensorEntry) -> bool:
    if (one.dtype, one.shape) != (two.dtype, two.shape):
        return False
    starts = range(0, one.nbytes, _CHUNK)
    return one == two or all(_bytes(one, at, _CHUNK) == _bytes(two, at, _CHUNK) for at in starts)


def _row(change: Rows, row: int) -> bytes:
    width = change.value.nbytes // max(1, len(change.indices))
    return _bytes(change.value, change.indices.index(row) * width, width)


def _bytes(entry: TensorEntry, offset: int, count: int) -> bytes:
    with entry.path.open("rb") as stream:
        stream.seek(entry.start + offset)
        return stream.read(min(count, entry.nbytes - offset))
