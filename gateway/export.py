"""A member's export: what every service holds about the caller, gathered at once into one document."""

import asyncio
import contextlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope

from gateway.calls import Answer, NoAnswer, ask
from gateway.inbound import Inbound
from gateway.own import Own
from gateway.routes import SERVICES
from kit import clock
from kit.errors import Forbidden, NotAuthenticated, NotFound, Problem
from kit.export import PATH
from kit.http import json_response
from kit.settings import Settings
from kit.text import instant

PART_S: Final = 20.0
"""How long a service may take over its part: everything about somebody is no quick question."""

HEADERS: Final = {
    "Cache-Control": "private, no-store",
    "Content-Disposition": 'attachment; filename="heika-export.json"',
}
_REFUSALS: Final[dict[int, type[Problem]]] = {cls.status: cls for cls in (NotAuthenticated, Forbidden, NotFound)}


async def _part(upstream: ASGIApp, inbound: Inbound) -> Answer | None:
    """A service's answer; None when there is none."""
    try:
        return await ask(upstream, "GET", PATH, seconds=PART_S, inbound=inbound)
    except NoAnswer:
        return None


def endpoints(upstreams: Mapping[str, ASGIApp], _: Settings) -> dict[str, Own]:
    """`/v1/me/export`."""

    async def export(_: Scope, inbound: Inbound, __: Receive) -> Response:
        if inbound.authorization is None:
            raise NotAuthenticated
        if inbound.caller is not None and inbound.caller.role != "member":
            raise Forbidden
        answers = await asyncio.gather(*(_part(upstreams[name], inbound) for name in SERVICES))
        if answers[0] is not None and answers[0].status in _REFUSALS:
            # Members knows whether there still is somebody to tell it to.
            raise _REFUSALS[answers[0].status]
        document: dict[str, Any] = {"exported_at": instant(clock.now())}
        missing: list[str] = []
        for name, answer in zip(SERVICES, answers, strict=True):
            held = None
            with contextlib.suppress(ValueError):
                held = answer.json() if answer is not None and answer.status == HTTPStatus.OK else None
            if held is None:
                missing.append(name)
            elif name == "members":
                document = held | document
            else:
                document[name] = held
        return json_response(document | {"missing": missing}, headers=HEADERS)

    return {"/v1/me/export": {"GET": export}}
