"""How each kind of failure becomes problem+json."""

from collections.abc import Awaitable, Callable

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from kit.disconnects import is_disconnect
from kit.errors import (
    BadRequest,
    Collision,
    DatabaseUnavailable,
    Forbidden,
    MethodNotAllowed,
    NotAuthenticated,
    NotFound,
    PayloadTooLarge,
    Problem,
    Unprocessable,
    UnsupportedMedia,
    ValidationFailed,
    request_language,
)
from kit.wording import FIRST_SHOWN, field_error, worded

log = structlog.get_logger(__name__)


def _answer(request: Request, problem: Problem) -> Response:
    return problem.response(request_language(request), request.scope.get("heika.request_id"))


async def _on_problem(request: Request, problem: Exception) -> Response:
    if not isinstance(problem, Problem):
        raise problem
    return _answer(request, problem)


async def _on_validation(request: Request, failure: Exception) -> Response:
    if not isinstance(failure, RequestValidationError):
        raise failure
    # Pydantic's errors echo the input, which may be a password or a lone surrogate: only place and message go out.
    errors = [
        field_error(
            [str(part) if not isinstance(part, int) else part for part in error["loc"]], worded(error), error["type"]
        )
        for error in failure.errors()[:FIRST_SHOWN]
    ]
    return _answer(request, ValidationFailed(extra={"errors": errors}))


_BY_STATUS: dict[int, type[Problem]] = {
    cls.status: cls
    for cls in (
        BadRequest,
        NotAuthenticated,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        PayloadTooLarge,
        UnsupportedMedia,
        Unprocessable,
    )
}


async def _on_http(request: Request, failure: Exception) -> Response:
    if not isinstance(failure, HTTPException):
        raise failure
    response = _answer(request, _BY_STATUS.get(failure.status_code, BadRequest)())
    if failure.status_code == MethodNotAllowed.status:
        response.headers["Allow"] = ", ".join(_methods_here(request))
    return response


def _methods_here(request: Request) -> list[str]:
    """What this path takes (RFC 9110 10.2.1): the routing names only its first route, and each route has one method."""
    taken = [
        method
        for method in ("DELETE", "GET", "PATCH", "POST", "PUT")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
    # HEAD works wherever GET does; the gateway sees to it.
    return sorted([*taken, "HEAD"]) if "GET" in taken else taken


async def _on_database(request: Request, failure: Exception) -> Response:
    if is_disconnect(failure):
        log.warning("database away", error=type(failure).__name__)
        return _answer(request, DatabaseUnavailable())
    state = getattr(getattr(failure, "orig", None), "sqlstate", None) or ""
    # 40001 and 40P01: of transactions that wait for one another PostgreSQL ends one, which may begin again.
    if state in ("40001", "40P01"):
        log.warning("a transaction gave way to another", state=state)
        return _answer(request, Collision(retry_after=1))
    # SQLSTATE class 22 (data exception): a value PostgreSQL cannot hold, such as NUL in a query string.
    if state.startswith("22"):
        log.warning("a value the database cannot hold got past its shape", exc_info=failure)
        return _answer(request, Unprocessable())
    raise failure


_ANSWERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    Problem: _on_problem,
    RequestValidationError: _on_validation,
    HTTPException: _on_http,
    **dict.fromkeys((DBAPIError, PoolTimeout, ConnectionError, TimeoutError), _on_database),
}


async def answer_to(request: Request, failure: Exception) -> Response:
    """The answer to a failure, the one raised again when it is nobody's to answer."""
    for kind in type(failure).__mro__:
        if kind in _ANSWERS:
            return await _ANSWERS[kind](request, failure)
    raise failure


def install_errors(app: FastAPI) -> None:
    """Make every refusal of this app problem+json."""
    for kind, answer in _ANSWERS.items():
        app.add_exception_handler(kind, answer)
