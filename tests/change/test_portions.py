"""Parts of a delta that is computed by rows."""

from __future__ import annotations

import pytest
import torch

from rankloom.change.formula import ByRows
from rankloom.change.portions import Portions

DELTA = torch.arange(3 * 5 * 4, dtype=torch.float32).view(3, 5, 4)


def counted(delta: torch.Tensor) -> tuple[ByRows, list[tuple[int | None, int, int]]]:
    """A change by rows, and which rows were asked for."""
    asked: list[tuple[int | None, int, int]] = []

    def open_(expert: int | None):  # noqa: ANN202
        matrix = delta if expert is None else delta[expert]

        def rows(start: int, stop: int) -> torch.Tensor:
            asked.append((expert, start, stop))
            return matrix[start:stop].clone()

        return rows

    return ByRows("ties", tuple(delta.shape), open_), asked


@pytest.mark.parametrize(
    ("part", "index"),
    [
        ((range(5), range(4)), (slice(None), slice(None))),
        ((range(2, 4), range(4)), (slice(2, 4), slice(None))),
        ((range(1, 5, 2), range(4)), (slice(1, 5, 2), slice(None))),
        ((3, range(4)), (3, slice(None))),
        ((range(2, 4), range(1, 3)), (slice(2, 4), slice(1, 3))),
        ((range(5), range(2, 3)), (slice(None), slice(2, 3))),
        ((range(1, 4), 2), (slice(1, 4), 2)),
        ((range(2, 2), range(4)), (slice(2, 2), slice(None))),
    ],
)
def test_a_part_is_that_part(part: tuple, index: tuple) -> None:  # type: ignore[type-arg]
    matrix = DELTA[1]
    change, _ = counted(matrix)
    assert torch.equal(Portions(change).part(part), matrix[index])
    stack, _ = counted(DELTA)
    portions = Portions(stack)
    assert torch.equal(portions.part((2, *part)), DELTA[(2, *index)])
    assert torch.equal(portions.part((range(1, 3), *part)), DELTA[(slice(1, 3), *index)])


def test_no_more_is_computed_than_a_part_needs() -> None:
    change, asked = counted(DELTA[0])
    portions = Portions(change)
    portions.part((range(1, 3), range(4)))
    assert asked == [(None, 1, 3)]
    # Columns of all rows, slab by slab, as for a tensor stored as (in, out).
    portions.part((range(5), range(2)))
    portions.part((range(5), range(2, 4)))
    assert asked[1:] == [(None, 0, 5)]
