"""Stores and servers that benchmarks of the gateway stand on."""

import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from bench.http import Line, Server, start
from bench.members.reads import GIVE_TIME, sign_in
from onebox.environment import UPSTREAMS, database_variable
from onebox.split import uvicorn_command
from onebox.stores import Postgres, Valkey
from services.members.settings import SANDBOX_KEY

MEMBERS = 64

Begin = Callable[[list[str], dict[str, str], int, str, Path], Server]


async def sign_in_all(port: int, database: str) -> list[str]:
    """Tokens of members with a year each."""
    line = (await asyncio.get_running_loop().create_connection(Line, "127.0.0.1", port))[1]
    tokens = [(await sign_in(line))["access_token"] for _ in range(MEMBERS)]
    line.close()
    connection = await asyncpg.connect(database.replace("+asyncpg", ""))
    await connection.execute(GIVE_TIME)
    await connection.close()
    return tokens


@dataclass(frozen=True)
class Stage:
    """Stores of their own, in a folder that is gone afterwards, and what starts servers on them."""

    folder: Path
    members: str
    common: dict[str, str]
    begin: Begin

    @property
    def log(self) -> Path:
        """What all servers say."""
        return self.folder / "log"

    def whole(self) -> Server:
        """Everything in one process."""
        return self.begin(
            [sys.executable, "-m", "onebox", "up"], self.common, int(self.common["HEIKA_PORT"]), "/readyz", self.log
        )

    def direct(self, port: int) -> Server:
        """The members service alone, with its periodic work, as in production: one that has settled looks for garbage less often."""
        command = uvicorn_command("services.members.app:app", "127.0.0.1", port)
        return self.begin(command, self.common | {"HEIKA_INSTANCE": "bench"}, port, "/healthz", self.log)

    def sign_in(self, port: int) -> Path:
        """A file with tokens of members, from who listens at this port."""
        file = self.folder / "tokens"
        file.write_text("\n".join(asyncio.run(sign_in_all(port, self.members))))
        return file


@contextmanager
def stores() -> Iterator[tuple[Path, Postgres, Valkey, Begin]]:
    """A folder that is gone afterwards, PostgreSQL and Valkey in it, and a starter of servers, which all end with them."""
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        folder.chmod(0o755)
        postgres, valkey = Postgres(folder / "postgres"), Valkey(folder / "valkey")
        for store in (postgres, valkey):
            store.start()
            stack.callback(store.stop)
        stack.callback(postgres.erase)

        def begin(command: list[str], environment: dict[str, str], port: int, path: str, log: Path) -> Server:
            server = start(command, environment, port, path, log)
            stack.callback(server.process.wait, 30)
            stack.callback(server.process.terminate)
            return server

        yield folder, postgres, valkey, begin


@contextmanager
def stage(one: int) -> Iterator[Stage]:
    """Stores, and the environment of servers on them, of which the whole one listens at port `one`."""
    with stores() as (folder, postgres, valkey, begin):
        postgres.ensure_database(*UPSTREAMS)
        common = {
            "HEIKA_ENV": "sandbox",
            "HEIKA_DATA": str(folder / "heika"),
            "HEIKA_PORT": str(one),
            "HEIKA_JWKS_URL": f"http://127.0.0.1:{one}/.well-known/jwks.json",
            "HEIKA_LOG_LEVEL": "warning",
            "REDIS_URL": valkey.url,
            "MEMBERS_KEY": SANDBOX_KEY,
        } | {database_variable(name): postgres.url(name) for name in UPSTREAMS}
        yield Stage(folder, postgres.url("members"), common, begin)
