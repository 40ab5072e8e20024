"""How often a transfer is tried again and how long it waits before: long enough, never for ever."""

from __future__ import annotations

import http.client
import random
from time import sleep
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from rankloom.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable

BROKEN: Final = (http.client.HTTPException, OSError)
"""What a broken connection raises, and :class:`BusyError`."""

LONGEST_PAUSE: Final = 30.0
"""Most seconds that a server's ``Retry-After`` is obeyed."""

_ATTEMPTS: Final = 5
_BROKEN_SECONDS: Final = 0.1
_BUSY_SECONDS: Final = 0.25

_BUSY: Final = frozenset([408, 429, 500, 502, 503, 504])
_CONFLICT: Final = 409
_WAITED_TOO_LONG: Final = "<Code>RequestTimeout</Code>"


class BusyError(http.client.HTTPException):
    """A store cannot serve now: as good as a broken connection, but it may say how long.

    Args:
        said: its answer.
        seconds: how long it asks to be left alone; ``None``: it does not say.
    """

    def __init__(self, said: str, seconds: float | None) -> None:
        super().__init__(f"it answered {said}")
        self.seconds = seconds


def check_busy(status: int, retry_after: str | None, text: str = "") -> None:
    """Refuse an answer that another attempt may better; ``text`` is the answer's body.

    S3 says 503 ``SlowDown``; 400 ``RequestTimeout`` to who sent nothing for a while; and 409 to
    one of two who write the same key at once, who then learns how the other has ended.

    Raises:
        BusyError: it is one.
    """
    if status in _BUSY or status == _CONFLICT or (status == 400 and _WAITED_TOO_LONG in text):
        said = f"{status} {text[:200]}".replace("\n", " ").rstrip()
        raise BusyError(said, asked_pause(retry_after))


def asked_pause(retry_after: str | None) -> float | None:
    """Return how many seconds a ``Retry-After`` asks to wait, within reason; ``None``: it is none.

    A date, the header's other form, is not understood: it needs two clocks that agree.
    """
    given = (retry_after or "").strip()
    return min(float(given), LONGEST_PAUSE) if given.isdecimal() else None


def persist(url: str, attempt: Callable[[], None], position: Callable[[], int] = lambda: 0) -> None:
    """Repeat a transfer that breaks; what advances may break as often as it likes.

    Raises:
        RegistryError: it broke several times at the same position.
    """
    failed, reached = 0, position()
    while True:
        try:
            attempt()
        except BROKEN as error:
            failed = failed + 1 if position() == reached else 1
            reached = position()
            if failed == _ATTEMPTS:
                raise _given_up(url, error) from error
            sleep(_pause(failed, error))
        else:
            return


def _pause(failed: int, error: Exception) -> float:
    """Return seconds to wait; by chance more or less, or all who were refused come back at once."""
    spread = random.uniform(1.0, 1.5)  # noqa: S311 - no secret
    if isinstance(error, BusyError):
        seconds = _BUSY_SECONDS * 2.0 ** (failed - 1) if error.seconds is None else error.seconds
        return min(seconds * spread, LONGEST_PAUSE)
    # The first time at once: the connection may just have been idle long.
    return _BROKEN_SECONDS * 2.0 ** (failed - 2) * spread if failed > 1 else 0.0


def _given_up(url: str, error: Exception) -> RegistryError:
    why = str(error) or type(error).__name__
    ails = "is busy" if isinstance(error, BusyError) else "cannot be reached"
    message = f"the store at {urlsplit(url).netloc} {ails}: {why}"
    hint = "check the network and try again; it goes on where it was"
    if isinstance(error, BusyError):
        hint = "try again later; it goes on where it was"
    return RegistryError(message, hint=hint)
