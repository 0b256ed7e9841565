"""Landing pages: what an invitation's or a channel's link opens where no H5 app was put in their place."""

import json
import re
import secrets
from pathlib import Path
from typing import Annotated, Final

from fastapi import Path as InPath
from fastapi import Query
from fastapi.responses import HTMLResponse

from kit.app import router

routes = router(tags=["invitations"])

PAGE: Final = Path(__file__).with_name("landing.html").read_text("utf-8")
WORD: Final = r"^[A-Za-z0-9_-]+$"

Code = Annotated[str, InPath(min_length=2, max_length=64, pattern=WORD)]


@routes.get("/i/{code}", response_class=HTMLResponse)
async def invitation_page(
    code: Code,
    channel: Annotated[
        str | None, Query(min_length=2, max_length=64, pattern=WORD, description="where it was shared")
    ] = None,
) -> HTMLResponse:
    """The page of an invitation's link: notes the touch, under the `heika.visitor_id` that it keeps in the browser."""
    return _page({"invite_code": code} | ({"channel": channel} if channel else {}), code)


@routes.get("/c/{code}", response_class=HTMLResponse)
async def channel_page(code: Code) -> HTMLResponse:
    """The page of a channel's link: notes the touch, as an invitation's does."""
    return _page({"channel": code}, "")


def _page(opened: dict[str, str], code: str) -> HTMLResponse:
    # Looking at a link is no touch: previews and crawlers do, and they run no scripts.
    nonce = secrets.token_urlsafe(16)
    words = {"nonce": nonce, "code": code, "opened": json.dumps(opened)}
    headers = {
        "Content-Security-Policy": (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Cache-Control": "private, no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(re.sub(r"\{\{(\w+)\}\}", lambda word: words[word[1]], PAGE), headers=headers)
