"""A stage for measurements: one process of a service on stores of its own, its crowd's tokens, and their connections."""

import asyncio
import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from joserfc.jwk import OKPKey

from bench.http import Line, Server, must, request, start
from bench.load import token
from kit.migrations import upgrade
from onebox.split import free_ports, uvicorn_command
from onebox.stores import Postgres, Valkey

AT_ONCE = 100


@dataclass(frozen=True)
class Stage:
    """What is running, in a folder that is gone afterwards; `url` is the service's database."""

    server: Server
    postgres: Postgres
    valkey: Valkey
    folder: Path
    url: str
    key: OKPKey

    @property
    def plain_url(self) -> str:
        """The database as asyncpg takes it."""
        return self.url.replace("+asyncpg", "")

    def bearers(self, count: int) -> list[str]:
        """Tokens of so many new members."""
        return [token(self.key).decode().removeprefix("Bearer ") for _ in range(count)]

    async def arrive(self, bearers: Sequence[str], path: str) -> list[Line]:
        """The crowd's connections; each asks for `path` first: what asks nothing is not kept open, and tokens get known."""
        lines: list[Line] = []
        for first in range(0, len(bearers), AT_ONCE):
            some = bearers[first : first + AT_ONCE]
            lines += await asyncio.gather(*(self._line(request("GET", path, bearer)) for bearer in some))
        return lines

    async def _line(self, greeting: bytes) -> Line:
        line = (await asyncio.get_running_loop().create_connection(Line, "127.0.0.1", self.server.port))[1]
        must(await line.ask(greeting))
        return line


@contextmanager
def stage(service: str, *, floor: Sequence[str] = (), options: Sequence[str] = ()) -> Iterator[Stage]:
    """Run one process of a service; `floor` makes a database of that name for pgbench, `options` are uvicorn's."""
    key = OKPKey.generate_key("Ed25519", parameters={"kid": "bench", "use": "sig", "alg": "EdDSA"})
    served = _publish(key)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        postgres, valkey = Postgres(folder / "postgres"), Valkey(folder / "valkey")
        server: Server | None = None
        try:
            postgres.start()
            valkey.start()
            postgres.ensure_database(service, "floor")
            if floor:
                postgres.query(*floor, database="floor")
            url = postgres.url(service)
            asyncio.run(upgrade(service, url))
            (port,) = free_ports(1)
            environment = {
                "HEIKA_ENV": "sandbox",
                "HEIKA_DATA": str(folder / "heika"),
                "HEIKA_JWKS_URL": f"http://127.0.0.1:{served.server_address[1]}/jwks.json",
                "HEIKA_COUPON_KEY": "k" * 32,
                "REDIS_URL": valkey.url,
                f"{service.upper()}_DATABASE_URL": url,
            }
            command = [*uvicorn_command(f"services.{service}.app:app", "127.0.0.1", port), *options]
            server = start(command, environment, port, "/healthz", folder / "log")
            yield Stage(server, postgres, valkey, folder, url, key)
        finally:
            if server is not None:
                server.process.terminate()
                server.process.wait(30)
            valkey.stop()
            postgres.stop()
            postgres.erase()
            served.shutdown()


def _publish(key: OKPKey) -> ThreadingHTTPServer:
    jwks = json.dumps({"keys": [key.as_dict(private=False)]}).encode()

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(jwks)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    served = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    return served
