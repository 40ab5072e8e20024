"""Blobs in a folder; over HTTP its URLs carry a signature of our own."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

from rankloom.digest import CHUNK
from rankloom.errors import (
    DiskError,
    ForbiddenError,
    NotFoundError,
    RegistryError,
    UploadCorruptError,
)
from rankloom.files import PART, write_verified
from rankloom.ref import DEFAULT_NAMESPACE
from rankloom.registry.wire import PartTarget, PutTarget
from rankloom_server.store.interface import (
    PARTING,
    URL_SECONDS,
    Assembly,
    Parting,
    StoredBlob,
    blob_key,
    parse_key,
    part_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class UrlSigner:
    """Signs and checks the URLs of blobs.

    Attributes:
        key: secret bytes; whoever has them can read and write any blob.
        public_url: scheme and host in front of the URLs; without it they begin with ``/`` and are
            completed by the request that they answer.
        seconds: how long a URL is good for.
    """

    key: bytes
    public_url: str = ""
    seconds: int = URL_SECONDS

    def url(self, method: Literal["GET", "PUT"], key: str, size: int = 0) -> str:
        """Return a URL that allows one method on a blob or part, by its key, until it expires."""
        expires = int(time.time()) + self.seconds
        signature = self._signature(method, key, size, expires)
        query = urlencode({"size": size, "expires": expires, "signature": signature})
        return f"{self.public_url.rstrip('/')}/{key}?{query}"

    def check(self, method: str, key: str, size: int, expires: int, signature: str) -> None:
        """Refuse what was not signed, or not for this.

        Raises:
            ForbiddenError: the signature is not ours, or its time is over.
        """
        genuine = self._signature(method, key, size, expires)
        if not hmac.compare_digest(genuine.encode(), signature.encode()):
            message = f"the URL for {method} {key} is not signed by this registry"
            raise ForbiddenError(message, hint="ask the registry for a fresh URL")
        if expires < time.time():
            message = f"the URL for {method} {key} has expired"
            raise ForbiddenError(message, hint="ask the registry for a fresh URL")

    def _signature(self, method: str, key: str, size: int, expires: int) -> str:
        text = f"{method}\n{key}\n{size}\n{expires}"
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder of blobs; any number of processes may use it at the same time.

    Attributes:
        root: the folder that holds ``blobs/``, and ``parts/`` of blobs that are not complete.
        signer: makes ``http`` URLs for a server; without it URLs are ``file://``.
        namespace: whose blobs it gives and takes.
        parting: which blobs come in parts over HTTP; from folder to folder all go whole.
    """

    root: Path
    signer: UrlSigner | None = None
    namespace: str = DEFAULT_NAMESPACE
    parting: Parting = PARTING

    def inside(self, namespace: str) -> LocalStore:
        """Return the store of another namespace in the same folder."""
        return dataclasses.replace(self, namespace=namespace)

    def list_all(self) -> Iterator[StoredBlob]:
        """Walk the folder."""
        for path in self.root.glob("blobs/*/sha256/*/*"):
            known = parse_key(path.relative_to(self.root).as_posix())
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                if known:
                    yield StoredBlob(*known, path.stat().st_size)

    def sweep(self, before: datetime) -> int:
        """Remove the unfinished files of transfers that broke."""
        removed = 0
        for path in self.root.glob(f"blobs/*/sha256/*/{PART}*"):
            with contextlib.suppress(FileNotFoundError):  # it was finished, or swept by another
                if path.stat().st_mtime < before.timestamp():
                    path.unlink()
                    removed += 1
        return removed

    def path(self, digest: str) -> Path:
        """Return where a blob is, or would be."""
        return self.root / self._key(digest)

    def _key(self, digest: str) -> str:
        return blob_key(self.namespace, digest)

    def presign_put(self, digest: str, size: int, *, replace: bool = False) -> PutTarget:
        """Return a ``file://`` URL or one that the server's blob route accepts."""
        del replace  # a file gives way in any case, for what comes in its place was hashed
        if self.signer is None:
            return PutTarget(digest=digest, url=self.path(digest).absolute().as_uri())
        headers = {"content-length": str(size)}
        return PutTarget(
            digest=digest, url=self.signer.url("PUT", self._key(digest), size), headers=headers
        )

    def part_bytes(self, size: int) -> int | None:
        """Say how large parts are, if a blob of this size comes in parts."""
        return self.parting.of(size) if self.signer else None

    def assemble(
        self, digest: str, size: int, parts: Sequence[str], *, replace: bool = False
    ) -> tuple[PartTarget, ...]:
        """Look for the parts' files; with all of them there, write the blob from them."""
        del replace  # as for whole blobs
        files = [self._part(digest, part) for part in parts]
        missing = tuple(
            self._part_target(digest, size, number, part)
            for number, (part, file) in enumerate(zip(parts, files, strict=True), 1)
            if not file.is_file()
        )
        if not missing:
            self._join(digest, size, files)
        return missing

    def _join(self, digest: str, size: int, files: Sequence[Path]) -> None:
        try:
            self.put(digest, size, _joined(files))
        except FileNotFoundError as error:  # another process put it together, or abandoned it
            if self.size(digest) != size:
                message = f"parts of blob {digest} were removed while they were joined"
                raise RegistryError(message, hint="push again, the parts are sent anew") from error
        self._remove(self.namespace, digest)

    def _part_target(self, digest: str, size: int, number: int, part: str) -> PartTarget:
        if self.signer is None:
            message = "between folders of one machine blobs go whole"
            raise ValueError(message)
        length = min(self.parting.size, size - (number - 1) * self.parting.size)
        url = self.signer.url("PUT", part_key(self.namespace, digest, part), length)
        return PartTarget(number=number, url=url, headers={"content-length": str(length)})

    def put_part(self, digest: str, part: str, size: int, chunks: Iterable[bytes]) -> None:
        """Keep one part of a blob, if its bytes are those of its digest.

        Raises:
            NotFoundError: the blob was put together or given up meanwhile.
            UploadCorruptError: they are others; nothing is kept.
        """
        target = self._part(digest, part)
        try:
            write_verified(chunks, target, digest=part, size=size, error=UploadCorruptError)
        except DiskError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            message = f"nobody waits for parts of blob {digest} any more"
            raise NotFoundError(message, hint="ask the registry which are missing") from error

    def _part(self, digest: str, part: str) -> Path:
        return self.root / part_key(self.namespace, digest, part)

    def assemblies(self) -> Iterator[Assembly]:
        """Walk the folders of parts; each is as old as its youngest part."""
        for path in self.root.glob("parts/*/sha256/*/*"):
            known = parse_key(path.relative_to(self.root).as_posix(), "parts")
            with contextlib.suppress(FileNotFoundError):  # put together meanwhile
                if known:
                    since = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                    yield Assembly(*known, path.name, since)

    def abandon(self, assembly: Assembly) -> None:
        """Remove a folder of parts."""
        self._remove(assembly.namespace, assembly.digest)

    def _remove(self, namespace: str, digest: str) -> None:
        shutil.rmtree(self.root / blob_key(namespace, digest, "parts"), ignore_errors=True)

    def presign_get(self, digest: str) -> str:
        """Return a ``file://`` URL or one that the server's blob route accepts."""
        if self.signer is None:
            return self.path(digest).absolute().as_uri()
        return self.signer.url("GET", self._key(digest))

    def size(self, digest: str) -> int | None:
        """Return the size of the blob's file."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, digest: str) -> Iterator[bytes]:
        """Yield the bytes of the blob's file."""
        try:
            stream = self.path(digest).open("rb")
        except FileNotFoundError as error:
            message = f"blob {digest} is not in the store"
            raise NotFoundError(message, hint="push the adapter again") from error
        with stream:
            while chunk := stream.read(CHUNK):
                yield chunk

    def put(self, digest: str, size: int, chunks: Iterable[bytes]) -> None:
        """Write the blob under another name, check it, then rename it."""
        path = self.path(digest)
        write_verified(chunks, path, digest=digest, size=size, error=UploadCorruptError)

    def delete(self, digest: str) -> None:
        """Remove the blob's file."""
        self.path(digest).unlink(missing_ok=True)

    def file(self, digest: str) -> Path | None:
        """Return the blob's file."""
        path = self.path(digest)
        return path if path.is_file() else None


def _joined(files: Iterable[Path]) -> Iterator[bytes]:
    """Yield the bytes of files, one file after another."""
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                yield chunk
