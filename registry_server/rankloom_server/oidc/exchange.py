"""One token for another: what CI signed for a job becomes a token of ours for that job."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from joserfc import jws, jwt
from joserfc.errors import JoseError
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from rankloom.errors import AuthError, ForbiddenError, RefError
from rankloom_server import audit, db, publishers
from rankloom_server.oidc.issuer import read_job
from rankloom_server.oidc.keys import IssuerKeys

if TYPE_CHECKING:
    import sqlalchemy as sa

    from rankloom.registry.wire import MintedToken
    from rankloom_server.access import Actor
    from rankloom_server.oidc.issuer import Job
    from rankloom_server.settings import Settings

LIFE = timedelta(minutes=15)
"""How long a token of ours is good for; a push renews it by asking again."""

ALGORITHMS: Final = ("RS256", "ES256")
LEEWAY_SECONDS: Final = 30
_MOST_SECONDS: Final = 24 * 3600  # no job's token is good for more than its job
_REMEMBERED: Final = timedelta(hours=1)  # longer than it is good, also where clocks differ
_REFUSALS: Final = RateLimitItemPerMinute(30)

_log = logging.getLogger("rankloom_server")


class Exchange:
    """Exchanges identity tokens of configured issuers, each of them once."""

    def __init__(self, settings: Settings) -> None:
        self.audience = settings.oidc_audience or settings.public_url or "rankloom"
        self._issuers = settings.oidc_issuers
        self._keys = {
            name: IssuerKeys(issuer, http=settings.oidc_http)
            for name, issuer in self._issuers.items()
        }
        self._refusals = FixedWindowRateLimiter(MemoryStorage())

    def check_issuer(self, name: str) -> None:
        """Refuse an issuer that nobody could show a token of.

        Raises:
            RefError: the server is not set to know it.
        """
        if name not in self._issuers:
            message = f"this registry knows no issuer {name}"
            known = ", ".join(sorted(self._issuers)) or "none"
            raise RefError(message, hint=f"it knows {known}; its setting OIDC_ISSUERS names more")

    def mint(self, engine: sa.Engine, token: str, actor: Actor) -> MintedToken:
        """Return a token that may read and push where the job is trusted.

        Raises:
            AuthError: the token is none that a configured issuer made for us and now.
            ForbiddenError: no namespace trusts the job, or the token was exchanged already.
            RegistryError: the issuer's keys cannot be had.
        """
        try:
            job, claims = self._verify(token)
            until = datetime.fromtimestamp(claims["exp"], UTC) + _REMEMBERED
            with db.write(engine) as connection:
                publishers.spend(connection, f"{claims['iss']} {claims['jti']}", until)
                return publishers.mint(connection, actor, job, datetime.now(UTC) + LIFE)
        except (AuthError, ForbiddenError) as error:
            self._note(engine, actor, str(error))
            raise

    def _verify(self, token: str) -> tuple[Job, dict[str, Any]]:
        """Return the job of a token and its claims, once the issuer's signature is found good."""
        try:
            unproved = jws.extract_compact(token.encode())
            claims = json.loads(unproved.payload or b"")
            issuer = claims["iss"]
            kid = unproved.headers().get("kid")
        except (JoseError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise _refusal("it is no JWT with an issuer") from error
        name = next((name for name, known in self._issuers.items() if known.url == issuer), None)
        if name is None:
            raise _refusal(f"its issuer {str(issuer)[:80]!r} is none that this registry knows")
        try:
            proved = jwt.decode(token, self._keys[name].get(kid), algorithms=list(ALGORITHMS))
            self._claims(issuer).validate(proved.claims)
        except (JoseError, ValueError, TypeError) as error:
            raise _refusal(str(error)) from error
        if proved.claims["exp"] - proved.claims["iat"] > _MOST_SECONDS:
            raise _refusal("it is good for more than a day")
        return read_job(name, self._issuers[name], proved.claims), proved.claims

    def _claims(self, issuer: str) -> jwt.JWTClaimsRegistry:
        return jwt.JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": self.audience},
            exp={"essential": True},
            iat={"essential": True},
            jti={"essential": True},
            sub={"essential": True},
        )

    def _note(self, engine: sa.Engine, actor: Actor, reason: str) -> None:
        """Keep a refusal; anybody may cause one, so the audit log gets only so many a minute."""
        _log.warning("token not exchanged: %s id=%s", reason, actor.request_id)
        if self._refusals.hit(_REFUSALS):
            with db.write(engine) as connection:
                detail = {"reason": reason}
                audit.record(connection, actor, "token.refuse", subject="oidc", detail=detail)


def _refusal(why: str) -> AuthError:
    message = f"the identity token is not accepted: {why}"
    return AuthError(message, hint="ask CI for a fresh one with the audience of this registry")
