"""Methods that sift by magnitude over the whole tensor: TIES, magnitude_prune, breadcrumbs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rankloom.compose.tiles.arguments import densities_of, one_for_each
from rankloom.compose.tiles.consensus import Consensus, Total
from rankloom.compose.tiles.deltas import Deltas
from rankloom.compose.tiles.elementwise import Elementwise
from rankloom.compose.tiles.sift import Magnitude
from rankloom.compose.tiles.threshold import band, thresholds
from rankloom.errors import RefError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.compose.factors.value import Factors
    from rankloom.compose.tiles.arguments import Densities
    from rankloom.compose.tiles.consensus import DivideBy, Merge, SignElection, Vote


def ties(
    parts: Sequence[Factors],
    weights: Sequence[float],
    *,
    density: Densities,
    sign_election: SignElection = "weighted",
    vote: Vote = "total",
    divide_by: DivideBy = "weights",
    lambda_: float = 1.0,
) -> Elementwise:
    """Keep the largest elements of each delta, elect a sign, take the mean of what agrees.

    *TIES-Merging: Resolving Interference When Merging Models*, arXiv 2306.01708. The defaults are
    mergekit's; PEFT's are ``sign_election="unweighted", divide_by="count"``. Unlike in both, no
    element is dropped that is as large as one that stays.

    Args:
        parts: deltas of one shape, scale folded in.
        weights: one for each.
        density: share of elements that stay, of all deltas or of each.
        sign_election: see :class:`~rankloom.compose.tiles.consensus.Consensus`.
        vote: likewise.
        divide_by: likewise.
        lambda_: factor of the result.

    Raises:
        RefError: an option cannot be, or there is another number of weights or densities.
        IncompatibleError: there are no parts, or their shapes differ.
        AdapterError: a factor holds NaN or infinity, or elements may overflow.
    """
    each = one_for_each(weights, parts, "weights")
    return _trimmed(parts, density, Consensus(each, sign_election, vote, divide_by, lambda_))


def magnitude_prune(
    parts: Sequence[Factors],
    weights: Sequence[float],
    *,
    density: Densities,
    lambda_: float = 1.0,
) -> Elementwise:
    """Keep the largest elements of each delta and add them up: PEFT's method of that name.

    Arguments and errors are those of :func:`ties`.
    """
    return _trimmed(parts, density, Total(one_for_each(weights, parts, "weights"), lambda_))


def _trimmed(parts: Sequence[Factors], density: Densities, merge: Merge) -> Elementwise:
    shares = densities_of(density, parts)
    deltas = Deltas.of(parts)
    unbounded = (math.inf,) * len(parts)
    return Elementwise(deltas, Magnitude(thresholds(deltas, shares), unbounded), merge)


def breadcrumbs(
    parts: Sequence[Factors],
    weights: Sequence[float],
    *,
    density: Densities,
    gamma: float = 0.01,
    lambda_: float = 1.0,
) -> Elementwise:
    """Drop the largest and the smallest elements of each delta and add up the rest.

    *Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks*, arXiv 2312.06795, with
    mergekit's parameters: the ``gamma · out · in`` largest go, of the rest the
    ``density · out · in`` largest stay; where both together are more than there are, fewer of the
    large ones go. What is as large as the smallest that is too large goes too.

    Arguments and errors are those of :func:`ties`; gamma is at least 0 and less than 1.
    """
    merge = Total(one_for_each(weights, parts, "weights"), lambda_)
    return _banded(parts, density, gamma, merge)


def breadcrumbs_ties(
    parts: Sequence[Factors],
    weights: Sequence[float],
    *,
    density: Densities,
    gamma: float = 0.01,
    sign_election: SignElection = "weighted",
    vote: Vote = "total",
    divide_by: DivideBy = "none",
    lambda_: float = 1.0,
) -> Elementwise:
    """Sift as :func:`breadcrumbs` and merge as :func:`ties`; mergekit does not divide here."""
    each = one_for_each(weights, parts, "weights")
    merge = Consensus(each, sign_election, vote, divide_by, lambda_)
    return _banded(parts, density, gamma, merge)


def _banded(
    parts: Sequence[Factors], density: Densities, gamma: float, merge: Merge
) -> Elementwise:
    if not 0 <= gamma < 1:
        message = f"MRG003 gamma is {gamma!r}"
        raise RefError(message, hint="give a share of at least 0 and less than 1")
    shares = densities_of(density, parts)
    deltas = Deltas.of(parts)
    bands = [band(deltas, number, share, gamma) for number, share in enumerate(shares)]
    low, high = zip(*bands, strict=True)
    return Elementwise(deltas, Magnitude(low, high), merge)
