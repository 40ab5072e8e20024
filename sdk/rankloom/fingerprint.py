"""The identity of a base model, at levels of strength."""

from __future__ import annotations

from enum import StrEnum

from rankloom.message import Digest, Message


class Level(StrEnum):
    """How strongly two bases agree, strongest first.

    The last two are no sameness and are said by the validation of an adapter only. ``SUBSET``: the
    vocabulary has another size, the adapter changes nothing of it, all other tensors agree.
    ``DERIVED``: the base is a quantised copy; whatever it keeps as floats agrees.
    """

    EXACT = "exact"
    BF16 = "bf16"
    STRUCT = "struct"
    SUBSET = "compatible-subset"
    DERIVED = "derived-from"


class Fingerprint(Message):
    """The identity of a base at its levels; a level that was not computed is ``None``.

    Attributes:
        cfg: over the config fields that decide shapes.
        struct: over sorted names and shapes; only this level is known from headers alone.
        exact: Merkle root over names, dtypes, shapes and bytes.
        bf16: as ``exact`` with every value rounded to bfloat16, so that a lossless cast, and a
            float32 original beside its bfloat16 copy, agree.
    """

    cfg: Digest | None = None
    struct: Digest
    exact: Digest | None = None
    bf16: Digest | None = None

    def match(self, other: Fingerprint) -> Level | None:
        """Return the strongest level at which both agree; ``None`` means: another base.

        ``struct`` is returned only where one side has no value level: equal shapes with known,
        different values are another base.
        """
        if self.struct != other.struct:
            return None
        if self.exact is not None and self.exact == other.exact:
            return Level.EXACT
        if self.bf16 is not None and self.bf16 == other.bf16:
            return Level.BF16
        comparable = (self.exact and other.exact) or (self.bf16 and other.bf16)
        return None if comparable else Level.STRUCT
