"""The ledger while time passes: news comes late and twice, admins give and take, and every reading is of its instant."""

import random
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from contracts.billing import OrderPaid, OrderRefunded
from contracts.calendar import Piece, Span, pack
from kit import clock
from kit.events import Event
from kit.ids import new_id
from tests.harness import Api
from tests.services.members.test_membership import paid, refunded

STEPS = 20
READINGS = 15


class Life:
    """A member, what is known of them by now, and what is still on its way."""

    def __init__(self, api: Api, chance: random.Random) -> None:
        self.api = api
        self.chance = chance
        self.member_id = new_id()
        self.on_the_way: list[Event] = []
        self.orders: dict[UUID, OrderPaid] = {}
        self.refunds: dict[UUID, datetime] = {}
        self.comps: dict[UUID, Piece] = {}

    async def step(self) -> None:
        """Something happens, or some time passes, or some news arrives."""
        deeds = (self.buy, self.buy, self.refund, self.grant, self.revoke, self.wait, self.hear, self.hear)
        await self.chance.choice(deeds)()

    async def buy(self) -> None:
        order = paid(self.member_id, self.chance.choice((1, 3)), clock.now())
        self.orders[order.order_id] = order
        self.on_the_way += [order, order]

    async def refund(self) -> None:
        left = [order for order_id, order in self.orders.items() if order_id not in self.refunds]
        if left:
            event: OrderRefunded = refunded(self.chance.choice(left), clock.now())
            self.refunds[event.order_id] = event.refunded_at
            self.on_the_way += [event, event]

    async def grant(self) -> None:
        wanted: dict[str, Any] = self.chance.choice(({"days": 9}, {"months": 1}))
        answer = await self.api.client.post(self._grants, json=wanted | {"reason": "x"}, headers=self.api.admin())
        assert answer.status_code == 201, answer.text
        grant_id = UUID(answer.json()["source_id"])
        [row] = await self.api.sql("SELECT id, added_at FROM segment WHERE source_id = :id", id=grant_id)
        self.comps[grant_id] = Piece(row.id, row.added_at, **wanted)

    async def revoke(self) -> None:
        left = [(grant_id, comp) for grant_id, comp in self.comps.items() if comp.revoked_at is None]
        if left:
            grant_id, _ = self.chance.choice(left)
            answer = await self.api.client.delete(f"{self._grants}/{grant_id}", headers=self.api.admin())
            assert answer.status_code in (200, 204), answer.text
            [row] = await self.api.sql("SELECT revoked_at FROM segment WHERE source_id = :id", id=grant_id)
            self.comps[grant_id] = replace(self.comps[grant_id], revoked_at=row.revoked_at)

    async def wait(self) -> None:
        self.api.clock.advance(timedelta(hours=self.chance.randint(1, 900)))

    async def hear(self) -> None:
        self.chance.shuffle(self.on_the_way)
        if self.on_the_way:
            await self.api.handle(self.on_the_way.pop())

    @property
    def _grants(self) -> str:
        return f"/v1/admin/members/{self.member_id}/membership-grants"

    async def read(self) -> dict[str, Any]:
        answer = await self.api.client.get("/v1/me/membership", headers=self.api.member(self.member_id))
        body: dict[str, Any] = answer.json()
        return body

    async def spans(self) -> list[Span]:
        """What the calendar makes of all that happened, in order."""
        rows = await self.api.sql("SELECT id, source_id FROM segment WHERE member_id = :id", id=self.member_id)
        ids = {row.source_id: row.id for row in rows}
        pieces = [
            Piece(ids[order_id], order.paid_at, months=order.months, revoked_at=self.refunds.get(order_id))
            for order_id, order in self.orders.items()
        ]
        packed = pack([*pieces, *self.comps.values()], clock.ZONE)
        return sorted((span for span in packed.values() if span is not None and span[0] < span[1]), key=lambda s: s[0])


async def test_every_instant_is_read_as_the_facts_say_however_they_came(api: Api) -> None:
    for seed in range(3):
        life = Life(api, random.Random(seed))
        await api.sql(
            "INSERT INTO member (id, nickname, tier, frozen, note, version, created_at) "
            "VALUES (:id, 'x', 'potential', false, '', 1, now())",
            id=life.member_id,
        )
        for _ in range(STEPS):
            await life.step()
        while life.on_the_way:
            await life.hear()
        spans = await life.spans()
        rows = await api.sql(
            "SELECT starts_at, ends_at FROM segment WHERE member_id = :id AND starts_at < ends_at ORDER BY starts_at",
            id=life.member_id,
        )
        assert [tuple(row) for row in rows] == [tuple(span) for span in spans]
        for _ in range(READINGS):
            now = clock.now()
            held = await life.read()
            inside = [span for span in spans if span[0] <= now < span[1]]
            begun = [span for span in spans if span[0] <= now]
            assert held["status"] == ("active" if inside else "expired" if begun else "none"), (seed, now)
            if inside:
                # The end that is shown is where the unbroken run ends: nothing between that was not paid for.
                end = datetime.fromisoformat(held["ends_at"])
                run = [span for span in spans if inside[0][0] <= span[0] and span[1] <= end]
                assert all(a[1] == b[0] for a, b in pairwise(run))
                assert run[-1][1] == end
                assert end not in [span[0] for span in spans]
            if not [span for span in spans if span[1] > now]:
                break
            await life.wait()
