"""What an endpoint of the gateway itself is: a coroutine from a request to a response, by path and method."""

from collections.abc import Awaitable, Callable
from hashlib import blake2b

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope

from gateway.etags import matches
from gateway.inbound import Inbound
from gateway.proxy import read_body
from kit.errors import PayloadTooLarge, ValidationFailed
from kit.wording import ZH, Sentence, field_error

Endpoint = Callable[[Scope, Inbound, Receive], Awaitable[Response]]
Own = dict[str, Endpoint]
"""The endpoints of one path, by method."""

MAX_BODY = 64 * 1024


async def read_json(inbound: Inbound, receive: Receive) -> object:
    """The body of a request to the gateway itself, as JSON; PayloadTooLarge, RequestTimeout or ValidationFailed."""
    if inbound.content_length > MAX_BODY:
        raise PayloadTooLarge
    message = await read_body(receive, MAX_BODY)
    try:
        return orjson.loads(message.get("body", b""))
    except orjson.JSONDecodeError as error:
        problem = field_error(["body"], Sentence("this is not JSON", ZH["json_invalid"]), "json_invalid")
        raise ValidationFailed(extra={"errors": [problem]}) from error


def tagged(content: bytes, media_type: str, cache: str, inbound: Inbound) -> Response:
    """A public answer with an ETag over its content; 304 when the caller holds it already."""
    etag = f'"{blake2b(content, digest_size=12).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": cache}
    if inbound.if_none_match is not None and matches(inbound.if_none_match, etag.encode()):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)
