"""Every error as problem+json (RFC 9457), with our code and the request's id."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from rankloom.errors import AuthError, NotFoundError, RankloomError, RefError
from rankloom.registry.wire import Problem, ProblemFinding

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

_SHOWN = 5
"""Validation errors named in one answer; a hostile body may have thousands."""


def install(app: FastAPI) -> None:
    """Let the application answer every error as a problem."""
    app.add_exception_handler(RankloomError, _rankloom)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)


def respond(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """Return a problem as a response."""
    return Response(
        problem.model_dump_json(),
        status_code=problem.status,
        media_type="application/problem+json",
        headers=headers,
    )


def of_error(error: RankloomError, request_id: str) -> Problem:
    """Return an error of ours as a problem."""
    findings = [
        ProblemFinding(
            rule=finding.rule,
            message=finding.message,
            severity=finding.severity,
            where=finding.where,
            fix=finding.fix,
        )
        for finding in error.findings
    ]
    return Problem(
        title=HTTPStatus(error.http_status).phrase,
        status=error.http_status,
        detail=error.message,
        code=error.code,
        hint=error.hint,
        request_id=request_id,
        findings=findings,
    )


def internal(request_id: str) -> Problem:
    """Return the problem for a fault of our own; what happened is only in the log."""
    return Problem(
        title="Internal Server Error",
        status=500,
        detail="the registry failed; this is a fault of the registry, not of the request",
        code=RankloomError.code,
        hint=f"the registry's log has the cause under request id {request_id}",
        request_id=request_id,
    )


def _request_id(request: Request) -> str:
    return str(request.state.request_id)


async def _rankloom(request: Request, error: Exception) -> Response:
    assert isinstance(error, RankloomError)  # noqa: S101 - registered for this class only
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, AuthError) else None
    return respond(of_error(error, _request_id(request)), headers)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    found = error.errors()
    parts = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found[:_SHOWN]]
    if len(found) > _SHOWN:
        parts.append(f"and {len(found) - _SHOWN} more")
    problem = of_error(RefError("; ".join(parts)), _request_id(request))
    return respond(problem)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    code = NotFoundError.code if error.status_code == HTTPStatus.NOT_FOUND else RefError.code
    problem = Problem(
        title=HTTPStatus(error.status_code).phrase,
        status=error.status_code,
        detail=f"{request.method} {request.url.path}: {error.detail}",
        code=code,
        request_id=_request_id(request),
    )
    return respond(problem, dict(error.headers or {}))
