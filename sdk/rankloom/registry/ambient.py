"""Who a job of CI is, in the words of CI, and the token that the registry gives for that.

============  ===========================================================================
GitHub        a job with ``permissions: id-token: write`` may ask for an identity token
GitLab        a job's ``id_tokens:`` puts one into ``RANKLOOM_ID_TOKEN``
============  ===========================================================================

Which service a token is for (its audience) is what the registry says, but only if that is the
registry itself: another's word would make CI vouch for this job elsewhere.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import httpx

from rankloom.errors import AuthError, ForbiddenError
from rankloom.registry.http import HttpRegistry

if TYPE_CHECKING:
    from rankloom.registry.wire import MintedToken

_URL, _SECRET = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
_GIVEN = "RANKLOOM_ID_TOKEN"
_AUDIENCE = "RANKLOOM_OIDC_AUDIENCE"
_UNNAMED = "rankloom"  # what a registry asks for that was told no address of its own
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_HINT = (
    "on GitHub the job needs 'permissions: id-token: write', on GitLab 'id_tokens:' with "
    f"{_GIVEN}; docs/publishing.md has both"
)


def is_job() -> bool:
    """Say whether this process runs in a job that can tell who it is."""
    return bool(os.environ.get(_GIVEN)) or tells_again()


def tells_again() -> bool:
    """Say whether CI gives another identity token when asked; GitLab gives one, for one use."""
    asked = os.environ.get(_URL) and os.environ.get(_SECRET)
    return bool(asked) and not os.environ.get(_GIVEN)


def exchange(url: str) -> MintedToken:
    """Return a token of the registry at ``url`` for this job; it ends by itself.

    Raises:
        AuthError: this is no such job, or the registry does not accept what CI says.
        ForbiddenError: no namespace trusts this job, the registry asks for a token for somebody
            else, or others could read along.
        RegistryError: the registry cannot be reached.
    """
    place = httpx.URL(url)
    if place.scheme != "https" and place.host not in _LOOPBACK:
        message = f"who this job is, is not told to {url}: others could read along"
        raise ForbiddenError(message, hint="give the registry's https:// address")
    with closing(HttpRegistry(url)) as registry:
        given = os.environ.get(_GIVEN)
        return registry.mint_token(given or _identity_token(_audience(registry, place)))


def _audience(registry: HttpRegistry, place: httpx.URL) -> str:
    """Return for whom the registry wants a token made out, if that is the registry itself."""
    asked = registry.audience()
    itself = {str(url).rstrip("/") for url in (place, place.copy_with(raw_path=b"/"))}
    if asked.rstrip("/") not in itself | {_UNNAMED, os.environ.get(_AUDIENCE)}:
        message = f"{place} wants an identity token for {asked[:200]!r}, which is not itself"
        hint = f"if that is the registry's OIDC_AUDIENCE, set {_AUDIENCE} to it; else do not use it"
        raise ForbiddenError(message, hint=hint)
    return asked


def _identity_token(audience: str) -> str:
    if not is_job():
        message = "nothing here says which job of CI this is"
        raise AuthError(message, hint=_HINT)
    headers = {"Authorization": f"bearer {os.environ[_SECRET]}"}
    address = httpx.URL(os.environ[_URL]).copy_add_param("audience", audience)
    try:
        answer = httpx.get(address, headers=headers, timeout=30)
        answer.raise_for_status()
        return str(answer.json()["value"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        message = f"CI gives no identity token: {error}"
        raise AuthError(message, hint=_HINT) from error
