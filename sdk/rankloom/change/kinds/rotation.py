"""What the orthogonal kinds share: Cayley's map from skew-symmetric to orthogonal matrices."""

from __future__ import annotations

import torch


def cayley(skew: torch.Tensor) -> torch.Tensor:
    """Return (I − S)·(I + S)⁻¹ of each matrix S, shape (…, n, n)."""
    one = torch.eye(skew.shape[-1], dtype=skew.dtype)
    result: torch.Tensor = torch.linalg.solve(one + skew, one - skew, left=False)
    return result


def cayley_neumann(skew: torch.Tensor, terms: int) -> torch.Tensor:
    """Return the truncated series that PEFT ≥ 0.18 uses in place of Cayley's map.

    I + 2S + 2S² + … + 2Sᵏ⁻¹ + Sᵏ with k = max(3, terms − 1); I + 2S for two terms and I for one.
    (Its inverse is the map of :func:`cayley` up to the sign of S.)
    """
    result = torch.eye(skew.shape[-1], dtype=skew.dtype).expand_as(skew).clone()
    if terms == 1:
        return result
    result += 2 * skew
    power = skew
    last = max(3, terms - 1) if terms > 2 else 1
    for exponent in range(2, last + 1):
        power = power @ skew
        result += power if exponent == last else 2 * power
    return result
