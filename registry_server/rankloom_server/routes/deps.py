"""What routes need from their request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import urljoin

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from rankloom import ref as refs
from rankloom.errors import AuthError
from rankloom.ref import AdapterName
from rankloom_server import auth
from rankloom_server.access import ANONYMOUS, Actor, Scope
from rankloom_server.rates import Rates
from rankloom_server.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable

_bearer = HTTPBearer(auto_error=False, description="a token of this registry: rl_…")


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


ServiceDep = Annotated[Service, Depends(_service)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def _adapter(namespace: str, name: str) -> AdapterName:
    return AdapterName(
        refs.check_name(namespace, "namespace"), refs.check_name(name, "adapter name")
    )


AdapterDep = Annotated[AdapterName, Depends(_adapter)]


def actor_of(request: Request, service: ServiceDep, bearer: Bearer) -> Actor:
    """Return who asks, once that counts among the requests that it may send."""
    token = bearer.credentials if bearer else None
    address = request.client.host if request.client else "somewhere"
    try:
        actor = auth.identify(service.engine, token, request.state.request_id)
    except AuthError:
        _rates(request).spend(address, request.scope)
        raise
    client = address if actor.name == ANONYMOUS.name else f"token {actor.name}"
    _rates(request).spend(client, request.scope)
    request.state.actor = actor.name
    return actor


def _rates(request: Request) -> Rates:
    return cast(Rates, request.app.state.rates)


ActorDep = Annotated[Actor, Depends(actor_of)]


def _require(scope: Scope) -> Callable[[Request, Service, Actor], Service]:
    """Return what gives a route the service as the caller may use it, or refuses.

    The scope is needed for the adapter, or else in the namespace, of the route's path; where it
    names neither, in any.
    """

    def check(request: Request, service: ServiceDep, actor: ActorDep) -> Service:
        path = request.path_params
        auth.authorise(service.engine, actor, scope, path.get("namespace"), path.get("name"))
        return service.for_actor(actor)

    return check


Reader = Annotated[Service, Depends(_require(Scope.READ))]
Pusher = Annotated[Service, Depends(_require(Scope.PUSH))]
Admin = Annotated[Service, Depends(_require(Scope.ADMIN))]


def absolute(request: Request, url: str) -> str:
    """Complete the URL of a local blob by the address that the client used."""
    return urljoin(str(request.base_url), url)
