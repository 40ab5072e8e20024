"""The public keys of an issuer: found where it says, and kept for an hour."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from rankloom.errors import RegistryError
from rankloom_server.oidc.issuer import check_address

if TYPE_CHECKING:
    from rankloom_server.oidc.issuer import Issuer

KEEP_SECONDS = 3600
PAUSE_SECONDS = 60
"""Least time between two questions to an issuer: anybody may show tokens with unknown keys."""

_MOST_BYTES = 1 << 20
_TIMEOUT = httpx.Timeout(5.0)
_PATIENCE_SECONDS = 15.0
"""For all that an issuer says together, however slowly it goes on saying it."""
_DISCOVERY = "/.well-known/openid-configuration"


class IssuerKeys:
    """The keys of one issuer; only addresses of the issuer itself are ever asked.

    Args:
        issuer: whose they are.
        http: the issuer may be on this machine, without TLS.
    """

    def __init__(self, issuer: Issuer, *, http: bool = False) -> None:
        self._url, self._http = issuer.url, http
        self._asking = threading.Lock()
        self._asked = float("-inf")
        self._kept: tuple[KeySet | None, float] = (None, self._asked)

    def get(self, kid: str | None) -> KeySet:
        """Return the keys, and if none is ``kid``, those that the issuer has by now.

        Only one caller at a time waits for the issuer, so that a slow one holds up nobody else.

        Raises:
            RegistryError: the issuer does not answer, or with something that is no key set, or is
                being asked for another caller.
        """
        if (known := self._known()) is not None and _has(known, kid):
            return known
        if not self._asking.acquire(blocking=False):
            raise self._silent("it is being asked for them just now")
        try:
            if time.monotonic() - self._asked >= PAUSE_SECONDS:
                self._asked = time.monotonic()
                self._kept = (self._fetch(), self._asked)
        finally:
            self._asking.release()
        if (known := self._known()) is None:
            raise self._silent("it did not answer a moment ago")
        return known

    def _known(self) -> KeySet | None:
        """Return the keys that were fetched not too long ago."""
        keys, fetched = self._kept
        return keys if time.monotonic() - fetched <= KEEP_SECONDS else None

    def _fetch(self) -> KeySet:
        end = time.monotonic() + _PATIENCE_SECONDS
        with httpx.Client(timeout=_TIMEOUT) as client:  # which follows no redirects
            found = self._read(client, self._url.rstrip("/") + _DISCOVERY, end)
            where = found.get("jwks_uri")
            if found.get("issuer") != self._url or not self._is_own(where):
                raise self._silent(f"{_DISCOVERY} is another's")
            listed = self._read(client, str(where), end).get("keys")
        usable = [key for key in listed or () if _is_usable(key)]
        try:
            return KeySet.import_key_set({"keys": usable})
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise self._silent(f"its keys cannot be read: {error}") from error

    def _is_own(self, url: object) -> bool:
        try:
            check_address(str(url), http=self._http)
        except ValueError:
            return False
        return urlsplit(str(url))[:2] == urlsplit(self._url)[:2]

    def _read(self, client: httpx.Client, url: str, end: float) -> dict[str, Any]:
        try:
            with client.stream("GET", url) as response:
                response.raise_for_status()
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > _MOST_BYTES:
                        raise self._silent(f"{url} has no end")
                    if time.monotonic() > end:
                        raise self._silent(f"{url} is too slow")
            found = json.loads(body)
        except (httpx.HTTPError, ValueError) as error:
            raise self._silent(str(error)) from error
        if not isinstance(found, dict):
            raise self._silent(f"{url} is no object")
        return found

    def _silent(self, why: str) -> RegistryError:
        message = f"the keys of {self._url} cannot be had: {why}"
        return RegistryError(
            message, hint="try again in a minute; the server must reach the issuer"
        )


def _has(keys: KeySet, kid: str | None) -> bool:
    return kid is None or any(key.kid == kid for key in keys)


def _is_usable(key: object) -> bool:
    """Say whether a key verifies signatures; a symmetric one has no business in a public list."""
    return isinstance(key, dict) and key.get("kty") in {"RSA", "EC"} and key.get("use") != "enc"
