"""Weights that stand for parts of one."""

from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rankloom.change.formula import sum_of_weights


@given(st.integers(1, 200), st.lists(st.fractions(0, 1), max_size=20))
def test_what_adds_up_to_one_is_one(count: int, cuts: list[Fraction]) -> None:
    assert sum_of_weights([1 / count] * count) == 1
    ends = sorted([Fraction(0), *cuts, Fraction(1)])
    parts = [float(stop - start) for start, stop in pairwise(ends)]
    assert sum_of_weights(parts) == 1
    for off in (1e-15, -1e-15):  # nine units of the last place: nobody meant 1 by it
        assert sum_of_weights([*parts, off]) != 1
