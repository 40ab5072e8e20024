"""What routes need from their request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import urljoin

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from rankloom import ref as refs
from rankloom.ref import AdapterName
from rankloom_server import auth
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


def _require(scope: auth.Scope) -> Callable[[Service, HTTPAuthorizationCredentials | None], None]:
    def check(service: ServiceDep, bearer: Bearer) -> None:
        auth.check(service.engine, bearer.credentials if bearer else None, scope)

    return check


READ = Depends(_require(auth.Scope.READ))
PUSH = Depends(_require(auth.Scope.PUSH))
ADMIN = Depends(_require(auth.Scope.ADMIN))


def absolute(request: Request, url: str) -> str:
    """Complete the URL of a local blob by the address that the client used."""
    return urljoin(str(request.base_url), url)
