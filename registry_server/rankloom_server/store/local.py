"""Blobs in a folder; over HTTP its URLs carry a signature of our own."""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

from rankloom.digest import CHUNK
from rankloom.errors import ForbiddenError, NotFoundError, UploadCorruptError
from rankloom.files import write_verified
from rankloom.registry.wire import PutTarget
from rankloom_server.store.interface import URL_SECONDS, blob_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
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

    def url(self, method: Literal["GET", "PUT"], digest: str, size: int = 0) -> str:
        """Return a URL that allows one method on one blob until it expires."""
        expires = int(time.time()) + self.seconds
        signature = self._signature(method, digest, size, expires)
        query = urlencode({"size": size, "expires": expires, "signature": signature})
        return f"{self.public_url.rstrip('/')}/{blob_key(digest)}?{query}"

    def check(self, method: str, digest: str, size: int, expires: int, signature: str) -> None:
        """Refuse what was not signed, or not for this.

        Raises:
            ForbiddenError: the signature is not ours, or its time is over.
        """
        genuine = self._signature(method, digest, size, expires)
        if not hmac.compare_digest(genuine.encode(), signature.encode()):
            message = f"the URL for {method} {digest} is not signed by this registry"
            raise ForbiddenError(message, hint="ask the registry for a fresh URL")
        if expires < time.time():
            message = f"the URL for {method} {digest} has expired"
            raise ForbiddenError(message, hint="ask the registry for a fresh URL")

    def _signature(self, method: str, digest: str, size: int, expires: int) -> str:
        text = f"{method}\n{digest}\n{size}\n{expires}"
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder of blobs; any number of processes may use it at the same time.

    Attributes:
        root: the folder that holds ``blobs/``.
        signer: makes ``http`` URLs for a server; without it URLs are ``file://``.
    """

    root: Path
    signer: UrlSigner | None = None

    def path(self, digest: str) -> Path:
        """Return where a blob is, or would be."""
        return self.root / blob_key(digest)

    def presign_put(self, digest: str, size: int) -> PutTarget:
        """Return a ``file://`` URL or one that the server's blob route accepts."""
        if self.signer is None:
            return PutTarget(digest=digest, url=self.path(digest).absolute().as_uri())
        headers = {"content-length": str(size)}
        return PutTarget(digest=digest, url=self.signer.url("PUT", digest, size), headers=headers)

    def presign_get(self, digest: str) -> str:
        """Return a ``file://`` URL or one that the server's blob route accepts."""
        if self.signer is None:
            return self.path(digest).absolute().as_uri()
        return self.signer.url("GET", digest)

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
