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
    from rankloom.adapter.kinds.reading import Reader

READERS: tuple[Reader, ...] = (
    qalora.read,
    lora_bias.read,
    residual_init.read,
    dora.read,
    kasa.read,
    bdlora.read,
    lora_parameters.read,
    lora_attention.read,
    lora_conv.read,
    lora.read,
    lora_embedding.read,
    training_state.read,
    tokens.read,
)
"""Each reads the factors that none before it has taken."""

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
