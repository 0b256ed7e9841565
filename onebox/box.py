"""A data folder in use: its lock, its stores, and an environment in which every service finds them."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import structlog

from onebox import prepared
from onebox.child import FolderLock
from onebox.environment import (
    UPSTREAMS,
    Place,
    database_variable,
    defaults,
    fill,
    kept_secrets,
    needs_postgres,
    needs_valkey,
)
from onebox.stores import Postgres, Valkey
from onebox.trouble import FolderInUse, Trouble

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.5
LONGEST_PAUSE_S = 5.0


class Store(Protocol):
    """What a watched store can do."""

    @property
    def running(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Box:
    """The stores of a data folder; those that the user's environment replaces are not started."""

    def __init__(self, where: Place) -> None:
        self.where = where
        self.postgres = Postgres(where.data / "postgres", prepared=prepared.find())
        self.valkey = Valkey(where.data / "valkey")
        self._lock = FolderLock(where.data)
        self._stores: Sequence[Store] = ()

    @contextlib.contextmanager
    def opened(self, meanwhile: Callable[[], None] | None = None) -> Iterator[None]:
        """Own the folder and run its stores, doing something else `meanwhile`; the environment is complete inside."""
        self._lock.take()
        try:
            with ThreadPoolExecutor() as pool:
                self._choose()
                starts = [pool.submit(self._start, store) for store in self._stores]
                try:
                    self._name_everything()
                    if meanwhile is not None:
                        meanwhile()
                finally:
                    failed = [error for start in starts if (error := start.exception())]
                for error in failed:
                    raise error
            yield
        finally:
            self.close()

    def attached(self) -> contextlib.AbstractContextManager[None]:
        """The stores, whether a running Heika has started them already or not; production has its own environment."""
        if os.environ.get("HEIKA_ENV") == "production":
            return contextlib.nullcontext()
        try:
            self._lock.take()
        except FolderInUse:
            return self._borrowed()
        return self.opened()

    def close(self) -> None:
        """Stop the stores in order and let go of the folder."""
        for store in self._stores:
            with contextlib.suppress(Trouble):
                store.stop()
        self._stores = ()
        self._lock.release()

    def _start(self, store: Store) -> None:
        store.start()
        if store is self.postgres:
            self.postgres.ensure_database(*UPSTREAMS)

    async def watch(self) -> None:
        """Start again whatever store has ended; never returns."""
        await asyncio.gather(*(self._keep(store) for store in self._stores))

    async def settle(self) -> None:
        """When everything is ready and the disk has time: see Postgres.settle."""
        if self.postgres in self._stores:
            with contextlib.suppress(RuntimeError):
                await asyncio.to_thread(self.postgres.settle)

    async def _keep(self, store: Store) -> None:
        name = type(store).__name__
        pause = LOOK_EVERY_S
        while True:
            await asyncio.sleep(pause)
            if store.running:
                pause = LOOK_EVERY_S
                continue
            log.warning("store ended, starting it again", store=name)
            try:
                await asyncio.to_thread(store.start)
                log.warning("store started again", store=name)
            except (Trouble, OSError) as error:
                pause = min(pause * 2, LONGEST_PAUSE_S)
                log.exception("store did not start", store=name, error=str(error))

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[None]:
        self._name_everything()
        yield

    def _choose(self) -> None:
        stores: list[Store] = []
        if needs_postgres():
            stores.append(self.postgres)
        if needs_valkey():
            stores.append(self.valkey)
        self._stores = stores

    def _name_everything(self) -> None:
        fill(kept_secrets(self.where.data) if not os.environ.get("STRIPE_SECRET_KEY") else self._without_stripe())
        fill(defaults(self.where))
        os.environ["HEIKA_DATA"] = str(self.where.data)
        if needs_postgres():
            fill({database_variable(name): self.postgres.url(name) for name in UPSTREAMS})
        if needs_valkey():
            fill({"REDIS_URL": self.valkey.url})

    def _without_stripe(self) -> dict[str, str]:
        """A real provider signs with its own secret, which ours must not stand in for."""
        return {name: value for name, value in kept_secrets(self.where.data).items() if not name.startswith("STRIPE")}
