"""Methods that sift at random: DARE and DELLA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.compose.tiles.arguments import densities_of, one_for_each
from rankloom.compose.tiles.consensus import Consensus, Total
from rankloom.compose.tiles.deltas import Deltas
from rankloom.compose.tiles.elementwise import Elementwise
from rankloom.compose.tiles.sift import Drop, DropByRank, window
from rankloom.errors import RefError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.compose.factors.value import Factors
    from rankloom.compose.tiles.arguments import Densities
    from rankloom.compose.tiles.consensus import DivideBy, Merge, SignElection, Vote


def dare_linear(
    parts: Sequence[Factors],
    weights: Sequence[float],
    *,
    density: Densities,
    keys: Sequence[int],
    lambda_: float = 1.0,
) -> Elementwise:
    """Drop elements at random, divide what stays by the probability, and add up.

    *Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch*,
    arXiv 2311.03099. The division is by the density itself, as in the paper and in PEFT; mergekit
    restores the sum of magnitudes of each tensor instead.

    Args:
        parts: deltas of one shape, scale folded in.
        weights: one for each.
        density: probability with which an element stays, of all deltas or of each.
        keys: the deltas' streams, from :func:`rankloom_kernels.masks.stream_key`.
        lambda_: factor of the result.

    Raises:
        RefError: an option cannot be, or there is another number of weights, densities or keys.
        IncompatibleError: there are no parts, or their shapes differ.
        AdapterError: a factor holds NaN or infinity, or elements may overflow.
    """
    return _dropped(parts, density, keys, Total(one_for_each(weights, parts, "weights"), lambda_))


def dare_ties(
    parts: Sequence[Factors],
    weights: Sequence[float],
    *,
    density: Densities,
    keys: Sequence[int],
    sign_election: SignElection = "weighted",
    vote: Vote = "total",
    divide_by: DivideBy = "none",
    lambda_: float = 1.0,
) -> Elementwise:
    """Sift as :func:`dare_linear` and merge as :func:`~rankloom.compose.tiles.trimmed.ties`.

    mergekit does not divide here; PEFT's are ``sign_election="unweighted", divide_by="count"``.
    """
    each = one_for_each(weights, parts, "weights")
    merge = Consensus(each, sign_election, vote, divide_by, lambda_)
    return _dropped(parts, density, keys, merge)


def _dropped(
    parts: Sequence[Factors], density: Densities, keys: Sequence[int], merge: Merge
) -> Elementwise:
    drop = Drop(densities_of(density, parts), one_for_each(keys, parts, "keys"))
    return Elementwise(Deltas.of(parts), drop, merge)


def della_linear(
    parts: Sequence[Factors],
    weights: Sequence[float],
    *,
    density: Densities,
    keys: Sequence[int],
    epsilon: float = 0.15,
    lambda_: float = 1.0,
) -> Elementwise:
    """Drop elements at random, small ones of a row rather than large ones, and add up.

    *DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling*, arXiv
    2406.11617: what stays is divided by its own probability. As in mergekit the probabilities of a
    row run from ``density - epsilon`` to ``density + epsilon``.

    Arguments and errors are those of :func:`dare_linear`; the window must lie within 0 and 1.
    """
    merge = Total(one_for_each(weights, parts, "weights"), lambda_)
    return _dropped_by_rank(parts, density, epsilon, keys, merge)


def della(
    parts: Sequence[Factors],
    weights: Sequence[float],
    *,
    density: Densities,
    keys: Sequence[int],
    epsilon: float = 0.15,
    sign_election: SignElection = "weighted",
    vote: Vote = "total",
    divide_by: DivideBy = "weights",
    lambda_: float = 1.0,
) -> Elementwise:
    """Sift as :func:`della_linear` and merge as :func:`~rankloom.compose.tiles.trimmed.ties`."""
    each = one_for_each(weights, parts, "weights")
    merge = Consensus(each, sign_election, vote, divide_by, lambda_)
    return _dropped_by_rank(parts, density, epsilon, keys, merge)


def _dropped_by_rank(
    parts: Sequence[Factors],
    density: Densities,
    epsilon: float,
    keys: Sequence[int],
    merge: Merge,
) -> Elementwise:
    shares = densities_of(density, parts)
    if epsilon < 0 or any(not epsilon < share <= 1 - epsilon for share in shares):
        message = f"MRG003 densities {shares} ± epsilon {epsilon!r} leave the interval from 0 to 1"
        raise RefError(message, hint="give a smaller epsilon, or densities nearer to 0.5")
    streams = one_for_each(keys, parts, "keys")
    deltas = Deltas.of(parts)
    drop = DropByRank(window(shares, epsilon, deltas.shape[1]), streams)
    return Elementwise(deltas, drop, merge)
