"""What LoHa and LoKr share: the fields of their configs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter import config_checks as checks
from rankloom.adapter.kinds.kind import Field
from rankloom.adapter.kinds.layout import scales

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankloom.adapter.config import AdapterConfig

FIELDS = {
    "r": Field(checks.rank, 8),
    "alpha": Field(checks.alpha, 8),
    "rank_pattern": Field(checks.rank_pattern),
    "alpha_pattern": Field(checks.alpha_pattern),
}
TRAINING = {
    "rank_dropout": "acts in training only",
    "module_dropout": "acts in training only",
    "use_effective_conv2d": "the names of the tensors tell",
}


def ranks_and_scales(
    config: AdapterConfig,
) -> tuple[Callable[[str], int], Callable[[str], float]]:
    """Return the lookups of r and of alpha/r by module."""
    rank = config.by_module("r", "rank_pattern")
    return rank, scales(rank, config.by_module("alpha", "alpha_pattern"))
