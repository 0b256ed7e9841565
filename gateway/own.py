"""What an endpoint of the gateway itself is: a coroutine from a request to a response, by path and method."""

from collections.abc import Awaitable, Callable

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from gateway.inbound import Inbound
from kit.errors import PayloadTooLarge, ValidationFailed

Endpoint = Callable[[Scope, Inbound, Receive], Awaitable[Response]]
Own = dict[str, Endpoint]
"""The endpoints of one path, by method."""

MAX_BODY = 64 * 1024


async def read_json(scope: Scope, receive: Receive) -> object:
    """The body of a request to the gateway itself, as JSON; PayloadTooLarge or ValidationFailed."""
    body = b""
    async for chunk in Request(scope, receive).stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise PayloadTooLarge
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        problem = {"loc": ["body"], "msg": "this is not JSON", "code": "json_invalid"}
        raise ValidationFailed(extra={"errors": [problem]}) from error
