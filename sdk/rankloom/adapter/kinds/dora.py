"""DoRA (arXiv 2402.09353) on linear layers, convolutions and embeddings.

Beside the factors, key ``<module>.lora_magnitude_vector``, in older files with ``.weight`` behind
it: one length for each output of a layer, for each column of an embedding. W′ = m/‖V‖ · V with
V = W + ΔW, so what is added depends on the base. Where PEFT also saved the embedding or the head
itself, that is W; the reader of saved parameters takes it too, and puts it in the base's place.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rankloom.adapter.change import Computed, Target
from rankloom.adapter.kinds import factors, lora_conv
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.factors import Pair, Tensors
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.tensorfile.header import TensorEntry

_MAGNITUDE = ".lora_magnitude_vector"


def read(config: AdapterConfig, tensors: Tensors) -> Reading:
    """Return a target for every module with factors and magnitude, if the config says DoRA."""
    if config.options.get("use_dora") is not True:
        return factors.reading((), ())
    layers = _read(config, tensors, factors.LINEAR)
    embeddings = _read(config, tensors, factors.EMBEDDING)
    return factors.reading(
        [*layers.targets, *embeddings.targets, *layers.findings, *embeddings.findings],
        layers.taken | embeddings.taken,
    )


def _read(config: AdapterConfig, tensors: Tensors, ends: tuple[str, str]) -> Reading:
    scales = config.scales()
    taken = set[str]()

    def build(pair: Pair) -> Iterable[Target | Finding]:
        key = _magnitude(tensors, pair.module)
        if key is None:
            message = f"{pair.module} has no {_MAGNITUDE[1:]}, but use_dora is true"
            return [Finding("CFG007", message, where=pair.module, fix="save the adapter again")]
        taken.add(key)
        rank = scales.rank(pair.module)
        is_conv = len(pair.a.shape) > 2 and ends == factors.LINEAR
        wrong = lora_conv.check(pair, rank) if is_conv else factors.check_linear(pair, rank)
        if problems := [*wrong, *factors.check_dtype(tensors[key]), *_count(pair, tensors[key])]:
            return problems
        extra: dict[str, TensorEntry] = {}
        if saved := tensors.get(pair.module + factors.SAVED):
            extra["weight"] = saved
        extra["magnitude"] = tensors[key]
        return [_target(pair, ends, extra, scales.scale(pair.module))]

    result = factors.read_pairs(tensors, ends, build)
    return factors.reading([*result.targets, *result.findings], result.taken | taken)


def _magnitude(tensors: Tensors, module: str) -> str | None:
    names = (module + _MAGNITUDE, f"{module}{_MAGNITUDE}.weight")
    return next((name for name in names if name in tensors), None)


def _count(pair: Pair, magnitude: TensorEntry) -> Iterator[Finding]:
    """Yield a finding if there is not one length for each row of B, whatever the shape."""
    if math.prod(magnitude.shape) != pair.b.shape[0]:
        message = f"{magnitude.name} is {list(magnitude.shape)}, but B is {list(pair.b.shape)}"
        yield Finding("TEN003", message, where=pair.module, fix="save the adapter again")


def _target(
    pair: Pair, ends: tuple[str, str], extra: dict[str, TensorEntry], scale: float
) -> Target:
    is_embedding = ends == factors.EMBEDDING
    shape = lora_conv.weight_shape(pair)
    change = Computed(
        "dora_embedding" if is_embedding else "dora",
        {"a": pair.a, "b": pair.b, **extra},
        {"scale": scale},
        needs_base="weight" not in extra,
        shape=shape[::-1] if is_embedding else shape,
    )
    return Target(pair.module, "dora", change)
