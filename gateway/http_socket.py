"""A WebSocket to a service in another process: messages pass on as they come, in both directions."""

import asyncio
from typing import Any, Final

import aiohttp
from starlette.types import Message, Receive, Scope, Send
from yarl import URL

from gateway.inbound import naming
from gateway.problems import BadUpstream, UpstreamUnavailable
from kit.connection import LARGEST_FRAME

_REFUSED: Final = 403
"""What a server answers where an app closes instead of accepting."""


def new_pool() -> aiohttp.ClientSession:
    """What opens sockets to one service."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=1.0)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout, trust_env=False
    )


async def pass_socket(pool: aiohttp.ClientSession, url: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Open the service's socket and tie both together; raises UpstreamUnavailable or BadUpstream when there is none."""
    await receive()
    offered = tuple(scope.get("subprotocols", ()))
    # The handshake of this hop is our own.
    own = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in (*scope["headers"], *naming(scope))
        if not name.startswith(b"sec-websocket-")
    ]
    try:
        theirs = await pool.ws_connect(
            URL(url, encoded=True),
            headers=own,
            protocols=offered,
            autoclose=False,
            max_msg_size=LARGEST_FRAME,
            compress=0,
        )
    except aiohttp.WSServerHandshakeError as refusal:
        await _refuse(refusal, scope, send)
        return
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise UpstreamUnavailable from error
    except (aiohttp.ClientError, ValueError) as error:
        raise BadUpstream from error
    try:
        await send({"type": "websocket.accept", "subprotocol": theirs.protocol, "headers": []})
        inward = asyncio.create_task(_inward(theirs, receive))
        try:
            await _outward(theirs, send)
        finally:
            inward.cancel()
    finally:
        await theirs.close()


async def _refuse(refusal: aiohttp.WSServerHandshakeError, scope: Scope, send: Send) -> None:
    """The service's status without its words, which the client library does not keep."""
    if refusal.status == _REFUSED or "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    await send(
        {"type": "websocket.http.response.start", "status": refusal.status, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "websocket.http.response.body", "body": b""})


async def _inward(theirs: aiohttp.ClientWebSocketResponse[Any], receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            # 1005 and 1006 say that no code came; they may not be sent (RFC 6455 7.4.1).
            code = message.get("code", 1000)
            await theirs.close(code=code if code not in (1005, 1006) else 1001)
            return
        if (text := message.get("text")) is not None:
            await theirs.send_str(text)
        else:
            await theirs.send_bytes(message["bytes"])


async def _outward(theirs: aiohttp.ClientWebSocketResponse[Any], send: Send) -> None:
    async for message in theirs:
        out: Message = {"type": "websocket.send"}
        if message.type is aiohttp.WSMsgType.TEXT:
            out["text"] = message.data
        elif message.type is aiohttp.WSMsgType.BINARY:
            out["bytes"] = message.data
        else:
            break
        await send(out)
    await send({"type": "websocket.close", "code": theirs.close_code if theirs.close_code is not None else 1011})
