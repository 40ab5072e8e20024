"""The ``adapter_config.json`` of a PEFT adapter as a frozen value, read strictly."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rankloom.adapter.patterns import PatternTable, TargetRule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FILE = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What we understand of a config; every other field stands at a default without effect.

    Attributes:
        r: rank of modules that no pattern names; as the four after it, of LORA only.
        lora_alpha: alpha of modules that no pattern names.
        use_rslora: the scale is alpha/√r instead of alpha/r.
        rank_pattern: ranks by pattern, in the file's order.
        alpha_pattern: alphas by pattern, in the file's order.
        target_modules: names, a regular expression, or ``None``.
        exclude_modules: the same for what is left out.
        layers_to_transform: indices of layers, or ``None`` for all.
        layers_pattern: names of the lists of layers; empty: any.
        base_model_name_or_path: the claim where the base came from.
        task_type: PEFT's name of the task.
        options: fields that change the result, for the kinds: those common to all types, and all
            of LORA, only if they are not at their default; those of another type always.
        raw: the whole JSON object.
        peft_type: PEFT's name of the type, which decides what the tensors mean.
    """

    r: int = 0
    lora_alpha: float = 0.0
    use_rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    target_modules: tuple[str, ...] | str | None = None
    exclude_modules: tuple[str, ...] | str | None = None
    layers_to_transform: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()
    base_model_name_or_path: str | None = None
    task_type: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)
    peft_type: str = "LORA"

    def by_module(self, name: str, patterns: str) -> Callable[[str], Any]:
        """Return the lookup by module of an option that has a pattern of exceptions.

        Args:
            name: the option's name, e.g. ``"r"``.
            patterns: name of the option with values by pattern, e.g. ``"rank_pattern"``.
        """
        values = self.options[patterns]
        table = PatternTable(values)

        def find(module: str) -> Any:  # noqa: ANN401 - whatever the option is
            key = table.find(module)
            return self.options[name] if key is None else values[key]

        return find

    def scales(self) -> Scales:
        """Return the lookup of ranks and scales by module."""
        return Scales(self)

    def target_rule(self) -> TargetRule | None:
        """Return the rule of ``target_modules``; ``None``: only the base's classes know."""
        if self.target_modules is None or self.target_modules == "all-linear":
            return None
        return TargetRule.of(self.target_modules)


class Scales:
    """Rank and scale of every module of one adapter (``peft.tuners.lora.layer.update_layer``)."""

    def __init__(self, config: AdapterConfig) -> None:
        self._config = config

    @cached_property
    def _ranks(self) -> PatternTable:
        return PatternTable(self._config.rank_pattern)

    @cached_property
    def _alphas(self) -> PatternTable:
        return PatternTable(self._config.alpha_pattern)

    def rank(self, module: str) -> int:
        """Return the rank that the config gives a module."""
        key = self._ranks.find(module)
        return self._config.r if key is None else self._config.rank_pattern[key]

    def alpha(self, module: str) -> float:
        """Return the alpha that the config gives a module."""
        key = self._alphas.find(module)
        return self._config.lora_alpha if key is None else self._config.alpha_pattern[key]

    def scale(self, module: str) -> float:
        """Return alpha/r, or alpha/√r with rsLoRA (arXiv 2312.03732), as float64."""
        rank = self.rank(module)
        return self.alpha(module) / (math.sqrt(rank) if self._config.use_rslora else rank)
