"""The formulas of changes that are computed: one small module for each family of kinds.

A formula is given the change's tensors in float64, its options, and W in float64 as the module
has it (a linear layer (out, in), an embedding (rows, width), a convolution (out, in/groups,
*kernel)), and returns W′ − W in float64. A kind whose delta does not depend on W uses its shape
only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from rankloom.change.kinds import boft, hira, hra, ia3, miss, oft, road

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


class Formula(Protocol):
    """W′ − W of one kind."""

    def __call__(
        self,
        tensors: Mapping[str, torch.Tensor],
        options: Mapping[str, Any],
        weight: torch.Tensor,
        /,
    ) -> torch.Tensor:
        """Compute it, in float64."""


FORMULAS: dict[str, Formula] = {
    "boft": boft.boft,
    "hira": hira.hira,
    "hira_embedding": hira.hira_embedding,
    "hra": hra.hra,
    "ia3_input": ia3.ia3_input,
    "ia3_output": ia3.ia3_output,
    "miss": miss.miss,
    "miss_bat": miss.miss_bat,
    "oft": oft.oft,
    "oft_embedding": oft.oft_embedding,
    "road": road.road,
}
