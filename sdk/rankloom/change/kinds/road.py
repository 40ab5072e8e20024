"""RoAd (arXiv 2409.00119): pairs of outputs are rotated and scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rankloom.change.kinds.shapes import require

if TYPE_CHECKING:
    from collections.abc import Mapping


def road(
    tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any], weight: torch.Tensor
) -> torch.Tensor:
    """W′ = R·W, and b′ = R·b: output i of a group's first half is paired with i of its second.

    y₁ = c₁x₁ − s₁x₂ and y₂ = c₂x₂ + s₂x₁ with c = α·cos θ, s = α·sin θ.

    Args:
        tensors: ``theta`` and ``alpha``, out/2, out or 2·out values.
        options: ``variant`` (``road_1``, ``road_2``, ``road_4``) and ``group_size``.
        weight: (out, in) or (out,).
    """
    group, out = options["group_size"], len(weight)
    share = {"road_1": 1, "road_2": 2, "road_4": 4}[options["variant"]]
    theta, alpha = tensors["theta"], tensors["alpha"]
    what = f"RoAd has {len(theta)} angles in groups of {group}, but the base has {out} outputs"
    require(out % group == 0 and len(theta) == len(alpha) == out * share // 2, what)
    cos, sin = _columns(theta, alpha, share, group)
    x = weight.reshape(out // group, 2, group // 2, -1)
    first, second = x.unbind(1)
    turned = torch.stack([-second, first], dim=1)
    return (x * cos + turned * sin).reshape(weight.shape) - weight


def _columns(
    theta: torch.Tensor, alpha: torch.Tensor, share: int, group: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return α·cos θ and α·sin θ, each (groups, 2, group / 2, 1)."""
    half = group // 2
    if share == 4:
        theta, alpha = (part.view(-1, 2, 2, half, 1) for part in (theta, alpha))
        return alpha[:, 0] * theta[:, 0].cos(), alpha[:, 1] * theta[:, 1].sin()
    theta, alpha = (part.view(-1, share, half, 1).expand(-1, 2, -1, -1) for part in (theta, alpha))
    return alpha * theta.cos(), alpha * theta.sin()
