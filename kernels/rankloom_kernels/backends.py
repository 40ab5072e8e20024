"""Which backend computes, and why another does not."""

from __future__ import annotations

import importlib.util
import logging
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

Backend: TypeAlias = Literal["triton", "torch"]
"""``triton``: one pass over each element, on NVIDIA GPUs. ``torch``: wherever torch runs."""

_logger = logging.getLogger(__name__)


class BackendError(RuntimeError):
    """No backend does what was asked for.

    Attributes:
        reasons: why each that was considered does not, by name.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))


Refusals: TypeAlias = "Mapping[Backend, Callable[[], str | None]]"
"""For each backend, the better first, what tells why it cannot do some work, or ``None``."""


def choose(asked: Backend | None, refusals: Refusals) -> Backend:
    """Return the backend that was asked for, else the first that can do the work.

    Why a better one was passed over is logged, once for each reason.

    Raises:
        BackendError: none can, or not the one that was asked for.
        ValueError: there is no such backend.
    """
    if asked is not None and asked not in refusals:
        message = f"there is no backend {asked!r}; there are {', '.join(refusals)}"
        raise ValueError(message)
    reasons: dict[str, str] = {}
    for name in refusals if asked is None else (asked,):
        reason = refusals[name]()
        if reason is None:
            return name
        reasons[name] = reason
        _tell(name, reason)
    raise BackendError(reasons)


def accepts() -> None:
    """Refuse nothing: torch does everything, and says itself what it cannot."""


@cache
def _tell(name: str, reason: str) -> None:
    _logger.info("%s is not used: %s", name, reason)


def triton_refuses(device: torch.device, *, asked: bool = False) -> str | None:
    """Return why Triton cannot run for tensors on a device, or ``None``.

    Args:
        device: where the tensors are.
        asked: whether Triton was asked for by name; only then its interpreter serves.
    """
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if device.type == "cuda":
        return _too_old(device)
    from rankloom_kernels.gpu.launch import is_interpreted

    if device.type == "cpu" and asked and is_interpreted():
        return None
    return f"the tensors are on {device.type}, and its kernels run on cuda"


@cache
def _too_old(device: torch.device) -> str | None:
    import torch

    if torch.version.hip:
        return "its kernels are checked for NVIDIA GPUs only"
    major, minor = torch.cuda.get_device_capability(device)
    if major >= 8:
        return None
    return f"its kernels need compute capability 8.0, the device has {major}.{minor}"
