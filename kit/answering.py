"""Answers in as few pieces as they may have: a line that was found to be good is not looked at again."""

import re
from typing import Final

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_NO_LENGTH: Final = (204, 304)
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})
# What may stand in no value (RFC 9110 5.5).
_FORBIDDEN: Final = bytes({*range(32), 127} - {9})
_EVENTS: Final = b"content-type: text/event-stream"
_MOST_KNOWN: Final = 1000
_LONGEST_KNOWN: Final = 200
_MOST_JOINED: Final = 64 * 1024
# Of these an answer has few different values: they are written as they were the last time.
_REPEATED: Final = frozenset(
    {
        *(b"cache-control", b"content-security-policy", b"content-type", b"ratelimit-policy", b"referrer-policy"),
        *(b"strict-transport-security", b"vary", b"x-content-type-options", b"x-frame-options", b"x-heika-route"),
    }
)

_names: set[bytes] = set()
"""Names that were found to be good, and none of framing; answers have few different ones."""
_ready: dict[tuple[bytes, bytes], bytes] = {}
"""Lines that were found to be good, as they go out."""


class Cycle(RequestResponseCycle):
    """uvicorn's, for a third of the time; whatever is not plain it leaves to uvicorn."""

    _head: bytes | None = None
    """A head that waits for its body (as ASGI allows), to go out with it: to write costs as much as to make the answer."""
    is_endless = False
    """Whether it is a stream of events, which goes on until its caller leaves."""

    async def send(self, message: Message) -> None:  # type: ignore[override]  # Starlette's type of the same
        """Write one message of the answer."""
        if self._head is not None:
            message = self._behind(self._head, message)
        elif not (self.response_started or self.disconnected or self.flow.write_paused) and (
            message["type"] == "http.response.start" and self._write_head(message)
        ):
            return
        await super().send(message)  # type: ignore[arg-type]

    def _behind(self, head: bytes, message: Message) -> Message:
        """The body with the head that waited before it; the head alone goes first where they are not to be one piece."""
        self._head = None
        body = message.get("body", b"")
        if self.disconnected:
            return message
        if len(body) > min(self.expected_content_length, _MOST_JOINED):
            self.transport.write(head)
            return message
        self.expected_content_length += len(head)
        return {**message, "body": head + body}

    def _write_head(self, message: Message) -> bool:
        """Write status and headers, or keep them for the body; False when something about them is for uvicorn to look at."""
        status, length = message["status"], None
        lines = [STATUS_LINE[status]]
        for pair in (*self.default_headers, *message.get("headers", ())):
            # A list, which ASGI allows, is found nowhere.
            line = _ready.get(pair) if type(pair) is tuple else None
            if line is None:
                name, value = pair
                if name == b"content-length" and length is None and value.isdigit():
                    length = int(value)
                    line = b"content-length: %b\r\n" % value
                elif (line := _line(name, value)) is None:
                    return False
            lines.append(line)
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        chunked = length is None and self.scope["method"] != "HEAD" and status not in _NO_LENGTH
        if chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
            self.is_endless = any(line.startswith(_EVENTS) for line in lines)
        lines.append(b"\r\n")
        self.response_started = True
        self.waiting_for_100_continue = False
        self.chunked_encoding = True if chunked else None if length is None else False
        self.expected_content_length = length or 0
        head = b"".join(lines)
        if length and self.scope["method"] != "HEAD" and status not in _NO_LENGTH:
            self._head = head
        else:
            self.transport.write(head)
        return True


def _line(name: bytes, value: bytes) -> bytes | None:
    """One line of a head; None for what is of framing, or fit for no head."""
    if (name not in _names and not _is_good(name)) or len(value.translate(None, _FORBIDDEN)) != len(value):
        return None
    line = b"%b: %b\r\n" % (name, value)
    if name in _REPEATED and len(value) <= _LONGEST_KNOWN and len(_ready) < _MOST_KNOWN:
        _ready[name, value] = line
    return line


def _is_good(name: bytes) -> bool:
    if name in _FRAMING or _TOKEN.fullmatch(name) is None:
        return False
    if len(_names) < _MOST_KNOWN:
        _names.add(name)
    return True
