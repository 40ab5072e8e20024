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
_DISCOVERY = "/.well-known/openid-configuration"


class IssuerKeys:
    """The keys of one issuer; only addresses of the issuer itself are ever asked.

    Args:
        issuer: whose they are.
        http: the issuer may be on this machine, without TLS.
    """

    def __init__(self, issuer: Issuer, *, http: bool = False) -> None:
        self._url, self._http = issuer.url, http
        self._lock = threading.Lock()
        self._keys: KeySet | None = None
        self._fetched = self._asked = float("-inf")

    def get(self, kid: str | None) -> KeySet:
        """Return the keys, and if none is ``kid``, those that the issuer has by now.

        Raises:
            RegistryError: the issuer does not answer, or with something that is no key set.
        """
        with self._lock:
            if not self._is_good_for(kid) and time.monotonic() - self._asked >= PAUSE_SECONDS:
                self._asked = time.monotonic()
                self._keys = self._fetch()
                self._fetched = self._asked
            if self._keys is None or time.monotonic() - self._fetched > KEEP_SECONDS:
                raise self._silent("it did not answer a moment ago")
            return self._keys

    def _is_good_for(self, kid: str | None) -> bool:
        if self._keys is None or time.monotonic() - self._fetched > KEEP_SECONDS:
            return False
        return kid is None or any(key.kid == kid for key in self._keys)

    def _fetch(self) -> KeySet:
        with httpx.Client(timeout=_TIMEOUT) as client:  # which follows no redirects
            found = self._read(client, self._url.rstrip("/") + _DISCOVERY)
            where = found.get("jwks_uri")
            if found.get("issuer") != self._url or not self._is_own(where):
                raise self._silent(f"{_DISCOVERY} is another's")
            listed = self._read(client, str(where)).get("keys")
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

    def _read(self, client: httpx.Client, url: str) -> dict[str, Any]:
        try:
            with client.stream("GET", url) as response:
                response.raise_for_status()
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > _MOST_BYTES:
                        raise self._silent(f"{url} has no end")
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


def _is_usable(key: object) -> bool:
    """Say whether a key verifies signatures; a symmetric one has no business in a public list."""
    return isinstance(key, dict) and key.get("kty") in {"RSA", "EC"} and key.get("use") != "enc"
