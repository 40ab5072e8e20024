from __future__ import annotations

from poison import poisoned_empty

__all__ = ["poisoned_empty"]
