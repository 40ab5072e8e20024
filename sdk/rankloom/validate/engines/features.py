"""All features, as a table: the rule's id, the name, what it needs, what is demanded, the way out.

Ids are never reused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.validate.engines import of_base, of_config, of_tensors
from rankloom.validate.engines.feature import Needs, feature, leaf
from rankloom.validate.engines.of_config import HEADS, VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.validate.engines.feature import Feature

_C, _T, _B, _F = Needs.CONFIG, Needs.TENSORS, Needs.BASE, Needs.FINGERPRINTS
_MERGE = "Apply the adapter to its base and serve the checkpoint, or use an engine that knows it."
_PLAIN = "Compose it alone ('loractl compose ADAPTER -o OUT'): what is saved is plain LoRA."
_PEFT = "Save the adapter again with PEFT's save_pretrained."
_BASE = "Serve it on the base that it was made for."

_ALL = (
    feature("ENG001", "rank", _C, "The engines that were named take the rank",
            "Bring it to a smaller rank, or start the engine with a larger limit and say so.",
            of_config.rank),
    feature("ENG002", "fields", _C, "The config has what the engine reads",
            "Write the missing fields as they were in training.", of_config.fields),
    feature("ENG003", "kind", _C, "The engine knows the type of adapter", _MERGE, of_config.kind),
    feature("ENG004", "dora", _T, "The engine knows DoRA", _MERGE, of_tensors.dora),
    feature("ENG005", "rslora", _C, "The engine scales rsLoRA by the square root", _PLAIN,
            of_config.truthy("use_rslora")),
    feature("ENG006", "rank-pattern", _C, "The engine knows ranks of single modules", _PLAIN,
            of_config.rank_pattern),
    feature("ENG007", "alpha-pattern", _C, "The engine knows alphas of single modules", _PLAIN,
            of_config.alpha_pattern),
    feature("ENG008", "bias", _C, "The engine takes trained biases", _MERGE, of_config.bias),
    feature("ENG009", "saved-vocabulary", _C, "The engine takes a saved embedding or head", _MERGE,
            of_config.saved(lambda name: leaf(name) in VOCABULARY)),
    feature("ENG010", "saved-classifier", _C, "The engine takes a saved classifier", _MERGE,
            of_config.saved(lambda name: name in HEADS)),
    feature("ENG011", "saved-module", _C, "The engine takes other saved modules", _MERGE,
            of_config.saved(lambda name: leaf(name) not in VOCABULARY and name not in HEADS)),
    feature("ENG012", "init", _C, "The base is as it was before the adapter began",
            "Convert it: 'loractl convert ADAPTER -o OUT --base BASE', or PEFT's "
            "path_initial_model_for_weight_conversion.", of_config.init),
    feature("ENG013", "alora", _C, "The engine knows activated LoRA",
            "Serve it with an engine that does; no merge can replace it.",
            of_config.truthy("alora_invocation_tokens")),
    feature("ENG014", "layer-replication", _C, "The engine replicates layers",
            "Repeat the layers in the base first, and train the adapter on that.",
            of_config.truthy("layer_replication")),
    feature("ENG015", "bdlora", _C, "The engine knows block-diagonal LoRA", _MERGE,
            of_config.truthy("use_bdlora")),
    feature("ENG016", "qalora", _C, "The engine knows QALoRA", _MERGE,
            of_config.truthy("use_qalora")),
    feature("ENG017", "expression", _C, "The engine reads an expression in target_modules",
            "List the modules' names instead.", of_config.expression),
    feature("ENG018", "alpha-fraction", _C, "The engine reads this form of lora_alpha",
            "Write a whole number, e.g. 16 for 16.0, or compose it alone.",
            of_config.alpha_fraction),
    feature("ENG019", "alpha-zero", _C, "The engine takes alpha 0 for no effect",
            "Remove the adapter, or write the alpha of the training.", of_config.alpha_zero),
    feature("ENG020", "trained-tokens", _T, "The engine takes trained tokens", _MERGE,
            of_tensors.trained_tokens),
    feature("ENG021", "padded-rank", _T, "The engine scales by the rank of the config",
            "Compose it at a rank that is not filled up: 8, or a multiple of 16.",
            of_tensors.padded_rank),
    feature("ENG022", "prefix", _T, "The engine finds the keys", _PEFT, of_tensors.prefix),
    feature("ENG023", "half-pair", _T, "The engine needs both factors", _PEFT, of_tensors.half),
    feature("ENG024", "embedding", _T, "The engine adapts embeddings", _MERGE,
            of_tensors.embedding),
    feature("ENG025", "head", _T, "The engine adapts the output head", _MERGE, of_tensors.head),
    feature("ENG026", "large-head", _T, "The engine adapts a head of this size", _MERGE,
            of_tensors.large_head),
    feature("ENG027", "unnamed-vocabulary", _T, "The engine loads what target_modules leaves out",
            "Name embed_tokens or lm_head in target_modules.", of_tensors.unnamed_vocabulary),
    feature("ENG028", "experts", _T, "The engine adapts single experts", _MERGE,
            of_tensors.experts),
    feature("ENG029", "fused-experts", _T, "The engine adapts fused experts", _MERGE,
            of_tensors.fused_experts),
    feature("ENG030", "convolution", _T, "The engine adapts convolutions", _MERGE,
            of_tensors.convolution),
    feature("ENG031", "other-module", _T, "The engine adapts modules of this name", _MERGE,
            of_tensors.other_modules),
    feature("ENG032", "wide-rank", _T, "The engine can tell which side of a factor is the rank",
            "Bring it to a smaller rank: 'loractl compose ADAPTER --rank R -o OUT'.",
            of_tensors.wide_rank),
    feature("ENG033", "incomplete-attention", _T, "The engine takes q, k and v apart",
            "Train q and v together, or apply the adapter to its base.",
            of_tensors.incomplete_attention),
    feature("ENG034", "some-layers", _T, "The engine takes an adapter of some layers", _MERGE,
            of_tensors.some_layers),
    feature("ENG035", "missing-layers", _T, "No layer lacks what target_modules names",
            "Save all layers, or set layers_to_transform to those that were trained.",
            of_tensors.missing_layers),
    feature("ENG036", "absent-module", _B, "The base has every module", _BASE, of_base.absent),
    feature("ENG037", "layer-beyond", _B, "The base has as many layers", _BASE, of_base.beyond),
    feature("ENG038", "smaller", _B, "No factor is smaller than its tensor", _BASE,
            of_base.smaller),
    feature("ENG039", "larger", _B, "No factor is larger than its tensor", _BASE, of_base.larger),
    feature("ENG040", "other-base", _F, "The base has the values that the adapter was made for",
            _BASE, of_base.other_values),
    feature("ENG041", "tied-head", _B, "The engine adapts a head that is tied to the embedding",
            "Untie the base first (tie_word_embeddings=false, with a head of its own).",
            of_base.tied_head),
    feature("ENG042", "uneven-attention", _B, "The engine fills up missing q, k and v rightly",
            "Train q, k and v together, or apply the adapter to its base.",
            of_base.uneven_attention),
    feature("ENG043", "other-name", _B, "The engine finds the modules under the adapter's names",
            "Save the adapter again with PEFT, on the base as the class that its config names.",
            of_base.other_name),
)  # fmt: skip

FEATURES: Mapping[str, Feature] = {item.name: item for item in _ALL}
"""By name, in the order of their rules."""
