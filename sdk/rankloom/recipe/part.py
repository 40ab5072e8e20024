"""One adapter that goes into a composition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankloom.adapter.reader import Adapter
    from rankloom.fingerprint import Fingerprint


@dataclass(frozen=True, slots=True)
class Part:
    """A resolved adapter.

    Attributes:
        adapter: the adapter's value; its factors stay in its files.
        digest: the digest of its version (of a folder: of the manifest it would have).
        label: how the caller named it, for messages and plans only: it decides no byte.
        base: identity of the base it was made for, if that was recorded.
        line: file and line of the recipe that names it, if one does.
    """

    adapter: Adapter
    digest: str
    label: str
    base: Fingerprint | None = None
    line: str = ""
