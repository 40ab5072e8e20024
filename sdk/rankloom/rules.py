"""All rules, whichever room keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom import validate
from rankloom.recipe import rules as of_recipes
from rankloom.registry import rules as of_registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.validate import Rule

RULES: Mapping[str, Rule] = {**validate.RULES, **of_recipes.RULES, **of_registry.RULES}
"""By id."""
