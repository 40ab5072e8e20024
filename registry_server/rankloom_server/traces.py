"""Traces for OpenTelemetry: a span per request, and one per SQL statement within it.

Nothing is sent, and its SDK is not imported, unless OpenTelemetry's own variables name a receiver:
``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``. The other ``OTEL_…``
variables (service name, sampler, headers) mean what its SDK says.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from rankloom import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa
    from fastapi import FastAPI
    from opentelemetry.trace import Span, Tracer

_log = logging.getLogger("rankloom_server")

_RECEIVERS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_UNTRACED = "healthz,readyz,metrics"  # asked every few seconds by machines
_WITH_QUERY = ("http.url", "http.target", "url.full", "url.query")
_SPAN = "rankloom_span"


def wanted() -> bool:
    """Say whether somebody receives traces."""
    return any(os.environ.get(name) for name in _RECEIVERS)


def start(app: FastAPI, engine: sa.Engine) -> Callable[[], None]:
    """Trace the requests of ``app`` and the statements of ``engine``, if that is configured.

    Returns:
        What sends the last spans and ends; to be called when the application does.
    """
    if not wanted():
        return _nothing
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        # The variables are often set for a whole cluster: no reason not to serve.
        _log.warning("no traces: %s; pip install 'rankloom[telemetry]'", error)
        return _nothing
    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "rankloom")}
    provider = TracerProvider(resource=Resource.create(named | {"service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls=_UNTRACED,
        exclude_spans=["receive", "send"],
        server_request_hook=_begin_request,
    )
    _trace_statements(engine, provider.get_tracer("rankloom_server", __version__))
    return provider.shutdown


def _nothing() -> None:
    """End what was never begun."""


def _begin_request(span: Span, scope: dict[str, Any]) -> None:
    """Leave queries out of the span, for they may carry a signature; let the log name the trace."""
    for name in _WITH_QUERY:
        value = getattr(span, "attributes", {}).get(name)
        if value is not None:
            span.set_attribute(name, "" if name == "url.query" else value.partition("?")[0])
    trace_id = format(span.get_span_context().trace_id, "032x")
    scope.setdefault("state", {})["trace_id"] = trace_id


def _trace_statements(engine: sa.Engine, tracer: Tracer) -> None:
    """Give each statement a span; its text has places for values, never the values.

    The library for SQLAlchemy's versions up to 2.0 refuses 2.1, so this is done with its events.
    """
    from opentelemetry.trace import SpanKind, Status, StatusCode

    system = engine.dialect.name

    @event.listens_for(engine, "before_cursor_execute")
    def begin(
        connection: sa.Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        _context: object,
        _many: bool,
    ) -> None:
        name = statement.split(maxsplit=1)[0]
        span = tracer.start_span(name, kind=SpanKind.CLIENT)
        span.set_attributes({"db.system.name": system, "db.query.text": statement})
        connection.info[_SPAN] = span

    @event.listens_for(engine, "after_cursor_execute")
    def end(connection: sa.Connection, *_rest: object) -> None:
        connection.info.pop(_SPAN).end()

    @event.listens_for(engine, "handle_error")
    def fail(context: sa.ExceptionContext) -> None:
        span = context.connection.info.pop(_SPAN, None) if context.connection else None
        if span is not None:
            span.set_status(Status(StatusCode.ERROR, type(context.original_exception).__name__))
            span.end()
