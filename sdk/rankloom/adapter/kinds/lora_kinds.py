"""Everything that an adapter of the type LORA can hold, in the order in which it is looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.kinds import (
    bdlora,
    dora,
    kasa,
    lora,
    lora_attention,
    lora_bias,
    lora_conv,
    lora_embedding,
    lora_parameters,
    qalora,
    residual_init,
    tokens,
    training_state,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.adapter.kinds.kind import Export
    from rankloom.adapter.kinds.reading import Reader

READERS: Mapping[Reader, Export] = {
    qalora.read: "yes",
    lora_bias.read: "no",
    residual_init.read: "no",
    dora.read: "no",
    kasa.read: "no",
    bdlora.read: "yes",
    lora_parameters.read: "yes",
    lora_attention.read: "no",
    lora_conv.read: "yes",
    lora.read: "yes",
    lora_embedding.read: "yes",
    training_state.read: "yes",
    tokens.read: "with weight 1",
}
"""Each reads the factors that none before it has taken; whether these can be saved again."""

OPTIONS: frozenset[str] = frozenset(
    [
        *("use_dora", "lora_bias", "kasa_config", "use_bdlora", "target_parameters"),
        *("velora_config", "monteclora_config", "trainable_token_indices", "ensure_weight_tying"),
        qalora.OPTION,
    ]
)
"""Options that some of them understands, out of ``fields.OPTIONS``.

``ensure_weight_tying`` needs nothing: PEFT saves the tensors of both ends of a tie.
"""

NOT_LISTED = frozenset(
    ["bias", "saved", "tokens", "lora_bias", "lora_parameter", "lora_attention_out"]
)
"""Kinds of targets that ``target_modules`` does not name."""
