"""Quantiles by counting against sorting."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rankloom.compose.tiles.threshold import kth_largest

# Few different ones beside all kinds: equal values are where quantiles go wrong.
VALUES = st.one_of(
    st.sampled_from([0.0, 1.0, 1.0000001, 2.0, 1e-45, 3.4e38, float("inf")]),
    st.floats(0, width=32, allow_nan=False),
)


@settings(max_examples=60)
@given(
    values=arrays(np.float32, st.integers(1, 60), elements=VALUES),
    cut=st.integers(0, 60),
    data=st.data(),
)
def test_it_is_what_sorting_finds(values: np.ndarray, cut: int, data: st.DataObject) -> None:
    ranks = data.draw(st.lists(st.integers(1, values.size), min_size=1, max_size=3))
    whole = torch.from_numpy(values).abs()
    found = kth_largest(lambda: (part.clone() for part in (whole[:cut], whole[cut:])), ranks)
    ordered = np.sort(whole.numpy())[::-1]
    assert list(found) == [float(ordered[rank - 1]) for rank in ranks]
