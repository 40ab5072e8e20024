"""The base's own values of what a composition changed, kept where a budget has room for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from rankloom.apply.live.mapped import Checkpoint
from rankloom.errors import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Budget:
    """Where the base's own values may be while something else lies on the model.

    Attributes:
        device: bytes of copies beside the parameters, on their device; ``None``: no limit.
        host: bytes of copies in main memory when that is full, pinned for a GPU; ``None``: no
            limit. On a CPU these are more of the same.
        checkpoint: folder of the base; what has room nowhere else is mapped from there.
        factors: bytes of factors kept in memory for the next swap.
    """

    device: int | None = None
    host: int | None = 0
    checkpoint: Path | None = None
    factors: int = 1 << 30


class Original(Protocol):
    """One tensor's own values."""

    @property
    def values(self) -> torch.Tensor:
        """All of them, in any place and dtype that holds them exactly."""


@dataclass(slots=True)
class _Copy:
    """A copy in memory, which is used again for the next values of its form."""

    values: torch.Tensor
    on_device: bool


@dataclass(slots=True)
class _Used:
    """Bytes of copies."""

    device: int = 0
    host: int = 0


class Originals:
    """The base's own values of some parameters of one model.

    Copies that nobody needs any more stay as memory for the next ones: memory that is new each
    time costs as much as the sums, since the system clears every page of it first. So two handles
    on one model, one after the other, may share this.

    Args:
        budget: where they may be.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self._copies: dict[str, _Copy] = {}
        self._held: dict[str, Original] = {}
        self._used = _Used()
        folder = self.budget.checkpoint
        self._checkpoint = Checkpoint(folder) if folder is not None else None

    @property
    def nbytes(self) -> int:
        """Bytes of copies in memory."""
        return self._used.device + self._used.host

    def keep(self, name: str, values: torch.Tensor, needed: Container[str]) -> None:
        """Keep values that are still the base's.

        Args:
            name: of the tensor.
            values: what it holds.
            needed: names whose originals must stay; others make room if there is none.

        Raises:
            BackendUnavailableError: the budget has no room for it.
            IncompatibleError: the checkpoint has other values.
        """
        self._held[name] = self._copy(name, values, needed) or self._mapped(name, values)

    def of(self, name: str, now: torch.Tensor) -> torch.Tensor:
        """Return the base's values of a tensor in its present dtype.

        Args:
            name: of the tensor.
            now: the tensor; the model may have moved since.

        Raises:
            IntegrityError: they are in a file that somebody else wrote to.
        """
        values = self._held[name].values
        return values if values.dtype == now.dtype else values.to(now.dtype)

    def forget(self) -> None:
        """Hold nothing any more; memory stays for the next values."""
        self._held.clear()

    def _copy(self, name: str, values: torch.Tensor, needed: Container[str]) -> Original | None:
        copy = self._copies.get(name)
        if copy is None or _form(copy.values) != _form(values):
            self._release(name)
            copy = self._allocate(values)
            if copy is None and self._make_room(needed):
                copy = self._allocate(values)
            if copy is None:
                return None
            self._copies[name] = copy
        copy.values.copy_(values)
        return copy

    def _allocate(self, values: torch.Tensor) -> _Copy | None:
        if _fits(values.nbytes, self._used.device, self.budget.device):
            self._used.device += values.nbytes
            return _Copy(torch.empty_like(values), on_device=True)
        if _fits(values.nbytes, self._used.host, self.budget.host):
            self._used.host += values.nbytes
            pinned = values.device.type == "cuda"
            memory = torch.empty_like(values, device="cpu", pin_memory=pinned)
            return _Copy(memory, on_device=False)
        return None

    def _make_room(self, needed: Container[str]) -> bool:
        """Give up copies of what the model holds itself at the moment."""
        spare = [name for name in self._copies if name not in needed]
        for name in spare:
            self._release(name)
        return bool(spare)

    def _release(self, name: str) -> None:
        self._held.pop(name, None)
        copy = self._copies.pop(name, None)
        if copy is not None and copy.on_device:
            self._used.device -= copy.values.nbytes
        elif copy is not None:
            self._used.host -= copy.values.nbytes

    def _mapped(self, name: str, values: torch.Tensor) -> Original:
        if self._checkpoint is None:
            budget = self.budget
            message = f"a copy of {name} ({values.nbytes} bytes) exceeds what may be kept:"
            message += f" {budget.device} bytes on the device and {budget.host} in main memory"
            hint = "give the base's folder as checkpoint, or more room"
            raise BackendUnavailableError(message, hint=hint)
        return self._checkpoint.original(name, values)


def _fits(nbytes: int, used: int, limit: int | None) -> bool:
    return limit is None or used + nbytes <= limit


def _form(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype
