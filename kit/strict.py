"""Strict routes: bounded bodies, those of files kept on disk, and JSON to the letter of RFC 8259."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from http import HTTPStatus
from tempfile import SpooledTemporaryFile
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from kit.auth import caller_of, wants_caller
from kit.errors import NotAuthenticated, PayloadTooLarge

JSON_LIMIT = 1 << 20
PIECE = 1 << 16


class StrictRequest(Request):
    """A request whose JSON is RFC 8259 to the letter: no NaN, no Infinity, no lone surrogates."""

    async def json(self) -> Any:
        """The body; JSONDecodeError when it is not JSON."""
        if not hasattr(self, "_json"):
            self._json = orjson.loads(await self.body())
        return self._json

    _aside: SpooledTemporaryFile[bytes] | None = None

    async def read(self, limit: int) -> None:
        """Take the whole body, one of files to disk; PayloadTooLarge past `limit` bytes, announced or real."""
        announced = self.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise PayloadTooLarge(extra={"limit_bytes": limit})
        size, memory = 0, bytearray()
        # Many who bring files at once shall not fill the memory with them while each waits for its turn.
        if limit > JSON_LIMIT:
            self._aside = SpooledTemporaryFile(max_size=JSON_LIMIT)  # noqa: SIM115 - put_away closes it
        async for chunk in super().stream():
            size += len(chunk)
            if size > limit:
                raise PayloadTooLarge(extra={"limit_bytes": limit})
            if self._aside is None:
                memory += chunk
            else:
                self._aside.write(chunk)
        if self._aside is None:
            self._body = bytes(memory)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body in pieces, as often as it is asked for."""
        if self._aside is None:
            async for chunk in super().stream():
                yield chunk
            return
        self._aside.seek(0)
        while chunk := self._aside.read(PIECE):
            yield chunk
        yield b""

    def put_away(self) -> None:
        """Let go of a body that lies on disk."""
        if self._aside is not None:
            self._aside.close()


class StrictRoute(APIRoute):
    """A route that reads bounded bodies (1 MiB unless `max_body_size` says otherwise) and strict JSON."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        # FastAPI's own limit answers in plain text; ours is a problem.
        self.body_limit: int = options.pop("max_body_size", None) or JSON_LIMIT
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a strict request."""
        original = super().get_route_handler()
        limit, bodiless = self.body_limit, (self.methods or set()) <= {"GET", "HEAD"}
        closed = not bodiless and wants_caller(self.dependant)

        async def handle(request: Request) -> Response:
            if isinstance(request, StrictRequest):
                return await original(request)
            # Before anything is read of what a stranger sends.
            if closed and await caller_of(request) is None:
                raise NotAuthenticated
            strict = StrictRequest(request.scope, request.receive)
            try:
                if not bodiless:
                    await strict.read(limit)
                response = await original(strict)
            finally:
                strict.put_away()
            if response.status_code == HTTPStatus.NO_CONTENT and "content-type" in response.headers:
                # FastAPI empties the body and leaves the type of what is not there.
                del response.headers["content-type"]
            return response

        return handle
