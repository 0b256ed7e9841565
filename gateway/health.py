"""Health: whether the gateway is alive, and whether each service is ready."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope

from gateway.calls import NoAnswer, ask
from gateway.inbound import Inbound
from gateway.own import Own
from gateway.routes import SERVICES
from kit.http import json_response
from kit.settings import Settings

PATIENCE_S = 2.0


async def _state(upstream: ASGIApp) -> dict[str, object]:
    try:
        answer = await ask(upstream, "GET", "/readyz", seconds=PATIENCE_S)
    except NoAnswer:
        return {"status": "unavailable"}
    try:
        details = answer.json()
    except ValueError:
        details = {}
    told = {name: value for name, value in details.items() if name != "status"} if isinstance(details, dict) else {}
    return {"status": "ok" if answer.status == HTTPStatus.OK else "unavailable", **told}


def endpoints(upstreams: Mapping[str, ASGIApp], _: Settings) -> dict[str, Own]:
    """`/healthz` and `/readyz`."""

    async def healthz(_: Scope, __: Inbound, ___: Receive) -> Response:
        return json_response({"status": "ok"}, headers={"Cache-Control": "no-store"})

    async def readyz(_: Scope, __: Inbound, ___: Receive) -> Response:
        states = await asyncio.gather(*(_state(upstreams[name]) for name in SERVICES))
        ready = all(state["status"] == "ok" for state in states)
        answer = {"status": "ok" if ready else "unavailable", "services": dict(zip(SERVICES, states, strict=True))}
        return json_response(answer, 200 if ready else 503, {"Cache-Control": "no-store"})

    return {"/healthz": {"GET": healthz}, "/readyz": {"GET": readyz}}
