"""A service under test: its real app on its own copy of a migrated database, with tokens, events and the clock at hand."""

import asyncio
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import httpx
import redis
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import OKPKey
from sqlalchemy import Engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from kit import auth, clock, limits
from kit.app import Runtime, Service, create_app
from kit.audit import AdminActed
from kit.consume import Letter
from kit.db import Database
from kit.due import Due, run_due, waiting
from kit.events import EVENTS, Event
from kit.ids import new_id
from kit.log import configure_logs
from kit.migrations import SCRIPTS, upgrade
from kit.revocations import Revocations, revocations
from onebox.stores import Postgres, Valkey

T = TypeVar("T")
Run = Callable[..., AbstractAsyncContextManager["Api"]]

# Copying and making databases is most of what the stores do, and in memory it takes a third of the time.
MEMORY = Path("/dev/shm")  # noqa: S108 - the folders made there are ours and have our process' number
ROOM_BYTES = 2 * 2**30

_numbers = count()
_idle: defaultdict[Any, list[FastAPI]] = defaultdict(list)


def place() -> Path:
    """Where the tests' stores keep their files; what is killed there loses as much, or as little, as on a disk."""
    in_memory = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    return MEMORY if in_memory else Path(tempfile.gettempdir())


def new_folder() -> Path:
    """A folder open to PostgreSQL's system user, unlike pytest's own temporary ones."""
    folder = place() / f"heika-tests-{time.monotonic_ns()}-{os.getpid()}"
    folder.mkdir(mode=0o755)
    return folder


@cache
def signing_key() -> OKPKey:
    """The key that signs the tests' tokens."""
    return OKPKey.generate_key("Ed25519", parameters={"kid": "test", "use": "sig", "alg": "EdDSA"})


def sign(claims: dict[str, Any], key: OKPKey | None = None, **header: Any) -> str:
    """An access token with these claims over the usual ones."""
    now = int(clock.now().timestamp())
    usual = {
        "iss": auth.ISSUER,
        "aud": auth.AUDIENCE,
        "iat": now,
        "exp": now + auth.TOKEN_SECONDS,
        "jti": str(new_id()),
    }
    key = key or signing_key()
    return jwt.encode(
        {"alg": auth.ALGORITHM, "kid": key.kid, **header}, usual | claims, key, algorithms=[auth.ALGORITHM]
    )


class Keys(auth.Keys):
    """The keys in force, beside them always the tests' own: members' take turns when a test moves the clock by weeks."""

    def publish(self, jwks: Any) -> None:
        """Take these keys as the ones in force."""
        ours = signing_key().as_dict(private=False)
        super().publish({"keys": [*(key for key in jwks["keys"] if key["kid"] != ours["kid"]), ours]})


auth.keys.__class__ = Keys


_make_engine = Database._engine
_known: dict[str, Engine] = {}


def _engine(database: Database, size: int, *, overflow: int) -> AsyncEngine:
    """An engine that knows what earlier ones of its service have compiled, which is a sixth of what many a test costs."""
    made = _make_engine(database, size, overflow=overflow)
    engine = made.sync_engine
    known = _known.get(database.name)
    # A dialect knows its server from the first connection on.
    if known is None or known.dialect.server_version_info is None:
        _known[database.name] = engine
    else:
        engine.dialect.initialize = lambda _: None  # type: ignore[assignment, method-assign]
        engine.dialect = known.dialect
        engine.pool._dialect = known.dialect
        engine._compiled_cache = known._compiled_cache
    return made


Database._engine = _engine  # type: ignore[assignment, method-assign]


BEGINNING = datetime(2026, 11, 2, 12, tzinfo=clock.ZONE)
"""When every test begins: whatever day it really is, no month ends and no midnight comes by itself."""


class Clock:
    """The product's clock in a test; forward only, as in the sandbox."""

    def advance(self, by: timedelta) -> None:
        """Move it forward."""
        clock.set_offset(clock.offset() + by)

    def set(self, to: datetime) -> None:
        """Move it to an instant."""
        clock.set_offset(clock.offset() + (to - clock.now()))


class Api:
    """One running service, without its background loops: the test says when events and due work happen."""

    def __init__(self, client: httpx.AsyncClient, runtime: Runtime) -> None:
        self.client = client
        self.rt = runtime
        self.clock = Clock()
        self._seen = 0
        self._acts_seen = 0

    def member(self, member_id: UUID | None = None, **claims: Any) -> dict[str, str]:
        """Headers of a logged-in member."""
        subject = {"sub": str(member_id or new_id()), "role": "member", "scope": "", "sid": str(new_id())}
        return {"Authorization": f"Bearer {sign(subject | claims)}"}

    def admin(self, *scopes: str, admin_id: UUID | None = None) -> dict[str, str]:
        """Headers of an admin with these scopes, or all of them."""
        scope = " ".join(scopes or auth.SCOPES)
        claims = {"sub": str(admin_id or new_id()), "role": "admin", "scope": scope, "sid": str(new_id())}
        return {"Authorization": f"Bearer {sign(claims)}"}

    def partner(self, partner_id: UUID | None = None) -> dict[str, str]:
        """Headers of a partner's client."""
        claims = {"sub": str(partner_id or new_id()), "role": "partner", "scope": "", "sid": str(new_id())}
        return {"Authorization": f"Bearer {sign(claims)}"}

    async def handle(self, *events: Event) -> None:
        """Deliver events as the consumer does; a handler's failure is the test's failure."""
        for event in events:
            letter = Letter(event.id, event.wire_type, event.model_dump_json(), None, None)
            await self.rt.consumer.deliver(letter)
        if events:
            failed = await self.sql(
                "SELECT error FROM event_failure WHERE event_id = ANY(:ids)", ids=[event.id for event in events]
            )
            assert failed == [], failed

    async def emitted(self) -> list[Event]:
        """The events written since the last call, oldest first; what the audit is told has a call of its own."""
        self._seen, events = await self._told_since(self._seen)
        return [event for event in events if not isinstance(event, AdminActed)]

    async def acted(self) -> list[AdminActed]:
        """What the audit was told since the last call, oldest first."""
        self._acts_seen, events = await self._told_since(self._acts_seen)
        return [event for event in events if isinstance(event, AdminActed)]

    async def _told_since(self, seen: int) -> tuple[int, list[Event]]:
        async with self.rt.db.session() as session:
            rows = await session.execute(
                text("SELECT id, type, body::text AS body FROM outbox WHERE id > :seen ORDER BY id"), {"seen": seen}
            )
            found = rows.all()
        return found[-1].id if found else seen, [EVENTS[row.type].model_validate_json(row.body) for row in found]

    async def run_due(self, jobs: tuple[Due, ...] | None = None) -> int:
        """Do all that is due now, or what these jobs do, as the background runs them: those whose look says something waits."""
        before = self.rt.done
        while True:
            seen = self.rt.done
            for job in await waiting(self.rt, jobs or self.rt.due):
                await run_due(self.rt, (job,))
            if self.rt.done == seen:
                return seen - before

    async def sql(self, statement: str, **values: Any) -> list[Any]:
        """Rows of a statement, committed; for looking at what no endpoint shows."""
        async with self.rt.db.session() as session, session.begin():
            result = await session.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []  # type: ignore[attr-defined]


class Stores:
    """The stores of one test worker, and the migrated databases that tests copy."""

    def __init__(self, postgres: Postgres, valkey: Valkey) -> None:
        self.postgres = postgres
        self.valkey = valkey
        self.redis = redis.Redis.from_url(valkey.url)
        self._templates: set[str] = set()
        # Each test has an event loop of its own, and connecting anew for every copy costs more than the copy.
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connection = self._elsewhere(_connect(postgres.url("postgres"))).result()
        self._turn = asyncio.Lock()
        self._removals: list[Future[None]] = []

    async def database(self, service: Service) -> str:
        """The name of a fresh copy of a service's migrated database; a test's own service has no migrations."""
        template = f"template_{service.name}"
        if template not in self._templates:
            await asyncio.to_thread(self.postgres.ensure_database, template)
            url = self.postgres.url(template)
            await (upgrade(service.name, url) if (SCRIPTS / service.name).is_dir() else _create_all(service, url))
            # A first connection writes the catalog's cache file, which every copy then has from the start.
            await (await _connect(url)).close()
            self._templates.add(template)
        name = f"{service.name}_{next(_numbers)}"
        # Through the write-ahead log, PostgreSQL's default, copying takes twice as long.
        copy = f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY'
        await asyncio.wrap_future(self._elsewhere(self._do(copy)))
        return name

    def remove(self, name: str) -> None:
        """Drop a copy; nobody waits for it, the next copy comes after it."""
        self._removals.append(self._elsewhere(self._do(f'DROP DATABASE "{name}" WITH (FORCE)')))

    def close(self) -> None:
        """Wait for the removals, each of which must have worked, and let go of the connection."""
        self.redis.close()
        for removal in self._removals:
            removal.result()
        self._elsewhere(self._connection.close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _elsewhere(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _do(self, statement: str) -> None:
        async with self._turn:
            await self._connection.execute(statement)


async def _connect(url: str) -> asyncpg.Connection:
    parts = make_url(url)
    return await asyncpg.connect(user=parts.username, database=parts.database, host=parts.query["host"])


async def _create_all(service: Service, url: str) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(service.metadata.create_all)
    await engine.dispose()


@asynccontextmanager
async def running(stores: Stores, service: Service, *, seed: bool = False, **options: Any) -> AsyncIterator[Api]:
    """The service on its own database; `options` are settings by field name."""
    name = await stores.database(service)
    values: dict[str, Any] = {
        "env": "sandbox",
        "database_url": stores.postgres.url(name),
        "redis_url": stores.valkey.url,
        "background": False,
        "pool_size": 10,
        "log_level": "error",
    }
    settings = service.settings(**(values | options))
    # Routes are analysed when an app first meets them, which takes longer than many a test; all else is the lifespan's.
    idle = _idle[service.name, id(service.routers), settings.sandbox, settings.proxy_networks]
    app = idle.pop() if idle else create_app(service, settings)
    app.state.settings = settings
    app.state.service = service if seed else Service(**{**vars(service), "seed": None})
    try:
        async with app.router.lifespan_context(app):
            held: Any = auth.keys._set.as_dict() if auth.keys._set else {"keys": []}
            auth.keys.publish(held)
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://heika.test") as client:
                api = Api(client, app.state.runtime)
                yield api
    finally:
        stores.remove(name)
        idle.append(app)


def forget() -> None:
    """Bring the process' own state back to the beginning: clock, keys, revocations, local limits, logs."""
    # A test that captures the output leaves the logs writing to a closed file, and whoever logs next would fail.
    configure_logs("error")
    Clock().set(BEGINNING)
    vars(auth.keys).update(vars(auth.Keys()))
    auth.verified.clear()
    vars(revocations).update(vars(Revocations()))
    limits._local.clear()
    limits._redis_away_until = None
