"""Rules of an adapter and a base together, from headers and fingerprints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.base.locate import locate, nearest
from rankloom.errors import BaseError
from rankloom.tensorfile.values import FLOATS
from rankloom.validate.content import named
from rankloom.validate.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.adapter.change import Target
    from rankloom.adapter.reader import Adapter
    from rankloom.base.model import Base, BaseTensor
    from rankloom.finding import Finding
    from rankloom.fingerprint import Fingerprint

Placed = list[tuple["Target", "BaseTensor"]]


def place(adapter: Adapter, base: Base) -> tuple[Placed, list[Finding]]:
    """Find every target's tensor in the base; TEN005 for those that have none."""
    placed: Placed = []
    lost: list[str] = []
    try:
        for target in adapter.targets:
            if tensor := locate(base, target):
                placed.append((target, tensor))
            else:
                lost.append(target.name)
    except BaseError as error:
        return [], [RULES["BASE007"].finding(error.message, fix=error.hint)]
    return placed, [_lost(base, lost)] if lost else []


def _lost(base: Base, lost: list[str]) -> Finding:
    near = nearest(base, lost[0])
    hint = f"; nearest to the first: {', '.join(near)}" if near else ""
    message = f"the base has no tensor for {len(lost)} targets: {named(lost)}{hint}"
    return RULES["TEN005"].finding(message, where=lost[0])


def shapes(placed: Placed) -> Iterator[Finding]:
    """BASE002: the delta has the shape of the base tensor."""
    for target, tensor in placed:
        expected = target.change.shape
        stored = tensor.entry.shape
        found = stored[::-1] if tensor.transposed else stored
        if tensor.entry.dtype in FLOATS and found != expected:
            kind = " (stored transposed)" if tensor.transposed else ""
            message = f"{target.name} changes {list(expected)}, the base has {list(stored)}{kind}"
            yield RULES["BASE002"].finding(message, where=target.name)


def quantised(placed: Placed) -> Iterator[Finding]:
    """BASE006: the changed tensors hold floats that can be added to."""
    found = [(t.name, tensor.entry.dtype) for t, tensor in placed]
    if bad := [(name, dtype) for name, dtype in found if dtype not in FLOATS]:
        names = named([name for name, _ in bad])
        message = f"the base stores {names} as {bad[0][1]}: it is quantised"
        yield RULES["BASE006"].finding(message, where=bad[0][0])


def same_base(expected: Fingerprint, found: Fingerprint) -> Iterator[Finding]:
    """BASE003: the base is the recorded one at some level."""
    if expected.match(found) is not None:
        return
    if expected.struct == found.struct:
        what = "names and shapes agree, the values differ"
    else:
        what = "its names and shapes differ"
    digests = f"recorded {_short(expected)}, found {_short(found)}"
    yield RULES["BASE003"].finding(f"this is not the recorded base: {what} ({digests})")


def _short(fingerprint: Fingerprint) -> str:
    return (fingerprint.exact or fingerprint.struct)[:19]
