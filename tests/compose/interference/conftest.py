from __future__ import annotations

from factor_cases import one_thread

__all__ = ["one_thread"]
