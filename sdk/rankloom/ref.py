"""Refs: the text by which people name a version of an adapter, or a folder.

==========================  ==========================================================
``zh-lang``                 alias ``latest`` of an adapter in the default namespace
``acme/zh-lang``            the same in namespace ``acme``
``zh-lang@v3``              the third version
``zh-lang@sha256:…``        the version with that digest
``zh-lang@1.2.0``           the version that was pushed as semantic version 1.2.0
``zh-lang@^1.2``            the highest one from 1.2.0 to below 2.0.0 (``~1.2``: below 1.3.0)
``zh-lang:prod``            the version that the alias ``prod`` names now
``./out``, ``/a``, ``~/a``, ``out/``   a folder
==========================  ==========================================================

A name without a namespace is refused where several namespaces that the reader sees have it: whoever
takes a known name in another namespace must not be taken for the one that was meant (REG005).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom import digest
from rankloom.errors import RefError

if TYPE_CHECKING:
    import os

DEFAULT_NAMESPACE = "default"
LATEST = "latest"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,94}[a-z0-9])?", re.ASCII)
_SEMANTIC = frozenset("0123456789^~")
_NUMBER = re.compile(r"v([1-9][0-9]{0,8})", re.ASCII)
# Windows refuses these as file names whatever their suffix; a pull must work there too.
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))]
)


def is_reserved(file: str) -> bool:
    """Say whether Windows takes a file's name for one of its devices."""
    return file.partition(".")[0].casefold() in _RESERVED


def is_name(text: str) -> bool:
    """Say whether ``text`` may name a namespace, an adapter, an alias or a base."""
    return bool(_NAME.fullmatch(text)) and ".." not in text and not is_reserved(text)


def check_name(text: str, what: str = "name") -> str:
    """Return ``text`` if it may name a namespace, an adapter, an alias or a base.

    Raises:
        RefError: it is empty, too long, or has other characters than ``a-z 0-9 . _ -``.
    """
    if not is_name(text):
        message = f"REG003 {text[:80]!r} is not a valid {what}"
        hint = "use 1 to 96 of a-z, 0-9, '.', '_' and '-', with a letter or digit at both ends"
        raise RefError(message, hint=hint)
    return text


@dataclass(frozen=True, slots=True, order=True)
class AdapterName:
    """A namespace and a name in it."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return self.name if self.namespace == DEFAULT_NAMESPACE else f"{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> AdapterName:
        """Read ``name`` or ``namespace/name``.

        Raises:
            RefError: the text is neither.
        """
        namespace, slash, name = text.rpartition("/")
        namespace = namespace if slash else DEFAULT_NAMESPACE
        return cls(check_name(namespace, "namespace"), check_name(name, "adapter name"))


@dataclass(frozen=True, slots=True)
class VersionRef:
    """A ref that the registry resolves; one of alias, number, digest and semver is set.

    Attributes:
        adapter: whose version it is.
        alias: a movable name of it.
        number: its number.
        digest: its digest.
        semver: its semantic version, or a range of which the highest is meant.
        bare: the text named no namespace, so who wrote it may have meant another than the default
            one; never so with a digest, which means the same bytes everywhere.
    """

    adapter: AdapterName
    alias: str | None = None
    number: int | None = None
    digest: str | None = None
    semver: str | None = None
    bare: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        if self.digest is not None:
            return f"{self.adapter}@{self.digest}"
        if self.semver is not None:
            return f"{self.adapter}@{self.semver}"
        return f"{self.adapter}@v{self.number}" if self.number else f"{self.adapter}:{self.alias}"


Ref = VersionRef | Path


def parse(ref: str | os.PathLike[str]) -> Ref:
    """Read a ref.

    A text is a folder only if it begins with ``.``, ``/`` or ``~`` or ends in ``/``: a folder in
    the working directory never shadows a name of the registry.

    Raises:
        RefError: the ref is malformed.
    """
    if "\0" in str(ref):  # no file system has such a name; Python's own functions raise ValueError
        message = f"{str(ref)[:80]!r} holds a null character"
        raise RefError(message, hint="check where the text comes from")
    if not isinstance(ref, str):
        return Path(ref)
    if ref.startswith((".", "/", "~")) or ref.endswith("/"):
        return _folder(ref)
    return _parse_version(ref)


def _folder(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # the home of a user who does not exist
        message = f"{text[:80]!r} is not a folder: {error}"
        raise RefError(message, hint="write ./ before a folder whose name begins with ~") from error


def _parse_version(text: str) -> VersionRef:
    name, at, version = text.partition("@")
    if at:
        adapter, bare = AdapterName.parse(name), "/" not in name
        if matched := _NUMBER.fullmatch(version):
            return VersionRef(adapter, number=int(matched[1]), bare=bare)
        if version.startswith("sha256:"):
            return VersionRef(adapter, digest=digest.parse(version))
        if version[:1] in _SEMANTIC:
            from rankloom import semantic

            return VersionRef(adapter, semver=semantic.check_wanted(version), bare=bare)
        message = f"{version[:80]!r} in {text[:120]!r} is not a version"
        hint = "write NAME@v3, NAME@1.2.0, NAME@sha256:… or, for an alias, NAME:prod"
        raise RefError(message, hint=hint)
    name, colon, alias = text.partition(":")
    named = check_name(alias, "alias") if colon else LATEST
    return VersionRef(AdapterName.parse(name), alias=named, bare="/" not in name)
