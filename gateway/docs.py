"""The documentation pages: one document, Swagger UI and ReDoc, all from this address."""

import asyncio
import re
import time
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import structlog
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html, get_swagger_ui_oauth2_redirect_html
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope

from gateway.calls import NoAnswer, ask
from gateway.inbound import Inbound
from gateway.openapi import Document, merge
from gateway.own import Own, tagged
from gateway.routes import SERVICES
from kit.idempotency import EXAMPLE_KEY
from kit.settings import Settings
from kit.text import dump_json

log = structlog.get_logger(__name__)

ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "redoc.standalone.js": "text/javascript; charset=utf-8",
    "favicon.png": "image/png",
}
KEPT_S: Final = 300.0
INCOMPLETE_KEPT_S: Final = 2.0

# The one thing ReDoc's bundle fetches from elsewhere, whatever its options say.
_FOREIGN_LOGO: Final = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_OURS: Final = (Path(__file__).parent / "docs_page.js").read_bytes()
_PAGE: Final = b"const ui = SwaggerUIBundle({"
_INLINE_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


@cache
def asset(name: str) -> bytes:
    """A file of the pages, without anything that leads out of this address."""
    # Found, not imported: only its files are wanted.
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("fastapi-offline is not installed")
    content = (Path(spec.origin).parent / "static" / name).read_bytes()
    return content.replace(_FOREIGN_LOGO, b"/docs/assets/favicon.png")


def _policy(page: bytes) -> str:
    """The page's Content-Security-Policy (CSP 3): this address and the page's own inline scripts, nothing else."""
    hashes = [f"'sha256-{b64encode(sha256(inline).digest()).decode()}'" for inline in _INLINE_SCRIPT.findall(page)]
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {' '.join(hashes)}".rstrip(),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "worker-src 'self' blob:",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def _page(content: bytes, inbound: Inbound) -> Response:
    response = tagged(content, "text/html", "no-cache", inbound)
    response.headers["Content-Security-Policy"] = _policy(content)
    return response


@cache
def swagger_page() -> bytes:
    """Swagger UI; its Authorize dialog stays logged in across reloads."""
    html = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Heika 黑卡 API",
        swagger_js_url="/docs/assets/swagger-ui-bundle.js",
        swagger_css_url="/docs/assets/swagger-ui.css",
        swagger_favicon_url="/docs/assets/favicon.png",
        oauth2_redirect_url="/docs/oauth2-redirect",
        # Without a validator address Swagger UI asks validator.swagger.io about every public document.
        swagger_ui_parameters={
            "persistAuthorization": True,
            "displayRequestDuration": True,
            "filter": True,
            "docExpansion": "none",
            "validatorUrl": None,
        },
    )
    ours = b'...forHeika("%b"),' % EXAMPLE_KEY.encode()
    return bytes(html.body).replace(_PAGE, _OURS + _PAGE + ours, 1)


@cache
def redoc_page() -> bytes:
    """ReDoc."""
    html = get_redoc_html(
        openapi_url="/openapi.json",
        title="Heika 黑卡 API",
        redoc_js_url="/docs/assets/redoc.standalone.js",
        redoc_favicon_url="/docs/assets/favicon.png",
        with_google_fonts=False,
    )
    return bytes(html.body)


@cache
def oauth2_page() -> bytes:
    """Where Swagger UI's login by redirect would come back to."""
    return bytes(get_swagger_ui_oauth2_redirect_html().body)


class MergedDocument:
    """The merged document, asked of the services now and then."""

    def __init__(self, upstreams: Mapping[str, ASGIApp]) -> None:
        self._upstreams = upstreams
        self._content = b""
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def current(self) -> bytes:
        """The document's bytes; a service that does not answer is left out until it does."""
        async with self._asking:
            if time.monotonic() >= self._until:
                await self._renew()
        return self._content

    async def _renew(self) -> None:
        documents = await asyncio.gather(*(self._document(name) for name in SERVICES))
        known = {name: document for name, document in zip(SERVICES, documents, strict=True) if document is not None}
        self._content = await asyncio.to_thread(lambda: dump_json(merge(known)))
        self._until = time.monotonic() + (KEPT_S if len(known) == len(SERVICES) else INCOMPLETE_KEPT_S)

    async def _document(self, service: str) -> Document | None:
        describe = getattr(self._upstreams[service], "openapi", None)
        if describe is not None:
            # An app of this process can say it without JSON, and in a thread: it takes a while, once.
            told: Document = await asyncio.to_thread(describe)
            return told
        try:
            answer = await ask(self._upstreams[service], "GET", "/openapi.json", seconds=5.0)
            if answer.status == HTTPStatus.OK:
                document: Document = answer.json()
                return document
        except (NoAnswer, ValueError) as failure:
            log.warning("a service's document is missing", service=service, error=str(failure))
        return None


def endpoints(upstreams: Mapping[str, ASGIApp], _: Settings) -> dict[str, Own]:
    """`/openapi.json`, `/docs`, `/redoc` and the files they need."""
    merged = MergedDocument(upstreams)

    async def document(_: Scope, inbound: Inbound, __: Receive) -> Response:
        return tagged(await merged.current(), "application/json", "no-cache", inbound)

    async def swagger(_: Scope, inbound: Inbound, __: Receive) -> Response:
        return _page(swagger_page(), inbound)

    async def redoc(_: Scope, inbound: Inbound, __: Receive) -> Response:
        return _page(redoc_page(), inbound)

    async def redirect(_: Scope, inbound: Inbound, __: Receive) -> Response:
        return _page(oauth2_page(), inbound)

    async def file(scope: Scope, inbound: Inbound, _: Receive) -> Response:
        name = scope["path"].rsplit("/", 1)[1]
        return tagged(asset(name), ASSETS[name], "public, max-age=3600", inbound)

    async def front_door(_: Scope, __: Inbound, ___: Receive) -> Response:
        return RedirectResponse("/docs", 307)

    return {
        "/": {"GET": front_door},
        "/openapi.json": {"GET": document},
        "/docs": {"GET": swagger},
        "/docs/oauth2-redirect": {"GET": redirect},
        "/redoc": {"GET": redoc},
        **{f"/docs/assets/{name}": {"GET": file} for name in ASSETS},
    }
