"""What registries said that refs mean: read only offline, and never taken for news."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import ValidationError

from rankloom import semantic
from rankloom.errors import DiskError, NotFoundError, RankloomWarning
from rankloom.files import write_atomic
from rankloom.message import Message
from rankloom.registry.answer import checked
from rankloom.registry.wire import ResolvedVersion

if TYPE_CHECKING:
    from collections.abc import Iterator, Set
    from pathlib import Path

    from rankloom.ref import AdapterName, VersionRef
    from rankloom.registry.protocol import Registry
    from rankloom.registry.wire import Version


class Resolution(Message):
    """That a registry once said which version a ref names.

    Attributes:
        registry: its address; ``embedded`` for the one in this machine.
        ref: what was asked.
        alias: the alias in it, if it was one.
        at: when.
        answer: what it said.
    """

    registry: str
    ref: str
    alias: str | None
    at: datetime
    answer: ResolvedVersion


class RecalledVersion(ResolvedVersion):
    """A version as the registry described it at a time; nobody has asked since.

    Attributes:
        as_of: that time.
    """

    as_of: datetime


class Resolutions:
    """The resolutions of one registry.

    Args:
        cache: the cache folder.
        url: the registry's address; ``None`` for the embedded one.
    """

    def __init__(self, cache: Path, url: str | None) -> None:
        self._cache = cache
        self._registry = "embedded" if url is None else _public(url)

    def keep(self, ref: VersionRef, answer: ResolvedVersion) -> None:
        """Keep what the registry just said; a full disk does not matter."""
        said = Resolution(
            registry=self._registry,
            ref=str(ref),
            alias=ref.alias,
            at=datetime.now(UTC),
            answer=answer,
        )
        with contextlib.suppress(DiskError):
            write_atomic(self._place(ref), said.model_dump_json(by_alias=True).encode())

    def forget(self, ref: VersionRef) -> None:
        """Drop what the registry says is not so any more."""
        with contextlib.suppress(OSError):
            self._place(ref).unlink(missing_ok=True)

    def recall(self, ref: VersionRef) -> RecalledVersion | None:
        """Return the last that is known of a ref.

        A number, a semantic version or a digest never changes what it names, so whatever was asked
        then will do; a digest means the same bytes in any registry, and under any name.
        """
        if ref.digest is not None:
            found = [one for one in kept(self._cache) if one.answer.version.digest == ref.digest]
        elif _is_movable(ref):
            said = _read(self._place(ref))
            found = [said] if said is not None and said.ref == str(ref) else []
        else:
            known = _read_all(self._folder(ref.adapter))
            found = [one for one in known if _names(ref, one.answer.version)]
        last = max(found, key=lambda one: one.at, default=None)
        if last is None:
            return None
        return RecalledVersion(**dict(last.answer), as_of=last.at)

    def _folder(self, adapter: AdapterName) -> Path:
        key = hashlib.sha256(self._registry.encode()).hexdigest()[:16]
        return _root(self._cache) / key / adapter.namespace / adapter.name

    def _place(self, ref: VersionRef) -> Path:
        if ref.digest is not None:
            name = ref.digest.replace(":", "-")
        elif ref.semver is not None:
            name = f"semver-{ref.semver}"
        else:
            name = f"number-{ref.number}" if ref.number else f"alias-{ref.alias}"
        return self._folder(ref.adapter) / f"{name}.json"


def look_up(registry: Registry, known: Resolutions, ref: VersionRef) -> ResolvedVersion:
    """Resolve a ref, and keep the answer for when the registry must not be asked.

    If it must not be asked now, a warning says how old the answer is, if it may be another by now.

    Raises:
        IntegrityError: the answer is another version than it says, or than the ref names by its
            digest; nothing of it is kept.
        NotFoundError: the registry knows no such version; what was kept of it is dropped.
    """
    try:
        answer = checked(ref, registry.resolve(ref))
    except NotFoundError:
        known.forget(ref)
        raise
    if not isinstance(answer, RecalledVersion):
        known.keep(ref, answer)
    elif _is_movable(ref):
        message = f"{ref} may name another version by now: this is offline, and shows what it"
        message += f" named at {answer.as_of:%Y-%m-%d %H:%M:%S} UTC, {answer.version.pinned}"
        warnings.warn(RankloomWarning(message), stacklevel=3)
    return answer


def kept(cache: Path) -> Iterator[Resolution]:
    """Yield what is known of all registries."""
    yield from _read_all(_root(cache), "*/*/*/*.json")


def forget(cache: Path, digests: Set[str]) -> None:
    """Drop whatever names versions that were removed from the cache."""
    for path in _root(cache).glob("*/*/*/*.json"):
        said = _read(path)
        if said is None or said.answer.version.digest in digests:
            path.unlink(missing_ok=True)


def _is_movable(ref: VersionRef) -> bool:
    """Say whether a ref may name another version later: an alias, or the highest of a range."""
    return ref.alias is not None or (ref.semver is not None and semantic.is_range(ref.semver))


def _names(ref: VersionRef, version: Version) -> bool:
    """Say whether a version has the number or the semantic version of a ref."""
    if ref.number is not None:
        return version.number == ref.number
    return version.semver is not None and version.semver == ref.semver


def _read_all(folder: Path, pattern: str = "*.json") -> Iterator[Resolution]:
    for path in sorted(folder.glob(pattern)):
        said = _read(path)
        if said is not None:
            yield said


def _read(path: Path) -> Resolution | None:
    """Return what a file says; one that is broken says nothing."""
    try:
        return Resolution.model_validate_json(path.read_bytes())
    except (ValidationError, OSError):
        return None


def _public(url: str) -> str:
    """Return an address without the password that it may hold."""
    place = urlsplit(url.rstrip("/"))
    return place._replace(netloc=place.netloc.rpartition("@")[2]).geturl()


def _root(cache: Path) -> Path:
    return cache / "resolved"
