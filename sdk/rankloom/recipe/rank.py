"""The rank that a composition is asked to have, as people write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rankloom.errors import RefError

if TYPE_CHECKING:
    from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Energy:
    """The smallest rank that keeps a share of ‖ΔW‖².

    Attributes:
        share: above 0, at most 1.
        max_rank: never more than this, whatever is lost.
    """

    share: float = 0.999
    max_rank: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            message = f"an energy of {self.share!r} cannot be kept"
            raise RefError(message, hint="give a share above 0 and at most 1, such as 0.999")
        if self.max_rank is not None:
            check_rank(self.max_rank)

    def __str__(self) -> str:
        most = "" if self.max_rank is None else f",max={self.max_rank}"
        return f"energy={self.share!r}{most}"


Rank: TypeAlias = int | Energy | Literal["auto"]
"""A number; an energy; or ``auto``: nothing is lost that float32 factors could hold."""

_ENERGY = re.compile(r"energy=([0-9.eE+-]+)(?:,max=([0-9]+))?")


def check_rank(rank: object) -> int:
    """Return a rank that somebody gave.

    Raises:
        RefError: it is no whole number of at least 1.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        message = f"{rank!r} is not a rank"
        raise RefError(message, hint="a rank is a whole number from 1")
    return rank


def parse_rank(rank: object) -> Rank | None:
    """Return the rank that a number or a text stands for; ``None`` and ``"sum"`` mean all of it.

    Args:
        rank: ``16``, ``"16"``, ``"auto"``, ``"energy=0.999"``, ``"energy=0.999,max=64"``, an
            :class:`Energy`, ``"sum"`` or ``None``.

    Raises:
        RefError: it is none of them.
    """
    if rank is None or rank == "sum":
        return None
    if isinstance(rank, Energy):
        return rank
    if rank == "auto":
        return "auto"
    if isinstance(rank, str) and rank.isdecimal():
        return check_rank(int(rank))
    if isinstance(rank, str) and (found := _ENERGY.fullmatch(rank)):
        return Energy(_share(found[1]), int(found[2]) if found[2] else None)
    if isinstance(rank, str):
        message = f"{rank[:80]!r} is not a rank"
        raise RefError(message, hint="write 16, auto, energy=0.999 or energy=0.999,max=64")
    return check_rank(rank)


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        message = f"{text!r} is no share of an energy"
        raise RefError(message, hint="write energy=0.999") from None
