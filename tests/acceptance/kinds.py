"""Every sort of adapter that PEFT can write, as a config for a given base.

A kind is a function from a base to a config, or to ``None`` where PEFT has no such adapter for it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import peft
from peft.tuners.lora import config as lora_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from acceptance.bases import Base

    Kind = Callable[[Base], peft.PeftConfig | None]

ALL = ("1x1", "2d", "grouped", "1d", "3d")
"""Sorts of convolutions."""

KINDS: dict[str, Kind] = {}
"""By name; the name is a part of a case's name."""


def _linear(kind: type, base: Base, *, conv1d: bool = False, **options: Any) -> Any:  # noqa: ANN401
    """Put a kind on the linear layers, if it can be on those of this base."""
    if base.conv1d and not conv1d:
        return None
    return kind(target_modules=list(base.linear), **options)


def _on_linear(name: str, kind: type, *, conv1d: bool = False, **options: Any) -> None:  # noqa: ANN401
    KINDS[name] = partial(_linear, kind, conv1d=conv1d, **options)


def _on_layer(name: str, kind: type, layer: str, **options: Any) -> None:  # noqa: ANN401
    """Put a kind on the embedding, the norm or the head."""

    def make(base: Base) -> Any:  # noqa: ANN401 - a config
        found = getattr(base, layer)
        return kind(target_modules=[found], **options) if found else None

    KINDS[name] = make


def _on_conv(name: str, kind: type, *sorts: str, **options: Any) -> None:  # noqa: ANN401
    """Put a kind on the convolutions of the given sorts."""

    def make(base: Base) -> Any:  # noqa: ANN401 - a config
        names = [found for found, sort in base.conv.items() if sort in sorts]
        return kind(target_modules=names, **options) if names else None

    KINDS[name] = make


def _kind(name: str) -> Callable[[Kind], None]:
    """Enter the function that follows."""
    return partial(KINDS.__setitem__, name)


def _lora(name: str, **options: Any) -> None:  # noqa: ANN401
    _on_linear(name, peft.LoraConfig, conv1d=True, **{"r": 3, "lora_alpha": 5, **options})


def _glora(name: str, **options: Any) -> None:  # noqa: ANN401
    def make(base: Base) -> Any:  # noqa: ANN401 - a config
        return None if base.subclassed else _linear(peft.GloraConfig, base, **options)

    KINDS[name] = make


# LoRA on linear layers.
_lora("lora")
_lora("rslora", use_rslora=True)
_lora("lora-patterns", rank_pattern={"q_proj": 2, "down_proj|fc2": 4}, alpha_pattern={"v_proj": 9})
_lora("lora-first-layer", layers_to_transform=[0])
_lora("dora", use_dora=True)
_lora("bias-all", bias="all")
_lora("bias-lora-only", bias="lora_only")
_lora("pissa", init_lora_weights="pissa")
_on_linear("olora", peft.LoraConfig, r=3, lora_alpha=5, init_lora_weights="olora")
_lora("orthogonal", r=4, init_lora_weights="orthogonal")
_lora("mica", init_lora_weights="mica")
_lora("velora", velora_config=lora_config.VeloraConfig(num_groups=1))
_lora("monteclora", monteclora_config=lora_config.MontecloraConfig())
_on_linear("kasa", peft.LoraConfig, r=3, lora_alpha=5, kasa_config=lora_config.KasaConfig())
_lora("alora", alora_invocation_tokens=[3, 4])
_lora("qalora", use_qalora=True, qalora_group_size=4)


@_kind("lora-bias")
def _(base: Base) -> peft.PeftConfig | None:
    return _linear(peft.LoraConfig, base, conv1d=True, r=3, lora_bias=True) if base.bias else None


@_kind("bdlora")
def _(base: Base) -> peft.PeftConfig | None:
    blocks = lora_config.BdLoraConfig(
        target_modules_bd_a=list(base.feedforward),
        target_modules_bd_b=[name for name in base.linear if name not in base.feedforward],
        nblocks=2,
        match_strict=False,
    )
    return _linear(peft.LoraConfig, base, r=4, use_bdlora=blocks)


@_kind("lora-all-linear")
def _(base: Base) -> peft.PeftConfig | None:
    return None if base.is_plain else peft.LoraConfig(r=2, target_modules="all-linear")


@_kind("lora-regex")
def _(base: Base) -> peft.PeftConfig:
    names = "|".join(name.replace(".", r"\.") for name in base.linear)
    return peft.LoraConfig(r=2, target_modules=rf"(.*\.)?({names})", exclude_modules=r".*\.1\..*")


@_kind("lora-experts")
def _(base: Base) -> peft.PeftConfig | None:
    if not base.parameters:
        return None
    return peft.LoraConfig(r=2, target_modules=[], target_parameters=list(base.parameters))


@_kind("lora-experts-and-linear")
def _(base: Base) -> peft.PeftConfig | None:
    if not base.parameters:
        return None
    names, parameters = list(base.linear), list(base.parameters[:1])
    return peft.LoraConfig(r=2, target_modules=names, target_parameters=parameters)


@_kind("lora-attention")
def _(base: Base) -> peft.PeftConfig | None:
    if base.make.__name__ != "Attention":
        return None
    return peft.LoraConfig(r=2, target_modules=["mha", "first"])


# LoRA on other layers, and what is saved whole.
_on_layer("lora-embedding", peft.LoraConfig, "embedding", r=3)
_on_layer("dora-embedding", peft.LoraConfig, "embedding", r=3, use_dora=True)
_on_layer("lora-head", peft.LoraConfig, "head", r=3)
_on_conv("lora-conv", peft.LoraConfig, *ALL, r=4)
_on_conv("dora-conv", peft.LoraConfig, *ALL, r=4, use_dora=True)


@_kind("lora-embedding-and-linear")
def _(base: Base) -> peft.PeftConfig | None:
    if not base.embedding:
        return None
    return peft.LoraConfig(r=3, target_modules=[*base.linear, base.embedding])


@_kind("saved-head")
def _(base: Base) -> peft.PeftConfig | None:
    if not base.head:
        return None
    return _linear(peft.LoraConfig, base, conv1d=True, r=2, modules_to_save=[base.head])


@_kind("saved-norm")
def _(base: Base) -> peft.PeftConfig | None:
    return _linear(peft.LoraConfig, base, conv1d=True, r=2, modules_to_save=[base.norm])


@_kind("saved-embedding")
def _(base: Base) -> peft.PeftConfig | None:
    if not base.embedding:
        return None
    return _linear(peft.LoraConfig, base, conv1d=True, r=2, modules_to_save=[base.embedding])


@_kind("lora-tokens")
def _(base: Base) -> peft.PeftConfig | None:
    if not base.embedding:
        return None
    tokens = {base.embedding: [1, 5, 17]}
    return _linear(peft.LoraConfig, base, conv1d=True, r=2, trainable_token_indices=tokens)


_on_layer("trainable-tokens", peft.TrainableTokensConfig, "embedding", token_indices=[0, 7, 19])

# Types with a delta that the base has no part in.
_on_linear("adalora", peft.AdaLoraConfig, conv1d=True, init_r=4, target_r=2, total_step=10)
_on_linear("loha", peft.LoHaConfig, r=3, alpha=5)
_on_linear("lokr", peft.LoKrConfig, r=3, alpha=5)
_on_linear("lokr-both", peft.LoKrConfig, r=1, alpha=2, decompose_both=True, decompose_factor=4)
_on_conv("loha-conv", peft.LoHaConfig, "1x1", "2d", "grouped", "1d", r=3)
_on_conv(
    "loha-conv-effective",
    peft.LoHaConfig,
    "1x1",
    "2d",
    "grouped",
    "1d",
    r=3,
    use_effective_conv2d=True,
)
_on_conv("lokr-conv", peft.LoKrConfig, "1x1", "2d", "grouped", "1d", r=3)
_on_conv(
    "lokr-conv-effective",
    peft.LoKrConfig,
    "1x1",
    "2d",
    "grouped",
    "1d",
    r=3,
    use_effective_conv2d=True,
)
_on_linear("vera", peft.VeraConfig, conv1d=True, r=4)
_on_linear("vera-drawn", peft.VeraConfig, conv1d=True, r=4, save_projection=False)
_on_linear("pvera", peft.PveraConfig, r=4)
_on_linear("randlora", peft.RandLoraConfig, r=4, randlora_alpha=8)
_on_linear("randlora-very-sparse", peft.RandLoraConfig, r=4, randlora_alpha=8, very_sparse=True)
_on_linear("randlora-sparse", peft.RandLoraConfig, r=4, randlora_alpha=8, sparse=True)
_on_linear("vblora", peft.VBLoRAConfig, r=2, num_vectors=12, vector_length=4, topk=2)
_on_linear(
    "vblora-topk",
    peft.VBLoRAConfig,
    r=2,
    num_vectors=12,
    vector_length=4,
    topk=2,
    save_only_topk_weights=True,
)
_on_linear("unilora-saved", peft.UniLoraConfig, r=2, theta_d_length=32, save_indices=True)
_on_linear("unilora", peft.UniLoraConfig, r=2, theta_d_length=32)
_on_linear("tinylora", peft.TinyLoraConfig, r=2, u=8)
_on_linear("fourierft", peft.FourierFTConfig, conv1d=True, n_frequency=20, scaling=30)
_on_linear("waveft-plain", peft.WaveFTConfig, n_frequency=20, scaling=5, use_idwt=False)
_on_linear("waveft", peft.WaveFTConfig, n_frequency=20, scaling=5)
_on_linear("c3a", peft.C3AConfig, block_size=4)
_on_linear("shira", peft.ShiraConfig, r=2, random_seed=5)
_on_linear("gralora", peft.GraloraConfig, r=4, gralora_k=2, alpha=6)
_on_linear("gralora-hybrid", peft.GraloraConfig, r=4, hybrid_r=2, gralora_k=2, alpha=6)
_on_linear("delora", peft.DeloraConfig, r=3, delora_lambda=4)
_on_linear("beft", peft.BeftConfig)
_on_linear("frod", peft.FrodConfig, sparse_rate=0.2, progressbar=False)
_on_linear("supertuning", peft.SupertuningConfig, sparsity=0.8)
_on_linear("supertuning-lora", peft.SupertuningConfig, sparsity=0.8, r=2)

# Types whose change depends on the base.
_on_linear("ia3-output", peft.IA3Config, conv1d=True, feedforward_modules=[])


@_kind("ia3")
def _(base: Base) -> peft.PeftConfig | None:
    return _linear(peft.IA3Config, base, conv1d=True, feedforward_modules=list(base.feedforward))


@_kind("ia3-conv")
def _(base: Base) -> peft.PeftConfig | None:
    names = [name for name, sort in base.conv.items() if sort != "1d"]
    if not names:
        return None
    return peft.IA3Config(target_modules=names, feedforward_modules=names[1:])


_on_linear("oft", peft.OFTConfig, oft_block_size=4)
_on_linear("oft-exact", peft.OFTConfig, oft_block_size=4, use_cayley_neumann=False)
_on_linear("oft-constrained", peft.OFTConfig, oft_block_size=4, coft=True, eps=0.3)
_on_linear("oft-shared", peft.OFTConfig, oft_block_size=4, block_share=True)
_on_linear("oft-bias", peft.OFTConfig, oft_block_size=4, bias="oft_only")
_on_layer("oft-embedding", peft.OFTConfig, "embedding", oft_block_size=4)
_on_conv("oft-conv", peft.OFTConfig, "1x1", oft_block_size=4)
_on_conv("oft-conv-patches", peft.OFTConfig, "2d", oft_block_size=4)
_on_linear("boft-bias", peft.BOFTConfig, boft_block_num=2, boft_block_size=0, bias="boft_only")
_on_linear("boft", peft.BOFTConfig, boft_block_size=4)
_on_conv("boft-conv", peft.BOFTConfig, "1x1", "2d", boft_block_size=4)
_on_linear("hra", peft.HRAConfig, r=3)
_on_linear("hra-bias", peft.HRAConfig, r=2, bias="all")
_on_linear("hra-orthogonal", peft.HRAConfig, r=3, apply_GS=True)
_on_conv("hra-conv", peft.HRAConfig, "1x1", "2d", r=3)
_on_linear("hira", peft.HiraConfig, conv1d=True, r=3)


@_kind("hira-embedding")
def _(base: Base) -> peft.PeftConfig | None:
    if not base.embedding or base.scaled:  # PEFT's forward forgets the scale there
        return None
    return peft.HiraConfig(r=3, target_modules=[base.embedding])


_on_conv("hira-conv", peft.HiraConfig, "1x1", "2d", "1d", "3d", r=3)
_on_linear("miss", peft.MissConfig, r=3)
_on_linear("miss-bias", peft.MissConfig, r=4, bias="all")
_on_linear("miss-mini", peft.MissConfig, r=3, init_weights="mini", mini_r=4)
_on_linear("miss-bat", peft.MissConfig, r=4, init_weights="bat")


@_kind("miss-saved-norm")
def _(base: Base) -> peft.PeftConfig | None:
    return _linear(peft.MissConfig, base, r=2, modules_to_save=[base.norm])


@_kind("lokr-saved-head")
def _(base: Base) -> peft.PeftConfig | None:
    if not base.head or base.tied:
        return None
    return _linear(peft.LoKrConfig, base, r=2, modules_to_save=[base.head])


_on_layer("ln-tuning", peft.LNTuningConfig, "norm")
_on_linear("road-1", peft.RoadConfig, variant="road_1", group_size=4)
_on_linear("road-2", peft.RoadConfig, variant="road_2", group_size=8)
_on_linear("road-4", peft.RoadConfig, variant="road_4", group_size=4)
_glora("glora", r=3)
_glora("glora-vectors", config_A_B="vector", config_C="none")
_glora("glora-constants", config_A_B="constant", config_D_E="vector")
_on_linear("deft", peft.DeftConfig, conv1d=True, r=3, alpha=2)
_on_linear("deft-qr", peft.DeftConfig, conv1d=True, r=3, decomposition_method="qr")
_on_linear("para", peft.DeftConfig, conv1d=True, r=3, para=True)
_on_linear("osf", peft.OSFConfig, effective_rank=4)
_on_linear("psoft", peft.PsoftConfig, r=4)
_on_linear("peanut", peft.PeanutConfig, r=4, depth=1)
