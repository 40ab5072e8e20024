"""Where a blob is fetched from: a URL that is good for a while, and who gives out the next."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Address:
    """The URL of one blob; threads that find it refused ask for the next one once, together.

    Args:
        url: the URL that is known.
        renew: gives a fresh one; ``None``: nobody does.
    """

    def __init__(self, url: str, renew: Callable[[], str] | None = None) -> None:
        self.url = url
        self._renew = renew
        self._lock = threading.Lock()

    def is_renewed(self, refused: str) -> bool:
        """Say whether there is another URL than ``refused``; ask for one if there is not yet."""
        with self._lock:
            if self.url == refused and self._renew is not None:
                self.url = self._renew()
            return self.url != refused
