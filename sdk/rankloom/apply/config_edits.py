"""What a base's config says differently after an apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.apply.heads import label_edits
from rankloom.apply.resize import vocabulary_edits
from rankloom.base import tying

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.apply.placed import Placed
    from rankloom.base.model import Base


def config_edits(base: Base, tensors: Mapping[str, Placed], *, untied: bool) -> dict[str, Any]:
    """Return the fields that change, with their new values."""
    ties = untied and not tying.keeps_flag(base.config)
    return {
        **({tying.FLAG: False} if ties else {}),
        **vocabulary_edits(base, tensors),
        **label_edits(base, tensors),
    }


def edited(config: Mapping[str, Any], edits: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with fields replaced, also in the configs within it that have them.

    A field that no config has is added to the outer one.
    """
    new = tying.untied(config) if tying.FLAG in edits else dict(config)
    for name, value in edits.items():
        inner = {
            key: {**part, name: value}
            for key, part in new.items()
            if isinstance(part, dict) and name in part and key.endswith("_config")
        }
        new |= inner
        if name in new or not inner:
            new[name] = value
    return new
