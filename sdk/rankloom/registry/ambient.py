"""Who a job of CI is, in the words of CI, and the token that the registry gives for that.

============  ===========================================================================
GitHub        a job with ``permissions: id-token: write`` may ask for an identity token
GitLab        a job's ``id_tokens:`` puts one into ``RANKLOOM_ID_TOKEN``
============  ===========================================================================
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import httpx

from rankloom.errors import AuthError
from rankloom.registry.http import HttpRegistry

if TYPE_CHECKING:
    from rankloom.registry.wire import MintedToken

_URL, _SECRET = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
_GIVEN = "RANKLOOM_ID_TOKEN"
_HINT = (
    "on GitHub the job needs 'permissions: id-token: write', on GitLab 'id_tokens:' with "
    f"{_GIVEN}; docs/ci.md has both"
)


def is_job() -> bool:
    """Say whether this process runs in a job that can tell who it is."""
    return bool(os.environ.get(_GIVEN) or (os.environ.get(_URL) and os.environ.get(_SECRET)))


def exchange(url: str) -> MintedToken:
    """Return a token of the registry at ``url`` for this job; it ends by itself.

    Raises:
        AuthError: this is no such job, or the registry does not accept what CI says.
        ForbiddenError: no namespace trusts this job.
        RegistryError: the registry cannot be reached.
    """
    with closing(HttpRegistry(url)) as registry:
        return registry.mint_token(_identity_token(registry.audience()))


def _identity_token(audience: str) -> str:
    if given := os.environ.get(_GIVEN):
        return given
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
