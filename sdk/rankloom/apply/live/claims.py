"""One handle for a model and its parts at a time: a second sum would be rounded twice."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from rankloom.errors import ConflictError

if TYPE_CHECKING:
    from torch import nn

_taken: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_lock = threading.Lock()


def claim(model: nn.Module) -> None:
    """Take a model and all its modules.

    Raises:
        ConflictError: a handle has one of them.
    """
    modules = list(model.modules())
    with _lock:
        if any(module in _taken for module in modules):
            message = f"another composition lies on this {type(model).__name__}"
            hint = "swap() its handle or restore() it first, or compose both into one"
            raise ConflictError(message, hint=hint)
        _taken.update(modules)


def release(model: nn.Module) -> None:
    """Give a model back."""
    with _lock:
        _taken.difference_update(list(model.modules()))
