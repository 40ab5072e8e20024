"""What an apply did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What was written.

    Attributes:
        targets: number of base tensors that something was added to.
        unchanged: names of those targets that kept every bit, because what was added is zero or
            vanishes in the rounding to the tensor's dtype.
        replayed: number of tensors of which a tile was computed again and found as written.
        nbytes: size of all files written.
        seconds: wall time.
        digest: of the weights, if it was asked for: what ``sha256sum *.safetensors | sha256sum``
            prints in the output's folder.
    """

    targets: int
    unchanged: tuple[str, ...]
    replayed: int
    nbytes: int
    seconds: float
    digest: str | None = None

    @property
    def changed(self) -> int:
        """Number of base tensors in which at least one bit is another."""
        return self.targets - len(self.unchanged)
