"""For every feature that engines differ about, an adapter and a base that have it.

The usual adapter here is one that every engine accepts: rank 8 (filled up nowhere), q and v in
both layers of the base.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from folders import LAYERS, PREFIX, adapter, base, config, factors, tensor
from rankloom.base import reader as bases
from rankloom.base.fingerprint import fingerprint
from rankloom.validate import validate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rankloom.validate import Report

RANK = 8
SHAPES = {f"{layer}.{leaf}": (16, 16) for layer in LAYERS for leaf in ("q_proj", "v_proj")}
EMBEDDING = (40, 16)
ROOM = "model.layers.0.mlp"


def zeros(*shape: int) -> Any:  # noqa: ANN401 - a tensor as the folders' writer wants it
    return tensor(np.zeros(shape, np.float32))


def arrays(shapes: Mapping[str, tuple[int, ...]] = SHAPES, *, seed: int = 1) -> dict[str, Any]:
    """Return a base's tensors: the modules, an embedding and a head."""
    random = np.random.default_rng(seed)
    every = {"model.embed_tokens": EMBEDDING, "lm_head": EMBEDDING, "model.norm": (16,), **shapes}
    named = {f"{module}.weight": shape for module, shape in every.items()}
    return {name: tensor(random.standard_normal(s, np.float32)) for name, s in named.items()}


@dataclass(frozen=True)
class Case:
    """An adapter and a base.

    Attributes:
        fields: of the config, besides the usual ones; those that are ``...`` are left out.
        tensors: of the adapter.
        base: tensors of the base.
        base_fields: fields of the base's config.
        made_for: tensors of the base that it was made for; empty: of this one.
        option: what stands behind the engine's name.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Any] = field(default_factory=lambda: factors(SHAPES, RANK))
    base: Mapping[str, Any] = field(default_factory=arrays)
    base_fields: Mapping[str, Any] = field(default_factory=dict)
    made_for: Mapping[str, Any] = field(default_factory=dict)
    option: str = ""

    def folder(self, place: Path) -> Path:
        """Write the adapter."""
        folder = adapter(place / "adapter", dict(self.tensors))
        content = config(**{"r": RANK, "lora_alpha": 16, **self.fields})
        kept = {name: value for name, value in content.items() if value is not ...}
        (folder / "adapter_config.json").write_text(json.dumps(kept))
        return folder

    def report(self, place: Path, engines: Sequence[str]) -> Report:
        """Validate the adapter on the base."""
        model = bases.read(base(place / "base", dict(self.base), **self.base_fields))
        made_for = bases.read(base(place / "other", dict(self.made_for or self.base)))
        return validate(
            self.folder(place),
            model,
            expected=fingerprint(made_for),
            found=fingerprint(model),
            engines=[f"{engine}{self.option}" for engine in engines],
        )


def on(shapes: Mapping[str, tuple[int, int]], rank: int = RANK, **fields: object) -> Case:
    """Return an adapter of other modules, on a base that has them."""
    tensors = factors(shapes, rank)
    return Case({"target_modules": leaves(shapes), **fields}, tensors, arrays({**SHAPES, **shapes}))


def leaves(shapes: Mapping[str, object]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in shapes})


def more(shapes: Mapping[str, tuple[int, int]], **fields: object) -> Case:
    """Return the usual adapter with more modules."""
    return on({**SHAPES, **shapes}, **fields)


def besides(tensors: Mapping[str, Any], **fields: object) -> Case:
    """Return the usual adapter with more tensors."""
    return Case(fields, {**factors(SHAPES, RANK), **tensors})


SOUND = Case()
HEAD = {"lm_head": EMBEDDING}
_FIRST = {name: shape for name, shape in SHAPES.items() if ".0." in name}
_RANKS = {
    **factors({n: s for n, s in SHAPES.items() if "q_proj" in n}, 4),
    **factors({n: s for n, s in SHAPES.items() if "v_proj" in n}, RANK),
}
_TIED = {name: value for name, value in arrays().items() if name != "lm_head.weight"}
_HALF = {k: v for k, v in factors(SHAPES, RANK).items() if "1.self_attn.v_proj.lora_B" not in k}
_MAGNITUDES = {f"{PREFIX}{name}.lora_magnitude_vector": zeros(16) for name in SHAPES}

CASES: Mapping[str, Case] = {
    "rank": Case(option=",max_lora_rank=1"),
    "fields": Case({"lora_alpha": ...}),
    "kind": Case({"peft_type": "LOHA", "alpha": 8}),
    "dora": besides(_MAGNITUDES, use_dora=True),
    "rslora": Case({"use_rslora": True}),
    "rank-pattern": Case({"rank_pattern": {"q_proj": 4}}, _RANKS),
    "alpha-pattern": Case({"alpha_pattern": {"q_proj": 7}}),
    "bias": Case({"bias": "lora_only"}),
    "saved-vocabulary": besides(
        {f"{PREFIX}lm_head.weight": zeros(*EMBEDDING)}, modules_to_save=["lm_head"]
    ),
    "saved-classifier": besides({f"{PREFIX}score.weight": zeros(3, 16)}, modules_to_save=["score"]),
    "saved-module": besides({f"{PREFIX}model.norm.weight": zeros(16)}, modules_to_save=["norm"]),
    "init": Case({"init_lora_weights": "pissa"}),
    "alora": Case({"alora_invocation_tokens": [1, 2]}),
    "layer-replication": Case({"layer_replication": [[0, 2], [1, 2]]}),
    "bdlora": Case({"use_bdlora": {"nblocks": 2}}),
    "qalora": Case({"use_qalora": True}),
    "expression": Case({"target_modules": ".*_proj"}),
    "alpha-fraction": Case({"lora_alpha": 16.5}),
    "alpha-zero": Case({"lora_alpha": 0}),
    "other-name": Case(
        tensors=factors({f"wrapper.{name}": shape for name, shape in SHAPES.items()}, RANK)
    ),
    "trained-tokens": besides(
        {f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta": zeros(1, 16)},
        trainable_token_indices=[3],
    ),
    "padded-rank": replace(on(SHAPES, 4), fields={"r": 4}),
    "prefix": Case(tensors={k.removeprefix(PREFIX): v for k, v in factors(SHAPES, RANK).items()}),
    "half-pair": Case(tensors=_HALF),
    "embedding": besides(
        {
            f"{PREFIX}model.embed_tokens.lora_embedding_A": zeros(RANK, EMBEDDING[0]),
            f"{PREFIX}model.embed_tokens.lora_embedding_B": zeros(EMBEDDING[1], RANK),
        },
        target_modules=["q_proj", "v_proj", "embed_tokens"],
    ),
    "head": more(HEAD),
    "large-head": more({"lm_head": (258049, 16)}),
    "unnamed-vocabulary": more(HEAD, target_modules=["q_proj", "v_proj"]),
    "experts": more({f"{ROOM}.experts.0.w1": (16, 16)}),
    "fused-experts": more({f"{ROOM}.experts": (16, 16)}),
    "convolution": besides(
        {
            f"{PREFIX}model.conv.lora_A.weight": zeros(RANK, 16, 3, 3),
            f"{PREFIX}model.conv.lora_B.weight": zeros(16, RANK, 1, 1),
        }
    ),
    "other-module": more({f"{ROOM}.fc9": (16, 16)}),
    "wide-rank": more({f"{ROOM}.down_proj": (16, 4)}),
    "incomplete-attention": on({name: shape for name, shape in SHAPES.items() if "q_proj" in name}),
    "some-layers": on(_FIRST, layers_to_transform=[0]),
    "missing-layers": on(_FIRST),
    "absent-module": Case(tensors=factors({**SHAPES, "model.layers.0.mlp.q_proj": (16, 16)}, RANK)),
    "layer-beyond": Case(base=arrays(_FIRST)),
    "smaller": Case(base=arrays(dict.fromkeys(SHAPES, (32, 16)))),
    "larger": Case(base=arrays(dict.fromkeys(SHAPES, (8, 16)))),
    "other-base": Case(made_for=arrays(seed=2)),
    "tied-head": replace(more(HEAD), base=_TIED, base_fields={"tie_word_embeddings": True}),
    "uneven-attention": Case(base_fields={"num_attention_heads": 4, "num_key_value_heads": 2}),
}  # fmt: skip
"""By the feature's name."""
