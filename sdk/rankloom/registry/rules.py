"""Rules of transfers, names and versions, with their reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.finding import Severity
from rankloom.validate.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

_E = Severity.ERROR

_ALL = (
    Rule(
        "REG001",
        _E,
        "What is uploaded is what was declared",
        "A version is named by the digests of its files. Bytes that are others, in another order, "
        "too few or too many do not enter the store, and nothing is published.",
        "Push again; if the file was written to during the push, wait until that is over.",
    ),
    Rule(
        "REG002",
        _E,
        "What is read is what was recorded",
        "A disk, a network or somebody in between changed the bytes. Nothing of them is kept, and "
        "no folder appears.",
        "Repeat it; if it stays so, the store is damaged: 'loractl admin fsck' says where.",
    ),
    Rule(
        "REG003",
        _E,
        "Names are short and plain",
        "Names become folders and addresses. Letters that look alike, '..', or names that a file "
        "system takes for others would lead somewhere else.",
        "Use 1 to 96 of a-z, 0-9, '.', '_' and '-', with a letter or digit at both ends.",
    ),
    Rule(
        "REG004",
        _E,
        "A semantic version is one content's for ever",
        "Who pulled 1.2.0 must get the same when pulling it again, and two versions cannot be "
        "told apart by a name that both have.",
        "Push the new content as the next semantic version.",
    ),
    Rule(
        "REG005",
        _E,
        "A name without a namespace is one adapter's only",
        "Who takes a known name in another namespace must not be taken for the one that was "
        "meant. Only namespaces count that the reader may read; a digest means the same bytes "
        "everywhere.",
        "Write the namespace too: default/zh-lang, acme/zh-lang.",
    ),
    Rule(
        "REG006",
        _E,
        "An output overwrites nothing",
        "What lies there may be the only copy.",
        "Name another output, or remove it first.",
    ),
    Rule(
        "SEC007",
        _E,
        "A version is signed where that is asked for",
        "A digest says that bytes are the ones that were named, not who vouches for them. Where a "
        "namespace names its signers, or a pull or 'loractl verify' names one, every file of the "
        "version, its base and its lineage must be under a signature by one of them.",
        "Sign the version with 'loractl sign', or ask who published it to do so.",
    ),
)

RULES: Mapping[str, Rule] = {rule.id: rule for rule in _ALL}
"""By id. They are kept wherever bytes move; none is left out by an option."""
