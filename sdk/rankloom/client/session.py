"""What a client keeps open, and how it finds what refs and bases name."""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from rankloom import bases, config, ref
from rankloom.errors import (
    ConflictError,
    NotFoundError,
    OfflineError,
    RankloomWarning,
    RefError,
)
from rankloom.recipe.lines import at_line

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from rankloom.composition import Part
    from rankloom.registry.cache.folder import Cache
    from rankloom.registry.protocol import Registry
    from rankloom.registry.wire import (
        MintedToken,
        ResolvedVersion,
        SignedVersion,
    )

    Progress = Callable[[int, int], None]
    PathLike = str | os.PathLike[str]
    T = TypeVar("T")


class Session:
    """Which registry and which cache a client uses, opened by the first call that needs them."""

    def __init__(
        self, url: str | None = None, token: str | None = None, *, offline: bool | None = None
    ) -> None:
        self._url, self._token, self._offline = url, token, offline
        self._lock = threading.Lock()
        self._cache: Cache | None = None
        self._minted: dict[str, MintedToken] = {}
        self._minting = threading.Lock()
        self._opened: dict[config.Settings, Registry] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the registry; the next call opens it again."""
        with self._lock:
            for registry in self._opened.values():
                registry.close()
            if self._cache:
                self._cache.close()
            self._opened, self._cache = {}, None

    @property
    def settings(self) -> config.Settings:
        """Where this client keeps things and which registry it speaks to."""
        found = config.load()
        if self._url:
            found = replace(found, url=self._url, token=self._token)
        return found if self._offline is None else replace(found, offline=self._offline)

    @property
    def registry(self) -> Registry:
        """The registry itself, as :class:`rankloom.registry.protocol.Registry`.

        One that the settings name no longer stays open: other threads may be using it.
        """
        settings = self.settings
        with self._lock:
            if settings not in self._opened:
                self._opened[settings] = self._open(settings)
            return self._opened[settings]

    @property
    def cache(self) -> Cache:
        """What was pulled to this machine; what this client pulled stays there until it closes."""
        from rankloom.registry.cache.folder import Cache

        folder = self.settings.cache_dir
        with self._lock:
            if self._cache is None or self._cache.folder != folder:
                self._cache = Cache(folder)
            return self._cache

    def _open(self, settings: config.Settings) -> Registry:
        if settings.url is None:
            from rankloom.registry.embedded import open_registry

            return open_registry(settings.registry_dir)
        if settings.offline:
            from rankloom.registry.cache.resolved import Resolutions
            from rankloom.registry.offline import OfflineRegistry

            return OfflineRegistry(settings.url, Resolutions(settings.cache_dir, settings.url))
        from rankloom.registry.http import HttpRegistry

        return HttpRegistry(settings.url, settings.token or partial(self._job_token, settings.url))

    def _ask_as_a_job(self) -> None:
        """Get a token for the job of CI that this is, if none was given and there is none yet."""
        settings = self.settings
        if settings.url is None or settings.offline or settings.token:
            return
        from rankloom.registry import ambient

        with self._minting:
            if settings.url not in self._minted and ambient.is_job():
                self._minted[settings.url] = ambient.exchange(settings.url)

    def _job_token(self, url: str) -> str | None:
        """Return the token of the job that this is, a new one before the old one ends."""
        with self._minting:
            minted = self._minted.get(url)
            if minted is None:
                return None
            if not minted.is_fresh():
                from rankloom.registry import ambient

                if ambient.tells_again():
                    minted = self._minted[url] = ambient.exchange(url)
            return minted.token

    def _signed(self, name: str) -> SignedVersion:
        """Return the version that a ref names with its signatures."""
        from rankloom.registry import signatures

        return ask(name, version_ref(name), partial(signatures.look_up, self.registry))

    def resolve(self, name: str) -> ResolvedVersion:
        """Return the version that a ref names now, with its manifest.

        A yanked version is still resolved by its number or digest; a warning gives the reason.
        """
        resolved = self._resolve(name)
        warn_withdrawn(name, resolved)
        return resolved

    def _resolve(self, name: str, *, is_locked: bool = False) -> ResolvedVersion:
        parsed = version_ref(name)
        if is_locked:  # the digest will be compared, so no namesake can be taken for it
            parsed = replace(parsed, bare=False)
        return ask(name, parsed, self._look_up)

    def _look_up(self, asked: ref.VersionRef) -> ResolvedVersion:
        from rankloom.registry.cache.resolved import Resolutions, look_up

        settings = self.settings
        known = Resolutions(settings.cache_dir, settings.url)
        return look_up(self.registry, known, asked)

    def _base(
        self, base: PathLike, *, values: bool = True, progress: Progress | None = None
    ) -> bases.KnownBase:
        return bases.resolve(
            lambda: self.registry, self.settings, base, values=values, progress=progress
        )

    def _remote_base(self, address: PathLike) -> bases.KnownBase | None:
        if bases.is_remote(address) and self.settings.offline:
            message = f"the base {address} is on the network, and this is offline"
            raise OfflineError(message, hint="name its folder, or the name of a base")
        return bases.remote(address)

    def _pull(
        self, resolved: ResolvedVersion, output: Path | None, progress: Progress | None
    ) -> Path:
        from rankloom.registry.pull import pull

        return pull(self.registry, self.cache, resolved, output=output, progress=progress)

    def _part(self, item: PathLike, *, line: str = "", is_locked: bool = False) -> Part:
        """Read what a ref names; a complaint names the recipe's line that names it."""
        with at_line(line):
            return self._read_part(item, line, is_locked=is_locked)

    def _read_part(self, item: PathLike, line: str, *, is_locked: bool) -> Part:
        from rankloom.adapter.reader import read
        from rankloom.composition import Part
        from rankloom.registry.pack import pack

        where = ref.parse(item)
        if isinstance(where, Path):
            adapter = read(where)
            manifest = pack(adapter)
            return Part(adapter, manifest.digest, str(item), manifest.base, line)
        resolved = self._resolve(str(item), is_locked=is_locked)
        (warn_withdrawn if is_locked else _refuse_yanked)(str(item), resolved)
        adapter = read(self._pull(resolved, None, None))
        manifest = resolved.manifest
        return Part(adapter, manifest.digest, str(item), manifest.base, line)


def version_ref(name: str) -> ref.VersionRef:
    """Return a name as a ref to a version; RefError if it means a folder."""
    parsed = ref.parse(name)
    if isinstance(parsed, Path):
        message = f"{name!r} is a folder, not a version in the registry"
        raise RefError(message, hint="give a name such as zh-lang, zh-lang@v3 or zh-lang:prod")
    return parsed


def ask(name: str, parsed: ref.VersionRef, question: Callable[[ref.VersionRef], T]) -> T:
    """Return what the registry knows of a ref; if that is nothing, a folder may have been meant."""
    try:
        return question(parsed)
    except NotFoundError as error:
        if Path(name).is_dir():
            error.hint = f"for the folder of that name write ./{name}"
        raise


def warn_withdrawn(name: str, resolved: ResolvedVersion) -> None:
    """Warn if a version is deprecated or yanked, with the reason."""
    if resolved.version.deprecated is not None:
        message = f"{name} is deprecated: {resolved.version.deprecated}"
        warnings.warn(RankloomWarning(message), stacklevel=3)
    if resolved.version.yanked is not None:
        reason = resolved.version.yanked or "no reason given"
        warnings.warn(RankloomWarning(f"{name} was yanked: {reason}"), stacklevel=3)


def _refuse_yanked(name: str, resolved: ResolvedVersion) -> None:
    """Let nothing new be made of a version that was withdrawn; a lock still makes it again."""
    if resolved.version.yanked is not None:
        reason = resolved.version.yanked or "no reason given"
        message = f"MRG010 {name} was yanked: {reason}"
        hint = "name another version; what was composed of it before is made again with --locked"
        raise ConflictError(message, hint=hint)
