"""Masks against SplitMix64 written with whole numbers, and against what chance would do."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankloom_kernels.masks import cutoff, cutoffs, drop_, halves, kept, stream_key
from splitmix import key_of, mask, numbers, splitmix64

KEYS = st.integers(-(2**63), 2**63 - 1)


def test_the_oracle_is_the_published_generator() -> None:
    # First outputs for seed 1234567, as published with the generator's reference program.
    assert splitmix64(1234567, 3) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@given(key=KEYS, start=st.integers(0, 50), count=st.integers(0, 200))
def test_numbers_are_those_of_the_generator(key: int, start: int, count: int) -> None:
    expected = numbers(key, start + count)[start:]
    assert halves(key, start, count).tolist() == expected.tolist()


@given(key=KEYS, rate=st.floats(2**-31, 1), start=st.integers(0, 9), cut=st.integers(0, 64))
def test_a_mask_does_not_depend_on_how_the_tensor_is_cut(
    key: int, rate: float, start: int, cut: int
) -> None:
    whole = kept(key, start, 64, rate)
    parts = [kept(key, start, cut, rate), kept(key, start + cut, 64 - cut, rate)]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.tolist() == mask(key, (start + 64,), rate)[start:].tolist()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_masks_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = kept(5, 1, 100_001, 0.3)
    finally:
        torch.set_num_threads(before)
    assert found.tolist() == mask(5, (100_002,), 0.3)[1:].tolist()


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_the_share_that_stays_is_the_rate(rate: float) -> None:
    count = 1 << 20
    for key in (stream_key(0, "a", "x"), stream_key(1, "a", "x"), 0, -1):
        deviation = (int(kept(key, 0, count, rate).sum()) - rate * count) / math.sqrt(
            count * rate * (1 - rate)
        )
        assert abs(deviation) < 4.5  # of 16 draws, one in ten thousand such tests would fail


def test_neighbours_and_streams_are_not_correlated() -> None:
    count = 1 << 20
    one, other = (halves(stream_key(0, name, "w"), 0, count).double() for name in "ab")
    one, other = (values / values.std() for values in (one, other))
    # The correlation of independent numbers has a deviation of 2⁻¹⁰; lags 2 and 3 are in
    # different words, lag 1 in the same one half of the time.
    for first, second in [(one, other), *((one[:-lag], one[lag:]) for lag in (1, 2, 3, 4096))]:
        assert abs(float((first * second).mean())) < 5 * 2**-10


def test_a_key_depends_on_all_that_names_it() -> None:
    keys = {
        stream_key(seed, adapter, target)
        for seed in (0, 1)
        for adapter in ("sha256:a", "sha256:b")
        for target in ("q", "k")
    }
    assert len(keys) == 8
    assert stream_key(7, "sha256:a", "q") == key_of(7, "sha256:a", "q")


def test_dropping_sets_zeros_and_leaves_the_rest_bit_by_bit() -> None:
    values = torch.randn(33, 7)
    values[0, 0] = -0.0
    rates = torch.linspace(0.1, 0.9, 33 * 7, dtype=torch.float64).view(33, 7)
    for below, rate in [(cutoff(0.4), torch.tensor(0.4)), (cutoffs(rates), rates)]:
        found = drop_(values.clone(), 3, 3 * 7, below)
        place = torch.from_numpy(numbers(3, 36 * 7)[21:]).view(33, 7).double() / 2**32 + 0.5
        expected = torch.where(place < rate, values, 0.0)
        assert torch.equal(found.view(torch.int32), expected.view(torch.int32))


def test_everything_stays_at_a_rate_of_one() -> None:
    values = torch.randn(1000)
    assert torch.equal(drop_(values.clone(), 1, 0, cutoff(1)), values)
    assert kept(1, 0, 100_000, 1).all()


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, math.nan])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        cutoff(rate)
