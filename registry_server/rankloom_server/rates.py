"""How many requests a client may send, and the headers that tell it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from rankloom.errors import RateLimitError

if TYPE_CHECKING:
    from starlette.types import Scope

Headers = list[tuple[bytes, bytes]]


class Rates:
    """Counts requests by client over a sliding minute, in this process.

    Args:
        per_minute: requests that one client may send; 0: as many as it likes.
    """

    def __init__(self, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def spend(self, client: str, scope: Scope) -> None:
        """Count one request; its answer tells what is left (RateLimit header fields of the IETF).

        Raises:
            RateLimitError: too many; the answer says when to try again.
        """
        if self._item is None:
            return
        allowed = self._limiter.hit(self._item, client)
        reset, left = self._limiter.get_window_stats(self._item, client)
        wait = max(1, math.ceil(reset - time.time()))
        headers: Headers = [
            (b"ratelimit-policy", b'"default";q=%d;w=60' % self._item.amount),
            (b"ratelimit", b'"default";r=%d;t=%d' % (left, wait)),
        ]
        if not allowed:
            headers.append((b"retry-after", b"%d" % wait))
        scope["state"]["rate_headers"] = headers
        if not allowed:
            message = f"more than {self._item.amount} requests in a minute"
            raise RateLimitError(message, hint=f"try again in {wait} s")
