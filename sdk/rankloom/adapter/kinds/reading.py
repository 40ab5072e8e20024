"""What a reader of one kind is given and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.adapter.change import Target
    from rankloom.adapter.config import AdapterConfig
    from rankloom.finding import Finding
    from rankloom.tensorfile.header import TensorEntry


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reader found.

    Attributes:
        targets: the base tensors that the adapter changes in this way.
        taken: keys of the tensors that the reader has dealt with, broken ones too.
        findings: what is wrong with them.
    """

    targets: tuple[Target, ...]
    taken: frozenset[str]
    findings: tuple[Finding, ...]

    def joined(self, other: Reading) -> Reading:
        """Return what two readings of different tensors found."""
        return Reading(
            self.targets + other.targets,
            self.taken | other.taken,
            self.findings + other.findings,
        )


class Reader(Protocol):
    """Reads the tensors of one kind."""

    def __call__(self, config: AdapterConfig, tensors: Mapping[str, TensorEntry], /) -> Reading:
        """Read what it understands of ``tensors``, whose keys are without PEFT's prefix."""
