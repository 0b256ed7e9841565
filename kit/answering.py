"""The head of an answer, written in one piece: what uvicorn checks line by line is checked for the whole."""

import re
from typing import Final

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_NO_LENGTH: Final = (204, 304)
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})
# What may stand in no value (RFC 9110 5.5), but for CR and LF, which are counted.
_FORBIDDEN: Final = bytes({*range(32), 127} - {9, 10, 13})
_MOST_NAMES: Final = 1000

_known: set[bytes] = set()
"""Names that were found to be good, and none of framing; answers have few different ones."""


class Cycle(RequestResponseCycle):
    """uvicorn's, for a third of the time; whatever is not plain it leaves to uvicorn."""

    async def send(self, message: Message) -> None:  # type: ignore[override]  # Starlette's type of the same
        """Write one message of the answer."""
        plain = not (self.response_started or self.disconnected or self.flow.write_paused)
        if not (plain and message["type"] == "http.response.start" and self._write_head(message)):
            await super().send(message)  # type: ignore[arg-type]

    def _write_head(self, message: Message) -> bool:
        """Write status and headers; False when something about them is for uvicorn to look at."""
        status, length = message["status"], None
        lines = [STATUS_LINE[status]]
        count = 2
        for name, value in (*self.default_headers, *message.get("headers", ())):
            if name not in _known:
                if name == b"content-length" and length is None and value.isdigit():
                    length = int(value)
                elif not _is_plain(name):
                    return False
            lines += (name, b": ", value, b"\r\n")
            count += 1
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
            count += 1
        chunked = length is None and self.scope["method"] != "HEAD" and status not in _NO_LENGTH
        if chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
            count += 1
        lines.append(b"\r\n")
        head = b"".join(lines)
        if not head.count(b"\r") == head.count(b"\n") == count or len(head.translate(None, _FORBIDDEN)) != len(head):
            return False
        self.response_started = True
        self.waiting_for_100_continue = False
        self.chunked_encoding = True if chunked else None if length is None else False
        self.expected_content_length = length or 0
        self.transport.write(head)
        return True


def _is_plain(name: bytes) -> bool:
    if name in _FRAMING or _TOKEN.fullmatch(name) is None:
        return False
    if len(_known) < _MOST_NAMES:
        _known.add(name)
    return True
