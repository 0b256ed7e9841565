"""The provider's own server: Stripe's API over HTTP on a loopback port, as billing's SDK calls it."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kit.db import Database
from kit.disconnects import is_disconnect
from kit.text import dump_json
from services.billing.sandbox import balance, checkout, disputes, intents, methods, records, refunds, setups
from services.billing.sandbox.call import Call, Operation
from services.billing.sandbox.faults import Fault, take
from services.billing.sandbox.idempotency import hold, once
from services.billing.sandbox.objects import expand
from services.billing.sandbox.parameters import check
from services.billing.sandbox.shapes import API_VERSION, Json
from services.billing.sandbox.wire import ID, Declined, Refusal, missing, new_key, parse_form

if TYPE_CHECKING:
    from kit.app import Runtime

log = structlog.get_logger(__name__)

OPERATIONS: list[Operation] = [
    *checkout.OPERATIONS,
    *intents.OPERATIONS,
    *methods.OPERATIONS,
    *setups.OPERATIONS,
    *refunds.OPERATIONS,
    *disputes.OPERATIONS,
    *balance.OPERATIONS,
    *records.OPERATIONS,
]
MAX_BODY = 1 << 20
KEEP_ALIVE_S = 75
"""Longer than any client keeps an idle connection, so that no request meets a closing one."""
SHUTDOWN_S = 1.0
CONNECTIONS = 4


class CutResponse(Response):
    """An answer whose body never comes: the server closes the connection in the middle of it."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the head only."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})


def provider_app(rt: "Runtime") -> Starlette:
    """Stripe's API as an ASGI app; RuntimeError outside the sandbox."""
    if not rt.settings.sandbox:
        raise RuntimeError("the sandbox payment provider never runs with HEIKA_ENV=production")
    routes = [Route(each.path, _endpoint(rt, each), methods=[each.method]) for each in OPERATIONS]
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_such_path})


@asynccontextmanager
async def running_provider(rt: "Runtime") -> AsyncIterator[str]:
    """Serve the provider on a free port of 127.0.0.1, in this event loop; yields the address for STRIPE_API_BASE."""
    # With connections of its own: a crowd that waits for billing's would keep its own payments from being answered.
    own = copy(rt)
    own.db = Database(rt.settings.database_url, name=f"{rt.service}-provider", pool_size=CONNECTIONS)
    try:
        async with serving(provider_app(own)) as address:
            yield address
    finally:
        await own.db.close()


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """An ASGI app on a free loopback port for as long as the context lasts; yields its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # Only uvicorn's main loop keeps the date right, and that one would take the process' signals.
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await _stop(server)


async def _stop(server: uvicorn.Server) -> None:
    """Answer what is being answered, for a second at most; uvicorn's own shutdown sleeps even when there is nothing."""
    for listening in server.servers:
        listening.close()
    for connection in list(server.server_state.connections):
        connection.shutdown()
    if server.server_state.tasks:
        _, late = await asyncio.wait(server.server_state.tasks, timeout=SHUTDOWN_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    # The connections that were told to close do so in the loop's next turn.
    await asyncio.sleep(0)


def _endpoint(rt: "Runtime", operation: Operation) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def answer(request: Request) -> Response:
        try:
            _authenticate(request)
            key = request.path_params.get("key", "")
            if key and not ID.fullmatch(key):
                raise missing("object", key)
            fault = await take(rt, "calls", request.url.path)
            if fault is not None and fault.kind == "error":
                raise Refusal("An error was asked for.", status=500, kind="api_error")
            if fault is not None and fault.kind == "hang":
                await asyncio.sleep(fault.seconds)
                return CutResponse()
            response = await _run(rt, operation, request, fault)
        except Refusal as refusal:
            return _json(refusal.status, dump_json(refusal.body()))
        except Exception as failure:  # Stripe's errors are JSON too, these as well.
            away = is_disconnect(failure)
            if not away:
                log.exception("sandbox provider failed", path=operation.path)
            error = Refusal("Something is wrong on our side.", status=503 if away else 500, kind="api_error")
            return _json(error.status, dump_json(error.body()))
        return CutResponse() if fault is not None and fault.kind == "drop" else response

    return answer


async def _run(rt: "Runtime", operation: Operation, request: Request, fault: Fault | None) -> Response:
    raw = parse_form(request.url.query.encode() if operation.method == "GET" else await _body(request))
    values = check(operation.shape, raw, operation.takes)
    path, key = request.url.path, request.headers.get("idempotency-key", "")
    async with rt.db.session() as session, session.begin():
        call = Call(session, rt.settings, values, request.path_params.get("key", ""), path)
        if operation.method == "GET" or "idempotency-key" not in request.headers:
            await _late(fault)
            status, answer = await _perform(operation, call)
            return _json(status, dump_json(answer))
        stored = await hold(session, key, operation.method, path, raw)
        await _late(fault)
        headers = {"Idempotency-Key": key if key.isascii() else ""}
        if stored is not None:
            return _json(stored.status, stored.body, headers | {"Idempotent-Replayed": "true"})
        session.info["stripe_request"] = {"idempotency_key": key}
        status, body = await once(session, key, operation.method, path, raw, lambda: _perform(operation, call))
        return _json(status, body, headers)


async def _perform(operation: Operation, call: Call) -> tuple[int, Json]:
    try:
        return 200, await expand(call.session, await operation.run(call), call.values.get("expand", []))
    except Declined as declined:
        # Answered, not raised: what was written of the failed charge stays.
        return declined.status, declined.body()


async def _late(fault: Fault | None) -> None:
    # Before anything is written, with the key held: the moment in which a repetition finds the first one in flight.
    if fault is not None and fault.kind == "delay":
        await asyncio.sleep(fault.seconds)


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Refusal("The request is too large.", status=413)
    return body


def _authenticate(request: Request) -> None:
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    if re.match(r"[sr]k_live_", key):
        message = "The sandbox provider refuses live keys; this one has travelled too far already: roll it."
        raise Refusal(message, "api_key_live", status=401)
    if not re.fullmatch(r"sk_test_\w+", key, re.ASCII):
        raise Refusal("Invalid API Key provided: the sandbox takes any sk_test_ key.", status=401)


def _json(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response:
    own = {"Request-Id": new_key("req"), "Stripe-Version": API_VERSION}
    return Response(body, status, own | (headers or {}), media_type="application/json")


async def _no_such_path(request: Request, failure: Exception) -> Response:
    status = failure.status_code if isinstance(failure, HTTPException) else 404
    path = request.url.path.encode("ascii", "replace").decode()
    refusal = Refusal(f"Unrecognized request URL ({request.method}: {path}).", status=status)
    return _json(status, dump_json(refusal.body()))
