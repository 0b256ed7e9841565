"""Files as answers: whole, or the part that Range asks for (RFC 9110 14)."""

from typing import Any, Final

from starlette.datastructures import Headers
from starlette.responses import FileResponse, MalformedRangeHeader, RangeNotSatisfiable
from starlette.types import Receive, Scope, Send

from kit.errors import Problem, problems
from kit.wording import language_of


class RangeOutside(Problem):
    """The part asked for lies outside this file; Content-Range says how long it is."""

    status = 416
    zh = "请求的范围超出了文件，长度见 Content-Range。"


RECORDINGS: Final = ("audio/*", "video/*", "application/octet-stream")


def whole_or_part(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that sends a stored file of one of these media types."""
    content: dict[str, Any] = {name: {} for name in media_types}
    return {
        200: {"description": "The whole file.", "content": content},
        206: {
            "description": "The part that Range asked for, said by Content-Range; several parts are `multipart/byteranges`.",
            "content": {**content, "multipart/byteranges": {}},
        },
        **problems(RangeOutside),
    }


def is_held(headers: Headers, tag: str) -> bool:
    """Whether the caller's If-None-Match (RFC 9110 13.1.2) says that they have what this ETag names."""
    held = {item.strip().removeprefix("W/") for item in headers.get("if-none-match", "").split(",")}
    return tag in held or "*" in held


class _Outside(Exception):
    """The parts asked for lie outside a file of so many bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class StoredFile(FileResponse):
    """Starlette's FileResponse whose refusals are problems, and which ignores a Range that it cannot read."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            # RFC 9110 14.2: what is no valid Range of a known unit is ignored; no ranges mean the whole file.
            return []
        except RangeNotSatisfiable as outside:
            # Not Starlette's own class, which its caller would answer in plain text.
            raise _Outside(outside.max_size) from outside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or the part."""
        try:
            await super().__call__(scope, receive, send)
        except _Outside as outside:
            language = language_of(Headers(scope=scope).get("accept-language", ""))
            response = RangeOutside().response(language, scope.get("heika.request_id"))
            response.headers["Content-Range"] = f"bytes */{outside.size}"
            await response(scope, receive, send)
