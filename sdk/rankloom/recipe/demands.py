"""What a composition has to meet besides the recipe; it decides no byte of the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.errors import IncompatibleError, RefError
from rankloom.recipe.lines import placed
from rankloom.recipe.methods import find_method
from rankloom.validate.engines import Chosen, choose

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rankloom.recipe.plan import Plan


@dataclass(frozen=True, slots=True)
class Demands:
    """What a composition has to meet.

    Attributes:
        engines: engines that must take its rank.
        allow_no_effect: warn, instead of raising, where an adapter or all of them change nothing.
        line: file and line that ask for the rank, if a recipe does.
    """

    engines: tuple[Chosen, ...] = ()
    allow_no_effect: bool = False
    line: str = ""

    @classmethod
    def of(
        cls, engines: Iterable[str] = (), *, allow_no_effect: bool = False, line: str = ""
    ) -> Demands:
        """Read what a caller says.

        Raises:
            RefError: an engine is not known.
        """
        found = tuple(_chosen(text) for text in dict.fromkeys(engines))
        return cls(found, allow_no_effect, line)

    def joined(self, other: Demands) -> Demands:
        """Return what both demand, and what either allows."""
        engines = tuple(dict.fromkeys((*self.engines, *other.engines)))
        allow = self.allow_no_effect or other.allow_no_effect
        return Demands(engines, allow, self.line or other.line)

    def check_plan(self, plan: Plan) -> None:
        """Refuse a rank that is known before anything is computed.

        Raises:
            IncompatibleError: an engine does not take it.
        """
        if find_method(plan.method).engine == "elements" or not isinstance(plan.keep, int | None):
            return
        for target in plan.targets:
            if target.rank is not None:
                self.check_rank(min(target.rank, plan.keep or target.rank), target.name)

    def check_rank(self, rank: int, name: str) -> None:
        """Refuse a rank.

        Args:
            rank: of a target.
            name: the target's.

        Raises:
            IncompatibleError: an engine does not take it.
        """
        for engine in self.engines:
            if engine.max_rank is not None and rank > engine.max_rank:
                message = f"ENG001 {name} has rank {rank}, and {engine.text} takes at most"
                message += f" {engine.max_rank}"
                hint = f"bring it to rank {engine.max_rank}{engine.advice}"
                raise IncompatibleError(placed(message, self.line), hint=hint)


def _chosen(text: str) -> Chosen:
    try:
        return choose(text)
    except RefError as error:
        message = f"MRG003 {error.message}"
        raise RefError(message, hint=error.hint) from None
