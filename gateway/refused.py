"""Refusals: a problem as the caller reads it; and who still sends a refused body gets the answer before the end."""

import asyncio
import contextlib
from http import HTTPStatus
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from gateway.inbound import Inbound
from gateway.routes import MIB
from kit.errors import Problem
from kit.wording import language_of

REST_BYTES: Final = 64 * MIB
REST_SECONDS: Final = 10.0
REST_PAUSE: Final = 1.0
"""How much of a refused body is taken and thrown away, in how long, with what pauses, before the connection is closed."""


async def refuse(problem: Problem, inbound: Inbound, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a problem, in the caller's language."""
    response = problem.response(language_of(inbound.accept_language), inbound.request_id)
    if problem.status in (408, 413):
        # What is left of the body would be read as the next request.
        inbound.closes = True
    if problem.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        send = after_the_rest(receive, send)
    await response(scope, receive, send)


def after_the_rest(receive: Receive, send: Send) -> Send:
    """A `send` whose answer is whole at once, but ends, and the connection with it, when the caller has sent the rest.

    To close on a caller who still sends resets the connection, and takes from them what they had not read yet (RFC 9112, 9.6).
    """

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.body":
            await send({**message, "more_body": True})
            await _pass_over(receive)
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return sent


async def _pass_over(receive: Receive) -> None:
    left = REST_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REST_SECONDS):
            while left > 0:
                async with asyncio.timeout(REST_PAUSE):
                    message = await receive()
                if not message.get("more_body", False):
                    return
                left -= len(message["body"])
