"""Refused bodies: who still sends one gets the answer before the connection ends."""

import asyncio
import contextlib
from typing import Final

from starlette.types import Message, Receive, Send

from gateway.routes import MIB

REST_BYTES: Final = 64 * MIB
REST_SECONDS: Final = 10.0
REST_PAUSE: Final = 1.0
"""How much of a refused body is taken and thrown away, in how long, with what pauses, before the connection is closed."""


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
