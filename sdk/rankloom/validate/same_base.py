"""Rule BASE003: whether a base is the one that an adapter was made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.base import canonical, quantised
from rankloom.finding import Finding, Severity
from rankloom.fingerprint import Level
from rankloom.validate.content import named
from rankloom.validate.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.base.model import Base
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


def related(
    expected: Fingerprint | None,
    found: Fingerprint | None,
    placed: Placed,
    base: Base | None,
    leaves: tuple[Leaves, Leaves] | None,
) -> tuple[Level, Iterator[Finding]] | None:
    """Return how another base than the recorded one comes from it, and what is to be said of it.

    Args:
        expected: fingerprint of the recorded base.
        found: fingerprint of the base at hand.
        placed: the adapter's targets with their tensors in the base at hand.
        base: the base at hand.
        leaves: digests of the tensors of the two.

    Returns:
        ``None`` if they are one base, have nothing to do with each other, or nobody can tell.
    """
    if expected is None or found is None or base is None or leaves is None:
        return None
    if expected.match(found) is not None or not all(leaves):
        return None
    if is_subset(expected, found, placed, *leaves):
        return Level.SUBSET, resized(*leaves)
    if is_derived(expected, found, base, *leaves):
        return Level.DERIVED, copied(base, *leaves)
    return None


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
    if expected.struct == found.struct:
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


def is_derived(
    expected: Fingerprint, found: Fingerprint, base: Base, recorded: Leaves, leaves: Leaves
) -> bool:
    """Say whether a base is a quantised copy of the recorded one, as far as can be seen.

    The configs agree in all that decides shapes; every recorded tensor is here as it was, or in
    codes; and some are here as they were.
    """
    if quantised.method(base.config) is None or None in {expected.cfg, found.cfg}:
        return False
    names = {new: old for old, new in canonical.names(base.tensors).items()}
    same = [name for name in recorded if recorded[name] == leaves.get(name)]
    others = (names.get(name, name) for name in recorded.keys() - set(same))
    return bool(
        expected.cfg == found.cfg
        and same
        and all(quantised.in_codes(base, name) for name in others)
    )


def copied(base: Base, recorded: Leaves, leaves: Leaves) -> Iterator[Finding]:
    """BASE003 as a warning: what the base was made from, and what cannot be compared."""
    same = sum(recorded[name] == leaves.get(name) for name in recorded)
    message = (
        f"the base is a copy of the recorded one, quantised by {quantised.method(base.config)}: "
        f"{same} of {len(recorded)} tensors are as recorded, the others are kept in codes"
    )
    fix = "serve over it if its quality is enough; compose and apply on the base itself"
    yield Finding("BASE003", message, Severity.WARNING, where="quantization_config", fix=fix)


def _changed(recorded: Leaves, leaves: Leaves) -> list[str]:
    names = recorded.keys() | leaves.keys()
    return sorted(name for name in names if recorded.get(name) != leaves.get(name))
