"""How the change of each parameter is kept in a PEFT folder, or why it cannot be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from rankloom.adapter.change import Computed, ExpertLowRank, LowRank, Replacement, Rows
from rankloom.change.dtypes import CODES, FLOATS
from rankloom.change.evaluate import factors, join
from rankloom.change.formula import ByRows, Product, sum_of_weights
from rankloom.change.kinds import FACTORS
from rankloom.change.read import read_doubles, read_tensor
from rankloom_kernels import Term

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rankloom.change.formula import Sum, Summand, TargetChange
    from rankloom.tensorfile.header import TensorEntry
    from rankloom_kernels import Folded

    Tensors = Mapping[str, torch.Tensor]

PREFIX = "base_model.model."
LINEAR = ("lora_A.weight", "lora_B.weight")
EMBEDDING = ("lora_embedding_A", "lora_embedding_B")


_WEIGHT_1 = "let its weights sum to 1, by a filter if not everywhere"
_WITHOUT = (
    f"{_WEIGHT_1}; if they are the base's own, which PEFT saves with every embedding that it "
    "targets, save the adapters without them: save_pretrained(..., save_embedding_layers=False)"
)
_MATRICES = frozenset(["adalora", "loha"])
"""Kinds whose matrix does not tell whether the layer is linear; a convolution refuses its LoRA."""


class CannotSaveError(Exception):
    """PEFT has no form for a change; the text says why.

    Attributes:
        step: what would give it one, if anything does.
    """

    def __init__(self, why: str, step: str = "") -> None:
        super().__init__(why)
        self.step = step


@dataclass(frozen=True, slots=True)
class Form:
    """The tensors that stand for one parameter's change, and what the config says of them.

    Attributes:
        shapes: dtype code and shape by key.
        load: gives the values by key.
        ranks: rank by what has factors: a module, or a parameter of one.
        lists: for fields of the config that are lists, the name to put in.
        tokens: indices of trained tokens by module.
    """

    shapes: Mapping[str, tuple[str, tuple[int, ...]]]
    load: Callable[[], Tensors]
    ranks: Mapping[str, int] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def layer(change: TargetChange) -> Form:
    """LoRA on a linear layer, a convolution or an embedding.

    Raises:
        CannotSaveError: the change is not a product of factors alone.
    """
    turned = {_is_embedding(one) for one in _changes(change)}
    if len(turned) != 1:
        message = "it is an embedding's change in one adapter and a layer's in another"
        raise CannotSaveError(message)
    is_embedding = turned.pop()
    rank, shape = _rank(change), _shape(change)
    into, out = shape[:2] if is_embedding else (shape[1], shape[0])
    kernel = shape[2:]
    a, b = (f"{PREFIX}{change.module}.{leaf}" for leaf in (EMBEDDING if is_embedding else LINEAR))
    shapes = {a: (rank, into, *kernel), b: (out, rank, *[1] * len(kernel))}

    def load() -> Tensors:
        delta = _joined(change.formula, turned=is_embedding)
        return {a: delta.a.reshape(shapes[a]), b: delta.b.reshape(shapes[b])}

    code = _code(change.formula)
    return Form(
        {key: (code, size) for key, size in shapes.items()},
        load,
        {change.module: rank},
        {"target_modules": change.module},
    )


def parameter(change: TargetChange, level: int) -> Form:
    """LoRA on a parameter that belongs to no layer, a stack of experts mostly.

    Args:
        change: what is added to it.
        level: how many other parameters of its module PEFT wraps around it.

    Raises:
        CannotSaveError: the change is not a product of factors alone.
    """
    names = [change.parameter] if change.parameter else list(change.candidates)
    full = [f"{change.module}.{name}" for name in names]
    start = f"{PREFIX}{change.module}{'.base_layer' * level}."
    a, b = (start + leaf for leaf in LINEAR)
    rank, shape, code = _rank(change), _shape(change), _code(change.formula)
    experts = shape[0] if len(shape) == 3 else 1
    out, into = shape[-2:]

    def load() -> Tensors:
        parts = [(number,) for number in range(experts)] if len(shape) == 3 else [()]
        deltas = [_joined(change.formula, part) for part in parts]
        rows = torch.cat([delta.a for delta in deltas])
        return {a: rows, b: torch.stack([delta.b for delta in deltas], dim=2).flatten(1)}

    return Form(
        {a: (code, (experts * rank, into)), b: (code, (out, rank * experts))},
        load,
        dict.fromkeys(full, rank),
        {"target_parameters": full[0]},
    )


def whole(change: TargetChange, *, beside: str) -> Form:
    """Values that take the place of the base's: saved modules, biases, trained tokens.

    Args:
        change: changes of weight 1 in all.
        beside: what of the module has factors: ``""``, ``"module"``, or this very ``"parameter"``.

    Raises:
        CannotSaveError: it is more than that.
    """
    one = change.formula.terms[0].change  # all of them put in the same values
    total = sum_of_weights([term.weight for term in change.formula.terms])
    if total != 1:
        message = f"values that take the place of the base's have weight {total!r}, so that a part "
        message += "of the base's own would be left, which no adapter holds; only weight 1 is kept"
        raise CannotSaveError(message, _WITHOUT if beside == "parameter" else _WEIGHT_1)
    start = f"{PREFIX}{change.module}."
    if isinstance(one, Rows):
        if len(change.formula.terms) > 1 or beside:
            message = "trained tokens can be kept only alone"
            raise CannotSaveError(message)
        key = f"{start}token_adapter.trainable_tokens_delta"
        return _copy(key, one.value, tokens={change.module: one.indices})
    assert isinstance(one, Replacement)  # noqa: S101 - the caller looked
    if one.rows is not None:
        message = "an embedding that was saved together with trained tokens has no form of its own"
        raise CannotSaveError(message)
    if beside == "parameter":
        return _copy(f"{start}base_layer.{change.parameter}", one.value)
    if change.kinds == {"bias"}:
        between = "base_layer." if beside else ""
        return _copy(f"{start}{between}{change.parameter}", one.value, bias="all")
    if beside:
        message = "its module has factors besides"
        raise CannotSaveError(message)
    return _copy(start + change.parameter, one.value, modules_to_save=change.module)


def _copy(
    key: str,
    entry: TensorEntry,
    *,
    tokens: Mapping[str, tuple[int, ...]] | None = None,
    **lists: str,
) -> Form:
    def load() -> Tensors:
        return {key: read_tensor(entry)}

    return Form({key: (entry.dtype, entry.shape)}, load, lists=lists, tokens=tokens or {})


def _is_embedding(change: Summand) -> bool:
    if isinstance(change, Product):
        return change.is_embedding
    return isinstance(change, LowRank) and change.transposed


def _changes(change: TargetChange) -> list[Summand]:
    return [term.change for term in change.formula.terms]


def _shape(change: TargetChange) -> tuple[int, ...]:
    if change.shape is not None:
        return change.shape
    first = _changes(change)[0]
    if not isinstance(first, Computed) or first.kind not in _MATRICES:
        message = "the shape of the parameter is not known"
        raise CannotSaveError(message)
    return _product(first)[0].shape


def _rank(change: TargetChange) -> int:
    return sum(_rank_of(one) for one in _changes(change))


def _rank_of(change: Summand) -> int:
    if isinstance(change, LowRank | ExpertLowRank | Product):
        return change.rank
    return sum(term.b.shape[1] for term in _product(change))


def _product(change: Summand) -> list[Term]:
    if isinstance(change, ByRows):
        message = f"what {change.method} makes has no factors unless it is composed with rank="
        raise CannotSaveError(message)
    if not isinstance(change, Computed):
        message = "values that replace the base's and factors have no common form"
        raise CannotSaveError(message)
    make = FACTORS.get(change.kind)
    if make is None:
        message = f"{change.kind} is no product of two factors"
        raise CannotSaveError(message)
    return make({name: read_doubles(e) for name, e in change.tensors.items()}, change.options)


def _joined(formula: Sum, part: tuple[int | slice, ...] = (), *, turned: bool = False) -> Folded:
    terms: list[Term] = []
    for item in formula.terms:
        computed = isinstance(item.change, Computed)
        found = _product(item.change) if computed else [factors(item.change, part)]
        terms += [Term(b, a, item.weight * coefficient) for b, a, coefficient in found]
    return join(terms, transposed=turned, dtype=FLOATS[_code(formula)]).delta


def _code(formula: Sum) -> str:
    """Return float64 if an adapter has it, else float32."""
    codes = {code for item in formula.terms for code in _codes(item.change)}
    return "F64" if "F64" in codes else "F32"


def _codes(change: Summand) -> set[str]:
    if isinstance(change, Product):
        return {CODES[change.b.dtype]}
    return {entry.dtype for entry in _entries(change)}


def _entries(change: Summand) -> Iterator[TensorEntry]:
    if isinstance(change, LowRank | ExpertLowRank):
        yield from (change.a, change.b)
    elif isinstance(change, Computed):
        yield from change.tensors.values()
