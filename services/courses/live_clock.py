"""Answers that hold the server's clock: unchanged but for it they are held already, as long as it is hardly behind."""

import re
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

from fastapi import Request, Response

from kit.text import dump_json, instant

BEHIND_S: Final = 10
"""How old the clock of an answer may be that a browser shows again without a word to the page: a count-down is as wrong."""
_HELD: Final = re.compile(r'W/"([0-9a-f]{18})-(\d{1,12})"')


def with_clock(request: Request, value: Any, now: datetime) -> Response:
    """A public answer in which `now` is told; 304 (RFC 9110 13.1.2) where it would differ by no more than a few seconds.

    A page is not told that its browser was answered 304: it reads the clock that came with what is shown again. So the
    tag says when that was, and only for a while is it one of this answer's.
    """
    content = dump_json(value)
    said = blake2b(content.replace(instant(now).encode(), b""), digest_size=9).hexdigest()
    at, headers = int(now.timestamp()), {"Cache-Control": "no-cache"}
    for held in _HELD.finditer(request.headers.get("if-none-match", "")):
        if held[1] == said and 0 <= at - int(held[2]) <= BEHIND_S:
            return Response(status_code=304, headers=headers | {"ETag": held[0]})
    return Response(content, headers=headers | {"ETag": f'W/"{said}-{at}"'}, media_type="application/json")
