"""Billing and members together, carried through months: what auto-renewal tests walk through."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx

from contracts.notices import BillingNoticeWanted
from kit import clock
from kit.due import Due, next_due
from kit.events import Event
from kit.ids import new_id
from services.billing import renewal_charges, renewals, subscription_pages
from services.billing.app import service as billing
from services.members.app import service as members
from tests.harness import Api
from tests.services.billing.till import NEWS, Till

MONTH = "black-card-1m"
BOUGHT = "2027-01-31 10:00"
ENDS = "2027-02-28 10:00"
ROUNDS = 50
STOPS = (renewals.due, renewal_charges.due)
WALKED = (*NEWS, *STOPS, subscription_pages.due)


class World:
    """Two running services, each told what the other tells, and a clock that stops wherever something is due."""

    def __init__(self, till: Till, people: Api) -> None:
        self.till = till
        self.api = till.api
        self.people = people
        self.told: list[Event] = []

    async def settle(self, jobs: tuple[Due, ...] | None = None) -> None:
        """Do what is due and carry what is told, until both are quiet; with `jobs`, only these of billing's."""
        for _ in range(ROUNDS):
            await self.api.run_due(jobs)
            if jobs is None:
                await self.people.run_due()
            # Both were left with nothing to do, and only news can have given them something since.
            if not await self.carry():
                return
        raise AssertionError("the services do not come to rest")

    async def carry(self) -> int:
        """Carry what was told since the last time from each service to the other; how many events there were."""
        ours, theirs = await self.api.emitted(), await self.people.emitted()
        self.told += ours
        for event in ours:
            if type(event) in members.handlers:
                await self.people.handle(event)
        for event in theirs:
            if type(event) in billing.handlers:
                await self.api.handle(event)
        return len(ours) + len(theirs)

    async def walk(self, to: datetime) -> None:
        """Let time pass until then, stopping wherever auto-renewal has something to do."""
        await self.settle()
        while (stop := await next_due(self.api.rt, STOPS)) is not None and stop <= to:
            if stop > clock.now():
                self.api.clock.set(stop)
            await self.settle(WALKED)
        if to > clock.now():
            self.api.clock.set(to)
        await self.settle()

    async def pass_by(self, **span: float) -> None:
        """Let so much time pass."""
        await self.walk(clock.now() + timedelta(**span))

    async def subscribe(self, member_id: UUID, plan_code: str = MONTH) -> dict[str, Any]:
        """A paid order that renews, heard by both."""
        order = await self.till.buy(member_id, plan_code=plan_code, auto_renew=True)
        await self.settle()
        return order

    async def bank(self, member_id: UUID, *answers: str) -> None:
        """What the member's bank says to the next charges."""
        path = f"/v1/sandbox/payers/{member_id}"
        assert (await self.till.client.put(path, json={"next_charges": answers})).status_code == 200

    async def subscription(self, member_id: UUID) -> dict[str, Any]:
        """How auto-renewal stands, as the member sees it."""
        answer = await self.till.client.get("/v1/me/subscription", headers=self.api.member(member_id))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def act(self, member_id: UUID, what: str, **body: Any) -> httpx.Response:
        """Cancel, resume, change the card or pay."""
        path = f"/v1/me/subscription/{what}"
        json = body if what == "card" else None
        answer = await self.till.client.post(path, json=json, headers=self.api.member(member_id))
        await self.settle()
        return answer

    async def press(self, page: dict[str, Any], button: str = "pay") -> httpx.Response:
        """Press a button on a page of the provider's, and let the webhooks arrive."""
        path = page["url"].partition("/v1/")[2]
        answer = await self.till.client.post(f"/v1/{path}/{button}", json={} if button == "pay" else None)
        await self.settle()
        return answer

    async def membership(self, member_id: UUID) -> dict[str, Any]:
        """The membership as members shows it."""
        answer = await self.people.client.get("/v1/me/membership", headers=self.people.member(member_id))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def spans(self, member_id: UUID) -> list[tuple[str, str]]:
        """Every live piece of the member's time, in order."""
        path = "/v1/me/membership/segments"
        answer = await self.people.client.get(path, params={"limit": 100}, headers=self.people.member(member_id))
        assert answer.status_code == 200, answer.text
        live = [piece for piece in answer.json()["items"] if piece["state"] != "revoked"]
        return sorted((piece["starts_at"], piece["ends_at"]) for piece in live)

    async def renewals(self, member_id: UUID) -> list[Any]:
        """The member's renewal orders: when they renew from, their status and total."""
        return await self.api.sql(
            'SELECT renews_from, status, total FROM "order" WHERE member_id = :id AND renews_from IS NOT NULL '
            "ORDER BY renews_from",
            id=member_id,
        )

    async def charges(self, member_id: UUID) -> list[Any]:
        """Every charge that the provider made or refused without the member being there."""
        return [
            row[0]
            for row in await self.api.sql(
                "SELECT status FROM sandbox_intent WHERE session_id IS NULL AND metadata ->> 'member_id' = :id ORDER BY id",
                id=str(member_id),
            )
        ]

    def notices(self, kind: str = "") -> list[BillingNoticeWanted]:
        """What billing wanted people to be told so far."""
        return [
            event for event in self.told if isinstance(event, BillingNoticeWanted) and (not kind or event.kind == kind)
        ]

    async def at_rest(self) -> None:
        """Whatever is done again does nothing."""
        assert (await self.api.run_due(), await self.carry()) == (0, 0)


def local(text: str) -> datetime:
    """A wall-clock time of the business zone, such as 2027-01-31 10:00."""
    return datetime.fromisoformat(text).replace(tzinfo=clock.ZONE)


def wall(moment: str) -> str:
    """An instant of an answer, to the minute, by the wall clock of the business zone."""
    return f"{datetime.fromisoformat(moment).astimezone(clock.ZONE):%Y-%m-%d %H:%M}"


async def subscribed(world: World, *answers: str) -> UUID:
    """A member whose month ends at ENDS, and what their bank will say then."""
    member = new_id()
    world.api.clock.set(local(BOUGHT))
    await world.subscribe(member)
    await world.bank(member, *answers)
    return member


async def unheard(world: World, *, times: int) -> None:
    """Let the provider do what it is asked, and neither its answers nor its webhooks arrive."""
    calls = {"target": "calls", "kind": "drop", "times": times, "seconds": 1.0, "match": "/v1/payment_intents"}
    deliveries = {"target": "deliveries", "kind": "delay", "times": 100, "seconds": 86_000.0}
    answer = await world.till.client.put("/v1/sandbox/faults", json={"faults": [calls, deliveries]})
    assert answer.status_code == 200, answer.text
