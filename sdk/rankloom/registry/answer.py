"""What a registry answers to a ref, checked by what the answer itself can prove."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from rankloom.errors import IntegrityError

if TYPE_CHECKING:
    from rankloom.ref import VersionRef
    from rankloom.registry.wire import ResolvedVersion

    V = TypeVar("V", bound=ResolvedVersion)


def checked(asked: VersionRef, found: V) -> V:
    """Return an answer whose manifest is that of its version, and of the digest in the ref.

    Raises:
        IntegrityError: (REG002) it is another's.
    """
    digest = found.manifest.digest
    if digest != found.version.digest or asked.digest not in {None, digest}:
        message = f"REG002 the registry gave the manifest of {digest} for {asked}"
        raise IntegrityError(
            message,
            hint="if the registry is newer than this rankloom, upgrade; else tell who runs it",
        )
    return found
