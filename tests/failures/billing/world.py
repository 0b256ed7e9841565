"""A world in which anything may go wrong: calls, webhooks, events between services, and the process itself."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import Connection
from sqlalchemy import event as hooks

from kit import clock
from kit.ids import new_id
from services.billing.sandbox.faults import MAX_TIMES
from tests.harness import Api
from tests.services.billing.till import Till

PATIENCE = 12
SOON = [timedelta(seconds=20), timedelta(seconds=100)]
LATER = [timedelta(hours=1), timedelta(days=2)]


class Crash(Exception):
    """The process is dead from here on."""


class Crashes:
    """Lets billing die at its n-th commit of something, before or right after it; dead, it reaches no database."""

    def __init__(self, api: Api) -> None:
        engine = api.rt.db.engine.sync_engine
        hooks.listen(engine, "commit", self._on_commit)
        hooks.listen(engine, "before_cursor_execute", self._on_statement)
        hooks.listen(engine, "after_cursor_execute", self._on_result)
        hooks.listen(engine, "rollback", self._on_rollback)
        self._engine = engine
        self._left: int | None = None
        self._after = False
        self._dead = False
        self.died = False

    def arm(self, commit: int, *, after: bool) -> None:
        """Die at this commit, counted from 1."""
        self._left, self._after, self._dead, self.died = commit, after, False, False

    def disarm(self) -> None:
        """Die no more."""
        self._left, self._dead = None, False

    def revive(self) -> None:
        """The process is started again, if it was dead."""
        self._dead = False

    def _on_commit(self, connection: Connection) -> None:
        if self._dead:
            self._cut(connection)
        if not connection.info.pop("wrote", False) or self._left is None:
            return
        self._left -= 1
        if self._left == 0:
            self._left = None
            self._dead = self.died = True
            if not self._after:
                self._cut(connection)

    def _cut(self, connection: Connection) -> None:
        # A dead process' connection ends, and with it what was not committed.
        connection.invalidate()
        raise Crash

    def _on_statement(self, *_: Any) -> None:
        if self._dead:
            raise Crash

    def _on_result(self, connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        if cursor.rowcount > 0 and not statement.lstrip().startswith("SELECT"):
            connection.info["wrote"] = True

    def _on_rollback(self, connection: Connection) -> None:
        if not connection.invalidated:
            connection.info.pop("wrote", None)


class World:
    """Two services, the provider between them and the payers, and a person who does not give up."""

    def __init__(self, till: Till, members: Api) -> None:
        self.till = till
        self.billing = till.api
        self.members = members
        self.crashes = Crashes(till.api)
        self.member = new_id()
        self.news = "in order"
        self._told = {"billing": 0, "members": 0}
        self.heard: list[Any] = []

    async def faults(self, *wanted: dict[str, Any]) -> None:
        """What shall go wrong at the provider, in place of what was wished for before."""
        full = [{"times": MAX_TIMES} | fault for fault in wanted]
        answer = await self.till.client.put("/v1/sandbox/faults", json={"faults": full})
        assert answer.status_code == 200, answer.text

    async def deliver(self) -> int:
        """Let each service hear what the other told since; how much that was."""
        count = 0
        for teller, listener in ((self.billing, self.members), (self.members, self.billing)):
            name = teller.rt.service
            last, events = await teller._told_since(self._told[name])
            if self.news == "reorder":
                events.reverse()
            await listener.handle(*events, *(events if self.news == "duplicate" else ()))
            # Not before: who dies while listening hears it all again.
            self._told[name] = last
            self.heard += events
            count += len(events)
        return count

    async def settle(self) -> int:
        """All that is due, and all that follows from it; how much that was."""
        total = 0
        while True:
            try:
                total += await self.billing.run_due() + await self.members.run_due()
                told = await self.deliver()
            except Crash:
                self.crashes.revive()
                continue
            # Each was left with nothing to do, and only news can have given it something since.
            if not told:
                return total
            total += told

    async def wait(self, *steps: timedelta) -> None:
        """Time passes, and what becomes due is done."""
        for step in steps:
            self.billing.clock.advance(step)
            await self.settle()

    async def insist(self, ask: Callable[[], Any], *done: int) -> httpx.Response:
        """Ask again, as an app does, until it is done; between two tries some seconds pass, and the process is back."""
        said = ""
        for _ in range(PATIENCE):
            answer: httpx.Response = await ask()
            if answer.status_code in done:
                return answer
            said = answer.text
            assert answer.status_code in (409, 500, 503), answer.text
            self.crashes.revive()
            self.billing.clock.advance(timedelta(seconds=7))
        raise AssertionError(said)

    async def order(self, member: UUID | None = None, **body: Any) -> dict[str, Any]:
        """An order with its checkout."""
        member, key = member or self.member, str(new_id())
        placed = await self.insist(lambda: self.till.order(member, key=key, **body), 200, 201)
        found: dict[str, Any] = placed.json()
        return found

    async def pay(self, order: dict[str, Any], **how: Any) -> None:
        """Press the button until the session is paid; what follows is not waited for."""
        path = f"/v1/{order['checkout']['url'].partition('/v1/')[2]}/pay"

        async def press() -> httpx.Response:
            answer = await self.till.client.post(path, json=how)
            if answer.status_code == 409:
                found = "SELECT 1 FROM sandbox_session WHERE payment_status = 'paid' AND url = :url"
                paid = await self.billing.sql(found, url=order["checkout"]["url"])
                return httpx.Response(200 if paid else 409)
            return answer

        await self.insist(press, 200)

    async def buy(self, **body: Any) -> dict[str, Any]:
        """An order that is paid, with all that follows from it."""
        order = await self.order(**body)
        await self.pay(order)
        await self.settle()
        return order

    async def read(self, order: dict[str, Any]) -> dict[str, Any]:
        """The order now."""
        return await self.till.read(UUID(order.get("member_id", str(self.member))), order["id"])

    async def segments(self, member: UUID | None = None) -> list[tuple[str, str]]:
        """Source and id of what gives a member time, as members shows it, without what was taken away."""
        path, headers = "/v1/me/membership/segments", self.members.member(member or self.member)
        answer = await self.members.client.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        found = answer.json()["items"]
        live = sorted((row for row in found if row["state"] != "revoked"), key=lambda row: row["starts_at"])
        # Nobody holds two segments for one time.
        assert all(before["ends_at"] <= after["starts_at"] for before, after in pairwise(live)), live
        return [(row["source"], row["source_id"]) for row in live]

    async def until(self) -> datetime:
        """When the member's time ends."""
        answer = await self.members.client.get("/v1/me/membership", headers=self.members.member(self.member))
        return datetime.fromisoformat(answer.json()["ends_at"])

    async def wait_until(self, moment: datetime) -> None:
        """Time passes up to a moment, and what becomes due is done."""
        await self.wait(moment - clock.now())
