"""BD-LoRA: LoRA with one factor block-diagonal, of which the file holds the blocks only.

``use_bdlora`` of the config names parts of module names: where one of ``target_modules_bd_a``
occurs in a module's name, A is ``block_diag`` of its ``nblocks`` parts along the rank, so the file
has (r, in/nblocks); for ``target_modules_bd_b`` B is, and the file has (out, r/nblocks). A module
that none names has the factors of plain LoRA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.config import FILE
from rankloom.adapter.kinds import factors
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Pair, Tensors
    from rankloom.adapter.kinds.reading import Reading

_KNOWN = frozenset(["target_modules_bd_a", "target_modules_bd_b", "nblocks", "match_strict"])


@dataclass(frozen=True, slots=True)
class _Blocks:
    """What ``use_bdlora`` says."""

    of_a: tuple[str, ...]
    of_b: tuple[str, ...]
    count: int

    def sides(self, module: str) -> str:
        """Return which factors of a module are in blocks, by PEFT's rule: ``"a"``, ``"b"``, …."""
        named = (("a", self.of_a), ("b", self.of_b))
        return "".join(side for side, names in named if any(name in module for name in names))


def read(config: AdapterConfig, tensors: Tensors) -> Reading:
    """Return a target for every module one of whose factors is block-diagonal."""
    if "use_bdlora" not in config.options:
        return factors.reading((), ())
    blocks = _parse(config.options["use_bdlora"])
    if isinstance(blocks, Finding):
        return factors.reading([blocks], ())
    scales = config.scales()

    def build(pair: Pair) -> Iterable[Target | Finding]:
        side = blocks.sides(pair.module)
        shape = _weight_shape(pair, side, blocks.count, scales.rank(pair.module))
        if shape is None:
            return [factors.no_layer(pair, f"a BD-LoRA with {blocks.count} blocks in {side!r}")]
        options = {"scale": scales.scale(pair.module), "blocks": blocks.count, "side": side}
        change = Computed("bdlora", {"a": pair.a, "b": pair.b}, options, shape=shape)
        return [Target(pair.module, "bdlora", change)]

    found = factors.modules_of(tensors, factors.LINEAR)
    named = [module for module in found if blocks.sides(module)]
    return factors.read_pairs(tensors, factors.LINEAR, build, named)


def _parse(value: Any) -> _Blocks | Finding:  # noqa: ANN401 - a JSON value
    if isinstance(value, dict) and value.keys() <= _KNOWN:
        names = [value.get(f"target_modules_bd_{side}") or [] for side in "ab"]
        count = value.get("nblocks", 1)
        if all(_is_names(item) for item in names) and type(count) is int and count > 0:
            return _Blocks(tuple(names[0]), tuple(names[1]), count)
    message = f"{FILE}: use_bdlora is {value!r:.80}, not what PEFT's BdLoraConfig holds"
    return Finding("CFG001", message, where="use_bdlora", fix="save the adapter again with PEFT")


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _weight_shape(pair: Pair, side: str, count: int, rank: int) -> tuple[int, int] | None:
    """Return (out, in) of the layer, or ``None`` if the factors cannot be what they shall be."""
    a, b = pair.a.shape, pair.b.shape
    if len(a) != 2 or len(b) != 2 or side not in {"a", "b"} or a[0] != rank or rank % count:
        return None
    if side == "a":
        return (b[0], a[1] * count) if b[1] == rank else None
    return (b[0], a[1]) if b[1] * count == rank and b[0] % count == 0 else None
