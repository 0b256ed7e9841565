"""Questions the gateway itself asks an upstream: one small request, one whole answer, in so many seconds."""

import asyncio
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.types import ASGIApp, Message

from gateway.inbound import Headers, Inbound
from kit.ids import new_id
from kit.trace import next_traceparent

_OF_CALLER: Final = (b"authorization", b"accept-language")

_late: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes

    def json(self) -> Any:
        """The body read as JSON; ValueError when it is none."""
        return orjson.loads(self.body)


class NoAnswer(Exception):
    """The upstream failed, or did not answer in time."""


async def ask(
    upstream: ASGIApp,
    method: str,
    target: str,
    *,
    json: Any = None,
    seconds: float = 2.0,
    inbound: Inbound | None = None,
    as_caller: bool = True,
) -> Answer:
    """One request to `target` (path, and query after `?`), as part of `inbound`; NoAnswer without an answer.

    It is made on behalf of `inbound`'s caller, or, without `as_caller`, as anybody would make it.
    """
    body = b"" if json is None else orjson.dumps(json)
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": _headers(inbound, body, as_caller=as_caller),
        "client": (inbound.address if inbound else "127.0.0.1", 0),
        "server": ("gateway", 80),
        "heika.has_body": bool(body),
        "heika.request_id": inbound.request_id if inbound else str(new_id()),
        "heika.traceparent": inbound.traceparent if inbound else next_traceparent(None),
    }
    given = False
    status = 0
    headers: Headers = []
    parts: list[bytes] = []

    async def receive() -> Message:
        nonlocal given
        if given:
            await asyncio.get_running_loop().create_future()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.extend(message.get("headers", ()))
        else:
            parts.append(message.get("body", b""))

    task: asyncio.Task[None] = asyncio.Task(upstream(scope, receive, send), context=Context())  # type: ignore[arg-type]
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            # Not awaited: a call that ignores its cancellation must not hold up who asked.
            _late.add(task)
            task.add_done_callback(_late.discard)
            task.cancel()
    if not task.done():
        raise NoAnswer("late")
    if task.cancelled() or ((failure := task.exception()) is not None and not status) or not status:
        raise NoAnswer(repr(None if task.cancelled() else failure))
    return Answer(status, headers, b"".join(parts))


def _headers(inbound: Inbound | None, body: bytes, *, as_caller: bool) -> Headers:
    headers: Headers = [(b"host", b"gateway"), (b"accept", b"application/json")]
    if body:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if inbound is not None and as_caller:
        headers += [pair for pair in inbound.headers if pair[0] in _OF_CALLER]
    return headers
