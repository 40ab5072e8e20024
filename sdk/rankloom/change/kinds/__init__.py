"""The formulas of changes that are computed: one small module for each family of kinds.

A formula is given the change's tensors in float64, its options, and W in float64 as the module
has it (a linear layer (out, in), an embedding (rows, width), a convolution (out, in/groups,
*kernel)), and returns W′ − W in float64. A kind whose delta does not depend on W uses its shape
only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from rankloom.change.kinds import (
    blocks,
    boft,
    decomposed,
    dora,
    factored,
    glora,
    hira,
    hra,
    ia3,
    low_rank,
    lycoris,
    miss,
    networks,
    oft,
    road,
    sparse,
    spectral,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from rankloom_kernels import Term


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


class Factors(Protocol):
    """W′ − W of one kind as products of two factors."""

    def __call__(
        self, tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any], /
    ) -> list[Term]:
        """Return terms whose sum is W′ − W, with all axes behind the first one joined."""


FORMULAS: dict[str, Formula] = {
    "bdlora": low_rank.bdlora,
    "dora": dora.dora,
    "dora_embedding": dora.dora_embedding,
    "kasa": decomposed.kasa,
    "lora_bias": low_rank.lora_bias,
    "lora_conv": low_rank.lora_conv,
    "olora": decomposed.olora,
    "pissa": decomposed.pissa,
    "boft": boft.boft,
    "hira": hira.hira,
    "hira_embedding": hira.hira_embedding,
    "glora": glora.glora,
    "glora_bias": glora.glora_bias,
    "hra": hra.hra,
    "ia3_input": ia3.ia3_input,
    "ia3_output": ia3.ia3_output,
    "miss": miss.miss,
    "miss_bat": miss.miss_bat,
    "oft": oft.oft,
    "oft_embedding": oft.oft_embedding,
    "road": road.road,
    "adalora": factored.product(factored.adalora, "AdaLoRA"),
    "beft": sparse.beft,
    "c3a": blocks.c3a,
    "deft": networks.deft,
    "delora": factored.product(factored.delora, "DeLoRA"),
    "fourierft": spectral.fourierft,
    "frod": networks.frod,
    "gralora": blocks.gralora,
    "loha": lycoris.loha,
    "loha_kernel": lycoris.loha_kernel,
    "lokr": lycoris.lokr,
    "osf": networks.osf,
    "peanut": networks.peanut,
    "pvera": factored.vera_of("PVeRA"),
    "randlora": blocks.randlora,
    "shira": sparse.shira,
    "supertuning": sparse.supertuning,
    "tinylora": factored.product(factored.tinylora, "TinyLoRA"),
    "unilora": factored.product(factored.unilora, "Uni-LoRA"),
    "vblora": factored.product(factored.vblora, "VB-LoRA"),
    "vera": factored.vera_of("VeRA"),
    "waveft": spectral.waveft,
}

FACTORS: dict[str, Factors] = {
    "bdlora": low_rank.bdlora_factors,
    "lora_conv": low_rank.lora_conv_factors,
    "adalora": factored.alone(factored.adalora),
    "delora": factored.alone(factored.delora),
    "gralora": blocks.gralora_factors,
    "loha": lycoris.loha_factors,
    "loha_kernel": lycoris.loha_kernel_factors,
    "unilora": factored.alone(factored.unilora),
    "vblora": factored.alone(factored.vblora),
}
"""Kinds that can be saved as LoRA: what is not here is no product, or depends on the base.

A kind that PEFT puts on embeddings too must not be here, unless its file tells which it is.
"""
