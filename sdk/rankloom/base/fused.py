"""Projections that some models keep in one, by the names they have in Llama and its like.

Copies of these models exist with the projections apart, and adapters that were trained on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.base import view

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rankloom.base.view import View

_QKV = ("q_proj", "k_proj", "v_proj")
_GATE_UP = ("gate_proj", "up_proj")
_MODELS = {
    "phi3": ("qkv_proj", "gate_up_proj"),
    "glm": ("gate_up_proj",),
    "glm4": ("gate_up_proj",),
}
"""By model type, the modules whose rows are known: queries, keys, values; or gate, up."""


def part(
    config: Mapping[str, object], name: str, resolve: Callable[[str], View | None]
) -> View | None:
    """Return the rows of a fused projection that are a parameter; ``None``: there are none.

    Args:
        config: the base's.
        name: full name of a parameter such as ``…self_attn.k_proj.weight``.
        resolve: gives a parameter by its name.
    """
    above, _, parameter = name.rpartition(".")
    block, _, leaf = above.rpartition(".")
    fused = "qkv_proj" if leaf in _QKV else "gate_up_proj" if leaf in _GATE_UP else ""
    if fused not in _MODELS.get(str(config.get("model_type")), ()):
        return None
    whole = resolve(f"{block}.{fused}.{parameter}")
    sizes = _sizes(config, fused, whole) if whole else ()
    if not whole or sum(sizes) != whole.shape[0]:
        return None
    number = (_QKV if fused == "qkv_proj" else _GATE_UP).index(leaf)
    return view.narrow(whole, 0, sum(sizes[:number]), sum(sizes[: number + 1]))


def _sizes(config: Mapping[str, object], fused: str, whole: View) -> tuple[int, ...]:
    if fused == "gate_up_proj":
        half = whole.shape[0] // 2
        return half, half
    heads, groups = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if not isinstance(heads, int) or heads < 1:
        return ()
    each = groups if isinstance(groups, int) else heads
    size = whole.shape[0] // (heads + 2 * each)
    return heads * size, each * size, each * size
