"""Rule BASE003: whether a base is the one that an adapter was made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.base import canonical
from rankloom.finding import Finding, Severity
from rankloom.validate.content import named
from rankloom.validate.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.fingerprint import Fingerprint
    from rankloom.validate.fit import Placed

    Leaves = Mapping[str, str]


def differing(expected: Fingerprint, found: Fingerprint) -> Iterator[Finding]:
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


def is_subset(
    expected: Fingerprint, found: Fingerprint, placed: Placed, recorded: Leaves, leaves: Leaves
) -> bool:
    """Say whether two bases differ in the size of the vocabulary only, and the adapter not there.

    Args:
        expected: fingerprint of the recorded base.
        found: fingerprint of the base at hand.
        placed: the adapter's targets with their tensors in the base at hand.
        recorded: digests of the recorded base's tensors.
        leaves: digests of the tensors at hand.
    """
    # Of equal shapes the values differ: that is another embedding, not a longer one.
    if expected.match(found) is not None or expected.struct == found.struct:
        return False
    if not recorded or not leaves:
        return False
    names = canonical.names(sorted({piece.entry.name for _, piece in placed}))
    touched = any(map(canonical.is_vocabulary, names.values()))
    return not touched and all(map(canonical.is_vocabulary, _changed(recorded, leaves)))


def resized(recorded: Leaves, leaves: Leaves) -> Iterator[Finding]:
    """BASE003 as a note: what of the base is not as it was recorded."""
    changed = _changed(recorded, leaves)
    same = len(leaves.keys() - set(changed))
    message = (
        f"the base has a vocabulary of another size ({named(changed)}); all {same} other tensors "
        "are the recorded ones, and the adapter changes only those"
    )
    fix = "nothing, if the tokens that the adapter was trained with are still the same"
    yield Finding("BASE003", message, Severity.INFO, where=changed[0], fix=fix)


def _changed(recorded: Leaves, leaves: Leaves) -> list[str]:
    names = recorded.keys() | leaves.keys()
    return sorted(name for name in names if recorded.get(name) != leaves.get(name))
