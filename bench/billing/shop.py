"""What the measurements of billing share: the gateway with billing behind it, on durable stores, and who calls it."""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc.jwk import OKPKey
from sqlalchemy import text
from starlette.types import ASGIApp, Receive, Scope, Send

from bench.load import token
from gateway.app import build
from gateway.routes import SERVICES
from kit import auth
from kit.app import Runtime, create_app
from kit.migrations import upgrade
from kit.settings import Settings
from onebox.stores import Postgres, Valkey
from services.billing.app import service
from services.billing.sandbox.provider import serving
from services.billing.settings import Settings as BillingSettings

WEBHOOKS = "/v1/webhooks/stripe"
SECRET = "whsec_of_the_bench"  # noqa: S105 - signs nothing but the bench's own messages


@dataclass
class Shop:
    """A running shop: `app` is the gateway, `floor` a database of its own on the same PostgreSQL."""

    app: ASGIApp
    rt: Runtime
    postgres: Postgres
    folder: Path

    async def rows(self, statement: str, **values: Any) -> list[Any]:
        """Rows of a statement, committed."""
        async with self.rt.db.session() as session, session.begin():
            result = await session.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []  # type: ignore[attr-defined]


async def ask(
    app: ASGIApp, method: str, path: str, *, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b""
) -> tuple[int, bytes]:
    """Status and body of one request, the app called as a server calls it."""
    status, parts = 0, []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "root_path": "",
    }
    await app(scope, receive, send)
    return status, b"".join(parts)


async def post(app: ASGIApp, path: str, bearer: bytes, body: dict[str, Any], status: int, key: str = "") -> Any:
    """The JSON that a POST answers; RuntimeError for another status."""
    headers = [(b"authorization", bearer)] if bearer else []
    headers += [(b"idempotency-key", key.encode())] if key else []
    answered, content = await ask(app, "POST", path, headers=headers, body=json.dumps(body).encode())
    if answered != status:
        raise RuntimeError(f"{path} answered {answered}: {content.decode()[:300]}")
    return json.loads(content)


async def bearers(count: int) -> list[bytes]:
    """Headers of so many members, verified beforehand: a signature is not what is measured."""
    key = OKPKey.generate_key("Ed25519", parameters={"kid": "bench", "use": "sig", "alg": "EdDSA"})
    auth.keys.publish({"keys": [key.as_dict(private=False)]})
    made = [token(key) for _ in range(count)]
    for bearer in made:
        await auth.verify(bearer.decode().removeprefix("Bearer "))
    return made


async def share(work: list[Any], clients: int, do: Callable[[Any], Awaitable[None]]) -> float:
    """Seconds in which so many clients do all the work, each one piece after the other."""

    async def client() -> None:
        while work:
            await do(work.pop())

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - started


def percentiles(seconds: list[float]) -> str:
    """The median and the 99th percentile in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return f"p50 {cuts[49] * 1000:7.2f} ms   p99 {cuts[98] * 1000:7.2f} ms"


async def _closed(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def open_shop() -> AsyncIterator[Shop]:
    """The gateway and billing with its loops, in one process as `make up` has them; webhooks come over HTTP."""
    with tempfile.TemporaryDirectory(prefix="heika-bench-") as temporary:
        folder = Path(temporary)
        postgres, valkey = Postgres(folder / "postgres"), Valkey(folder / "valkey")
        postgres.start()
        valkey.start()
        try:
            postgres.ensure_database("billing", "floor")
            await upgrade("billing", postgres.url("billing"))
            common: dict[str, Any] = {"env": "sandbox", "redis_url": valkey.url, "log_level": "error", "data": folder}
            settings = BillingSettings(
                database_url=postgres.url("billing"),
                limits_mode="off",
                stripe_webhook_secrets=(SECRET,),
                **common,
            )
            billing = create_app(service, settings)
            upstreams = dict.fromkeys(SERVICES, _closed) | {"billing": billing}
            gateway = build(upstreams, Settings(limits_mode="off", **common))
            async with serving(gateway) as address:
                settings.sandbox_webhook_url = f"{address}{WEBHOOKS}"
                async with billing.router.lifespan_context(billing):
                    yield Shop(gateway, billing.state.runtime, postgres, folder)
        finally:
            valkey.stop()
            postgres.stop()
