"""The registry over HTTP."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fastapi import FastAPI

from rankloom_server import problems, traces
from rankloom_server.metrics import Metrics
from rankloom_server.middleware import BodyLimit, RequestContext
from rankloom_server.oidc.exchange import Exchange
from rankloom_server.quick import Quick, QuickResolve
from rankloom_server.rates import Rates
from rankloom_server.request_log import RequestLog
from rankloom_server.rounds import Rounds
from rankloom_server.routes import (
    access,
    adapters,
    bases,
    blobs,
    health,
    oidc,
    parts,
    uploads,
    versions,
)
from rankloom_server.under_way import UnderWay
from rankloom_server.wiring import open_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rankloom_server.settings import Settings

API = "/api/v1"


def create_app(settings: Settings) -> FastAPI:
    """Return the application; its database is at the present schema.

    ``app.state.service`` is the service that it serves.

    Raises:
        RegistryError: the database does not answer, or has a schema of another version.
    """
    service = open_service(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        rounds = Rounds(service, app.state.metrics, settings.collect_hours)
        rounds.start()
        yield
        rounds.stop()
        await app.state.quick.close()
        service.close()
        end_traces()

    # The interactive pages would load scripts from elsewhere; /openapi.json is enough.
    app = FastAPI(title="rankloom", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    app.state.metrics = Metrics()
    app.state.requests = RequestLog(app.state.metrics)
    end_traces = traces.start(app, service.engine)
    app.state.under_way = UnderWay()
    app.state.rates = Rates(settings.requests_per_minute)
    app.state.exchange = Exchange(settings)
    problems.install(app)
    app.add_middleware(BodyLimit)
    app.state.quick = Quick(service.engine, app.state.rates)
    app.add_middleware(QuickResolve, quick=app.state.quick)
    # The last one added is the outermost.
    app.add_middleware(RequestContext, requests=app.state.requests)
    for router in (adapters.router, uploads.router, bases.router, access.router, versions.router):
        app.include_router(router, prefix=API)
    app.include_router(oidc.router, prefix=API)
    app.include_router(blobs.router)
    app.include_router(parts.router)
    app.include_router(health.router)
    return app
