"""What compose and apply are told about the composition: by options, or by a recipe file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rankloom.composition import Composition


@dataclass(frozen=True, slots=True)
class Composed:
    """Adapters and how they are combined; or one recipe file, which says both.

    Attributes:
        refs: refs and folders, or the path of a recipe.
        weights: one number for each.
        method: name of the method.
        rank: what the result is brought to.
        parameters: of the method.
        engines: serving engines that must take the rank.
        allow_no_effect: whether an adapter may leave a target as it is.
    """

    refs: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    method: str | None = None
    rank: str | None = None
    parameters: tuple[tuple[str, Any], ...] = ()
    engines: tuple[str, ...] = ()
    allow_no_effect: bool = False

    @property
    def is_recipe(self) -> bool:
        """Whether it is a recipe file: one name that ends as YAML does."""
        return len(self.refs) == 1 and self.refs[0].endswith((".yaml", ".yml"))

    def compose(self, *, base: str | None = None, locked: str | None = None) -> Composition:
        """Compose it.

        Raises:
            UsageError: options beside a recipe or a lock, which say the same.
        """
        from rankloom import sdk

        self._check(base, locked)
        engines, allow = self.engines, self.allow_no_effect
        if self.is_recipe:
            return sdk.compose_recipe(
                self.refs[0], locked=locked, engines=engines, allow_no_effect=allow
            )
        if locked:
            return sdk.compose_locked(self.refs, locked, engines=engines, allow_no_effect=allow)
        return sdk.compose(
            self.refs,
            self.weights,
            method=self.method or "exact",
            rank=self.rank,
            base=base,
            engines=engines,
            allow_no_effect=allow,
            **dict(self.parameters),
        )

    def _check(self, base: str | None, locked: str | None) -> None:
        demands = {"refs", "engines", "allow_no_effect"}  # of the result, whatever it is made of
        said = [item.name for item in fields(self) if item.name not in demands]
        given = [name for name in said if getattr(self, name)]
        given += ["base"] if base else []
        if given and (self.is_recipe or locked):
            what = "the recipe" if self.is_recipe else "the lock"
            message = f"{what} says everything: leave out {', '.join(given)}"
            raise click.UsageError(message)
