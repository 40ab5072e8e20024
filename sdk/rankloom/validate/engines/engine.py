"""An engine of one version, as its file describes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Verdict(StrEnum):
    """What an engine does with an adapter."""

    ACCEPT = "accept"
    """It serves what was trained."""
    REJECT = "reject"
    """It says that it cannot, when it starts, loads the adapter, or first uses it."""
    SILENT = "silent-wrong"
    """It serves something else, and at most logs it."""
    DEGRADED = "degraded"
    """It serves what was trained, at a cost or with a side effect."""
    UNKNOWN = "unknown"
    """Nobody has read it yet."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What an engine does with one feature.

    Attributes:
        verdict: what.
        source: file and symbol where it was read.
        reason: how it comes about; empty only where the feature is accepted.
        remedy: what helps with this engine; empty: what the feature's rule says.
    """

    verdict: Verdict
    source: str
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which ranks an engine takes.

    Attributes:
        default: the largest, if nothing else is set; ``None``: any.
        settings: values that its ``max_lora_rank`` can have; empty: any whole number.
        padded_least: ranks up to this one are filled up to it; 0: none is filled up.
        padded_step: larger ranks are filled up to a multiple of this.
    """

    default: int | None = None
    settings: tuple[int, ...] = ()
    padded_least: int = 0
    padded_step: int = 1

    def padded(self, rank: int) -> int:
        """Return the rank with which the engine computes."""
        if not self.padded_least:
            return rank
        step = self.padded_step
        return self.padded_least if rank <= self.padded_least else -(-rank // step) * step


@dataclass(frozen=True, slots=True)
class Reads:
    """What of an adapter an engine knows by name.

    Attributes:
        required: fields of the config without which it cannot do.
        inits: values of ``init_lora_weights`` that it takes for harmless.
        saved: names in ``modules_to_save`` that it takes.
        modules: last names of the modules that it adapts; empty: whatever the model has.
        vocabulary: the largest vocabulary with an adapted head; 0: any.
        names: under which names it finds a module besides that in memory of the class that the
            base's config names: ``checkpoint`` (that on disk), ``converted`` (that on disk, where
            transformers converts this type of model), ``backbone`` (that in memory without the
            model around it), or else how other names begin that it knows.
    """

    required: tuple[str, ...] = ()
    inits: frozenset[str] = frozenset()
    saved: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    vocabulary: int = 0
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine of one version.

    Attributes:
        name: as it is written behind ``--engine``.
        title: as it calls itself.
        version: release, or the commit that was read.
        url: its repository.
        read: how the facts were won.
        ranks: which ranks it takes.
        reads: what it knows by name.
        cells: what it does with each feature, by the feature's name.
        sources: digest of each place that was read, as ``path:symbol``, so that a newer release
            shows which have changed; empty where there is no wheel to compare.
    """

    name: str
    title: str
    version: str
    url: str
    read: str
    ranks: Ranks = field(default_factory=Ranks)
    reads: Reads = field(default_factory=Reads)
    cells: Mapping[str, Cell] = field(default_factory=dict, hash=False)
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def pinned(self) -> str:
        """How this version of it is written behind ``--engine``."""
        return f"{self.name}=={self.version}"

    @property
    def max_rank(self) -> int | None:
        """The largest rank that it does not refuse, if nothing else is set; ``None``: any."""
        refused = self.cells["rank"].verdict is Verdict.REJECT
        return self.ranks.default if refused else None
