"""Every method of composition as data: what it takes, what it needs, what it gives.

The mathematics is in ``rankloom.compose``, in a room for each engine:

=============  =======================================================================
``sum``        Σ cᵢ·(Wᵢ′ − W), c from the weights alone; every kind of adapter
``gram``       the same with c from inner products of the deltas, one set for each target
``core``       factors of the deltas become factors of the result
``elements``   element by element, computed when it is applied; no factors without ``rank``
``apart``      all A and all B apart, as PEFT does it: no sum of deltas
=============  =======================================================================
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rankloom.errors import RefError
from rankloom.recipe.parameters import (
    REQUIRED,
    Parameter,
    choice,
    flag,
    number,
    share,
    small,
    whole,
)
from rankloom.recipe.rank import parse_rank

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rankloom.recipe.rank import Rank

Engine: TypeAlias = Literal["sum", "gram", "core", "elements", "apart"]

DENSITY = {"density": share(each=True)}
LAMBDA = {"lambda": number(1.0)}
SEED = {"seed": whole(0)}
PICO = {"pico": flag(default=False)}
SIGNS = {
    "sign_election": choice("weighted", "unweighted"),
    "vote": choice("total", "count"),
    "divide_by": choice("weights", "count", "none"),
}
SIGNS_UNDIVIDED = {**SIGNS, "divide_by": choice("none", "weights", "count")}


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        name: what people write.
        engine: where its mathematics is.
        paper: where it comes from.
        what: what it computes, in a few words.
        parameters: by the name that recipes use.
        adapters: fewest and most adapters that it takes; ``None``: no limit.
        version: a change that moves a byte of a result gets a new one.
        needs_rank: it finds as many dimensions as it is told.
    """

    name: str
    engine: Engine
    paper: str
    what: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    adapters: tuple[int, int | None] = (1, None)
    version: int = 1
    needs_rank: bool = False

    @property
    def algorithm(self) -> str:
        """Name and version, as locks have it."""
        return f"{self.name}/{self.version}"

    @property
    def is_random(self) -> bool:
        """Whether it draws random numbers."""
        return "seed" in self.parameters

    def read(self, given: Mapping[str, object], adapters: int) -> dict[str, Any]:
        """Return all parameters with their values, defaults too, sorted by name.

        Args:
            given: what the caller gives, under the names of recipes.
            adapters: how many there are.

        Raises:
            RefError: a parameter is unknown, missing or has a value that cannot be; or the method
                takes another number of adapters.
        """
        self._check_adapters(adapters)
        for name in given:
            if name not in self.parameters:
                message = f"MRG003 the method {self.name} has no parameter {name!r}"
                raise RefError(message, hint=hint(name, self.parameters))
        missing = [
            name
            for name, known in self.parameters.items()
            if known.default is REQUIRED and name not in given
        ]
        if missing:
            message = f"MRG003 the method {self.name} needs {', '.join(missing)}"
            wanted = self.parameters[missing[0]].wanted
            raise RefError(message, hint=f"give {missing[0]}: {wanted}")
        return {
            name: known.read(name, given.get(name, known.default), adapters)
            for name, known in sorted(self.parameters.items())
        }

    def read_rank(self, rank: object) -> Rank | None:
        """Return the rank that the result shall have; ``None``: whatever it has.

        Raises:
            RefError: it is no rank, or none that the method can work with.
        """
        found = parse_rank(rank)
        if self.needs_rank and found is None:
            message = f"MRG003 the method {self.name} needs a rank"
            raise RefError(message, hint="give the rank of the result, such as 16")
        if self.engine == "apart" and found is not None:
            message = f"MRG003 the method {self.name} has the rank of its adapters"
            raise RefError(message, hint="leave the rank out, or use the method exact")
        if (self.needs_rank or self.engine == "elements") and not isinstance(found, int | None):
            message = f"MRG003 the method {self.name} cannot choose a rank by {found}"
            raise RefError(message, hint="give a number, such as 16")
        return found

    def _check_adapters(self, count: int) -> None:
        least, most = self.adapters
        if count < least or (most is not None and count > most):
            wanted = str(least) if least == most else f"at least {least}"
            message = f"MRG003 the method {self.name} takes {wanted} adapters, not {count}"
            raise RefError(message, hint="use another number of adapters, or the method exact")


_TIES = "TIES, arXiv 2306.01708"
_DARE = "DARE, arXiv 2311.03099"
_CORE = "Core Space, arXiv 2509.17786"
_DELLA = "DELLA, arXiv 2406.11617"
_CRUMBS = "Breadcrumbs, arXiv 2312.06795"
_KNOTS = "KnOTS, arXiv 2410.19735"
_CTM = "CtM, arXiv 2606.03723"
_BETA = {"beta": small(0.0, closed=True)}
_VECTORS = {"vectors": choice("unit", "scaled")}
_EPSILON = {"epsilon": small(0.15)}
_GAMMA = {"gamma": small(0.01)}

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("exact", "sum", "", "Σ w·Δ"),
        Method(
            "linear",
            "sum",
            "mergekit",
            "Σ w·Δ / Σ w: the weighted average of whole models",
            {"normalize": flag(default=True)},
        ),
        Method(
            "task_arithmetic",
            "sum",
            "arXiv 2212.04089",
            "λ·Σ w·Δ",
            {**LAMBDA, "normalize": flag(default=False)},
        ),
        Method(
            "slerp",
            "gram",
            "Shoemake 1985; mergekit",
            "the point at t on the arc between two deltas",
            {"t": number()},
            (2, 2),
        ),
        Method("nuslerp", "gram", "mergekit", "the arc's point at w₂ / (w₁ + w₂)", adapters=(2, 2)),
        Method(
            "multislerp",
            "gram",
            "mergekit",
            "the mean direction with the mean length",
            {"normalize": flag(default=True)},
            (2, None),
        ),
        Method(
            "karcher",
            "gram",
            "Karcher 1977; mergekit",
            "the mean on the sphere of directions",
            {"max_iter": whole(100, least=1), "tol": share(1e-12)},
            (2, None),
        ),
        Method(
            "model_stock",
            "gram",
            "arXiv 2403.19522",
            "the mean, as near to the base as the angles say",
            adapters=(2, None),
        ),
        Method(
            "norm_balanced",
            "gram",
            "arXiv 2505.15875",
            "a sum in which no delta is longer than its weight says",
        ),
        Method(
            "ties",
            "elements",
            _TIES,
            "trim each, elect a sign, mean of what agrees",
            {**DENSITY, **SIGNS, **LAMBDA},
        ),
        Method(
            "magnitude_prune",
            "elements",
            "PEFT",
            "trim each, add up",
            {**DENSITY, **LAMBDA},
        ),
        Method(
            "breadcrumbs",
            "elements",
            _CRUMBS,
            "drop the largest and the smallest, add up",
            {**DENSITY, **_GAMMA, **LAMBDA},
        ),
        Method(
            "breadcrumbs_ties",
            "elements",
            _CRUMBS,
            "the same, then signs as in ties",
            {**DENSITY, **_GAMMA, **SIGNS_UNDIVIDED, **LAMBDA},
        ),
        Method(
            "dare_linear",
            "elements",
            _DARE,
            "drop at random, divide by the density, add up",
            {**DENSITY, **SEED, **LAMBDA},
        ),
        Method(
            "dare_ties",
            "elements",
            _DARE,
            "the same, then signs as in ties",
            {**DENSITY, **SEED, **SIGNS_UNDIVIDED, **LAMBDA},
        ),
        Method(
            "della_linear",
            "elements",
            _DELLA,
            "drop small ones of a row rather than large ones, add up",
            {**DENSITY, **SEED, **_EPSILON, **LAMBDA},
        ),
        Method(
            "della",
            "elements",
            _DELLA,
            "the same, then signs as in ties",
            {**DENSITY, **SEED, **_EPSILON, **SIGNS, **LAMBDA},
        ),
        Method(
            "sce",
            "elements",
            "arXiv 2408.07990",
            "keep where deltas differ, weigh by energy, signs",
            {"select_topk": share(1.0), **LAMBDA},
        ),
        Method(
            "core_ties",
            "core",
            f"{_CORE}; {_TIES}",
            "ties on coordinates in shared bases",
            {**DENSITY, **SIGNS, **LAMBDA, **PICO},
        ),
        Method(
            "core_dare",
            "core",
            f"{_CORE}; {_DARE}",
            "dare_linear on coordinates in shared bases",
            {**DENSITY, **SEED, **LAMBDA, **PICO},
        ),
        Method(
            "tsv",
            "core",
            f"TSV, arXiv 2412.00081; {_CORE}",
            "first singular components of each, made orthogonal",
            {**LAMBDA, **PICO},
        ),
        Method(
            "iso_c",
            "core",
            f"Iso-C, arXiv 2502.04959; {_CORE}",
            "the sum with all its singular values made equal",
            {**LAMBDA, **PICO},
        ),
        Method(
            "knots_ties",
            "core",
            f"{_KNOTS}; {_TIES}",
            "ties on aligned right singular vectors",
            {**DENSITY, **SIGNS, **LAMBDA, **PICO, **_VECTORS},
        ),
        Method(
            "knots_dare",
            "core",
            f"{_KNOTS}; {_DARE}",
            "dare_linear on the same",
            {**DENSITY, **SEED, **LAMBDA, **PICO, **_VECTORS},
        ),
        Method(
            "ctm",
            "core",
            _CTM,
            "the sum in rank dimensions that serve all deltas",
            {**LAMBDA, **_BETA, **PICO},
            needs_rank=True,
        ),
        Method(
            "ctm_ties",
            "core",
            f"{_CTM}; {_TIES}",
            "ties in those dimensions",
            {**DENSITY, **SIGNS, **LAMBDA, **_BETA, **PICO},
            needs_rank=True,
        ),
        Method(
            "pico",
            "core",
            "Pico, arXiv 2604.16826",
            "the sum after crowded output directions were calmed",
        ),
        Method(
            "peft_linear",
            "apart",
            "PEFT, combination_type=linear",
            "(Σ √w·B)·(Σ √w·A), which is no sum of deltas: to make again what PEFT made",
        ),
    )
}
"""name → method."""

CORE: Mapping[str, tuple[str, str]] = {
    "core_dare": ("core", "dare"),
    "core_ties": ("core", "ties"),
    "ctm": ("ctm", "task_arithmetic"),
    "ctm_ties": ("ctm", "ties"),
    "iso_c": ("core", "iso_c"),
    "knots_dare": ("knots", "dare"),
    "knots_ties": ("knots", "ties"),
    "pico": ("core", "task_arithmetic"),
    "tsv": ("core", "tsv"),
}
"""Space and rule of each method of the engine ``core``."""


def find_method(name: str) -> Method:
    """Return a method.

    Raises:
        RefError: there is no such method.
    """
    if name not in METHODS:
        message = f"there is no method {name!r}"
        raise RefError(message, hint=hint(name, METHODS))
    return METHODS[name]


def hint(name: str, known: Iterable[str]) -> str:
    """Say which known name was perhaps meant, and all that there are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1)
    nearest = f"perhaps {near[0]}; " if near else ""
    return f"{nearest}known: {', '.join(names) or 'none'}"
