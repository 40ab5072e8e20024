"""Evaluates a formula of any changes on any part of its parameter, in float64.

One function for each class of change; a new class is one more function here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom.adapter.change import Computed, ExpertLowRank, LowRank, Replacement, Rows
from rankloom.change.evaluate import Recent, factors
from rankloom.change.formula import ByRows, Product
from rankloom.change.kinds import FACTORS, FORMULAS
from rankloom.change.parts import part_factors
from rankloom.change.portions import Portions
from rankloom.change.read import read_doubles
from rankloom.errors import AdapterError, IncompatibleError, UnsupportedAdapterError
from rankloom.tensorfile.index import index, sizes
from rankloom_kernels import Term

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import EllipsisType

    from rankloom.change.formula import Formula
    from rankloom.tensorfile.header import TensorEntry
    from rankloom.tensorfile.index import Index, Spans

    Where = torch.Tensor | slice | EllipsisType


class Dense:
    """A formula and the parameter that it is added to.

    What a formula of :mod:`rankloom.change.kinds` computes is kept for the next part.

    Args:
        formula: what is added.
        shape: of the parameter as the module has it.
        whole: gives all of the parameter in float64, for what depends on its values.
        device: where the parameter is.
        beside: the same for other parameters of its module, by name.
        once: one small part is asked for and no other, so no more of the factors is read.
    """

    def __init__(
        self,
        formula: Formula,
        shape: tuple[int, ...],
        whole: Callable[[], torch.Tensor],
        device: torch.device | str = "cpu",
        beside: Mapping[str, Callable[[], torch.Tensor]] | None = None,
        *,
        once: bool = False,
    ) -> None:
        self._formula, self._shape, self._whole = formula, shape, whole
        self._device, self._beside, self._once = device, beside or {}, once
        self._computed: dict[int, torch.Tensor] = {}
        self._factors: dict[int, Term] = {}
        self._portions: dict[int, Portions] = {}
        self._recent = Recent()

    def add_(self, total: torch.Tensor, weight: torch.Tensor, part: Spans) -> None:
        """Turn W into W′ on one part of the parameter.

        Semantics: ``total ← total + Σ weightᵢ · (Wᵢ′ − W)``, in float64. Values that are put in
        the place of W's with weight 1 in all are there to the last bit.

        Args:
            total: the part; holds W, and what other formulas added if this one replaces nothing.
            weight: the part of W, float64.
            part: which part it is.

        Raises:
            AdapterError: a tensor cannot be read, or holds NaN or infinity.
            IncompatibleError: the parameter does not have the shape that a change is for.
        """
        self._replace(total, weight, part)
        for number, item in enumerate(self._formula.terms):
            change = item.change
            if isinstance(change, LowRank | ExpertLowRank | Product):
                total += item.weight * self._product(number, change, part)
            elif isinstance(change, ByRows):
                delta = self._portions.setdefault(number, Portions(change)).part(part)
                total += item.weight * delta.to(self._device)
            elif isinstance(change, Computed):
                total += item.weight * self._delta(number, change)[index(part)]

    def add_magnitude_(self, total: torch.Tensor, part: Spans) -> None:
        """Add the size of what :meth:`add_` sums up, which rounding errors are a share of.

        Semantics: ``total ← total + Σ |weightᵢ|·(|Bᵢ|·|Aᵢ|)``, and the absolute values of what is
        no product.

        Args:
            total: the part, float64.
            part: which part of the parameter it is.
        """
        for number, item in enumerate(self._formula.terms):
            change = item.change
            if isinstance(change, LowRank | ExpertLowRank | Product):
                total += abs(item.weight) * self._product(number, change, part, absolute=True)
            elif isinstance(change, ByRows):
                delta = self._portions.setdefault(number, Portions(change)).part(part)
                total += abs(item.weight) * delta.to(self._device).abs()
            elif isinstance(change, Computed):
                total += abs(item.weight) * self._size(number, change)[index(part)]
            else:
                where, values = _in_place(change, part)
                total[where] += abs(item.weight) * values.to(self._device).abs()

    def _replace(self, total: torch.Tensor, weight: torch.Tensor, part: Spans) -> None:
        """Put in what replaces: ``(1 − Σ wᵢ)·W + Σ wᵢ·Rᵢ``, which for weight 1 is R exactly."""
        found = [
            (item.weight, *_in_place(item.change, part))
            for item in self._formula.terms
            if isinstance(item.change, Replacement | Rows)
        ]
        if [share for share, *_ in found] == [1]:  # exact even where W is no finite number
            [(_, where, values)] = found
            total[where] = values.to(self._device)
            return
        for share, where, _ in found:
            total[where] -= share * weight[where]
        for share, where, values in found:
            total[where] += share * values.to(self._device)

    def _product(
        self,
        number: int,
        change: LowRank | ExpertLowRank | Product,
        part: Spans,
        *,
        absolute: bool = False,
    ) -> torch.Tensor:
        """Return scale · B·A on a part, expert by expert where there are experts.

        With ``absolute`` it is |scale| · |B|·|A|.
        """
        if len(part) == 3 and isinstance(part[0], range):
            found = [
                self._product(number, change, (one, *part[1:]), absolute=absolute)
                for one in part[0]
            ]
            nothing = torch.zeros(sizes(part), dtype=torch.float64, device=self._device)
            return torch.stack(found) if found else nothing
        b, a, scale = self._cut(number, change, part)
        product = abs(scale) * (b.abs() @ a.abs()) if absolute else scale * (b @ a)
        return product.view(sizes(part[-2:]))

    def _cut(self, number: int, change: LowRank | ExpertLowRank | Product, part: Spans) -> Term:
        """Return rows of B and columns of A."""
        if self._once:
            if number not in self._factors:
                self._factors[number] = self._here(part_factors(change, part))
            return self._factors[number]
        b, a, scale = self._matrix(number, change, part[:-2])
        # An int keeps its axis until the product is made.
        rows, columns = (slice(n, n + 1) if isinstance(n, int) else n for n in index(part[-2:]))
        return Term(b[rows], a[:, columns], scale)

    def _here(self, term: Term) -> Term:
        b, a = (matrix.to(self._device).double() for matrix in (term.b, term.a))
        return Term(b, a, term.coefficient)

    def _matrix(
        self, number: int, change: LowRank | ExpertLowRank | Product, expert: Spans
    ) -> Term:
        if number in self._factors:
            return self._factors[number]
        term = self._here(factors(change, index(expert), self._recent))
        if not expert:  # the next part needs the same
            self._factors[number] = term
        return term

    def _size(self, number: int, change: Computed) -> torch.Tensor:
        """Return |B|·|A| of what can be kept as factors, and else |W′ − W|."""
        if change.kind not in FACTORS:
            return self._delta(number, change).abs()
        terms = FACTORS[change.kind](_tensors(change.tensors, self._device), change.options)
        products = [abs(term.coefficient) * (term.b.abs() @ term.a.abs()) for term in terms]
        return torch.stack(products).sum(0).view(self._shape)

    def _delta(self, number: int, change: Computed) -> torch.Tensor:
        if number not in self._computed:
            self._computed[number] = self._compute(change)
        return self._computed[number]

    def _compute(self, change: Computed) -> torch.Tensor:
        formula = FORMULAS.get(change.kind)
        if formula is None:
            message = f"there is no formula for the kind {change.kind}"
            raise UnsupportedAdapterError(message, hint="this is a fault of rankloom; report it")
        tensors = _tensors(change.tensors, self._device)
        for name in change.reads:
            tensors[f"base.{name}"] = self._beside[name]().to(self._device)
        if change.base is not None:
            weight = read_doubles(change.base).to(self._device)
        elif change.needs_base:
            weight = self._whole().to(self._device)
        else:  # only its shape may be used, and a formula that breaks this gets NaN
            nothing = torch.full((), torch.nan, dtype=torch.float64, device=self._device)
            weight = nothing.expand(self._shape)
        delta = formula(tensors, change.options, weight)
        _check(change, delta, self._shape)
        return delta


def _tensors(
    entries: Mapping[str, TensorEntry], device: torch.device | str
) -> dict[str, torch.Tensor]:
    return {name: read_doubles(entry).to(device) for name, entry in entries.items()}


def _check(change: Computed, delta: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(delta.shape) != shape:
        message = f"BASE002 {change.kind} changes {tuple(delta.shape)}, the base has {shape}"
        raise IncompatibleError(message, hint="give the base that the adapter was trained on")
    if not torch.isfinite(delta).all():
        bad = int((~torch.isfinite(delta)).sum())
        message = f"NUM001 the {change.kind} change of {shape} has {bad} values that are no numbers"
        raise AdapterError(message, hint="the training run diverged; use an earlier checkpoint")


def _in_place(change: Replacement | Rows, part: Spans) -> tuple[Where, torch.Tensor]:
    """Return which positions of a part get values, and these in float64."""
    if isinstance(change, Replacement) and not part:
        return ..., read_doubles(change.value)
    rows, rest = part[0], index(part[1:])
    chosen = range(rows, rows + 1) if isinstance(rows, int) else rows
    if isinstance(change, Rows):
        return _rows(change, chosen, rest)
    values = read_doubles(change.value, chosen)[(slice(None), *rest)]
    if change.rows is not None:
        places, others = _rows(change.rows, chosen, rest)
        values[places] = others
    return slice(None), values[0] if isinstance(rows, int) else values


def _rows(change: Rows, chosen: range, rest: Index) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places of the changed rows among the chosen ones, and their values."""
    numbers = [number for number, row in enumerate(change.indices) if row in chosen]
    places = torch.tensor([chosen.index(change.indices[number]) for number in numbers]).long()
    return places, read_doubles(change.value)[numbers][(slice(None), *rest)]
