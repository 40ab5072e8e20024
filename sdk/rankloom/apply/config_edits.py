"""What a base's config says differently after an apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.apply.heads import label_edits
from rankloom.apply.resize import vocabulary_edits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.apply.placed import Placed
    from rankloom.base.model import Base

_KEEP_FLAG = frozenset(["t5", "mt5", "umt5", "longt5", "switch_transformers", "udop", "pix2struct"])
"""Models that scale their output where the field says that it is tied; transformers loads two
tensors with different values as two whatever the field says."""


def config_edits(base: Base, tensors: Mapping[str, Placed], *, untied: bool) -> dict[str, Any]:
    """Return the fields that change, with their new values."""
    ties = untied and base.config.get("model_type") not in _KEEP_FLAG
    return {
        **({"tie_word_embeddings": False} if ties else {}),
        **vocabulary_edits(base, tensors),
        **label_edits(base, tensors),
    }


def edited(config: Mapping[str, Any], edits: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with fields replaced, also in the configs within it that have them.

    A field that no config has is added to the outer one.
    """
    new = dict(config)
    for name, value in edits.items():
        inner = {
            key: {**part, name: value}
            for key, part in new.items()
            if isinstance(part, dict) and name in part and key.endswith("_config")
        }
        new |= inner
        if name in new or not inner or name == "tie_word_embeddings":
            new[name] = value
    return new
