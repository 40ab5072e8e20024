"""Says in words what a search for weights found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.tune.bootstrap import shown

if TYPE_CHECKING:
    from rankloom.tune.tuned import Tuned


def verdict(tuned: Tuned) -> str:
    """Return the result in words: found or not on the dev set, and what held-out examples say."""
    rival = f"{tuned.name(tuned.rival)}, {shown(tuned.rival.score.value)}"
    if tuned.best is None:
        return f"Not found: no composition of all adapters was tried; the best is {rival}."
    best = f"{tuned.name(tuned.best)}, {shown(tuned.best.score.value)}"
    if tuned.found:
        return (
            f"Found on the dev set: {best}. The best without all adapters: {rival}.{_sure(tuned)}"
        )
    return (
        "Not found: no composition of all adapters beats the best without all of them on the dev"
        f" set: {rival}. The best composition: {best}."
    )


def _sure(tuned: Tuned) -> str:
    if tuned.best is None or not tuned.held_out:
        return ""
    found, difference = tuned.held_out, tuned.advantage
    if difference is None:
        scores = [shown(found[one.number].value) for one in (tuned.best, tuned.rival)]
        return f" On held-out examples they score {scores[0]} and {scores[1]}."
    says = f" On held-out examples the difference is {difference}: "
    if difference.low > 0:
        return says + "it is better there, too."
    if difference.high < 0:
        return says + "it is worse there; the dev set misled the search."
    return says + "these examples cannot tell which is better."
