"""The ledger as a rule: whatever happens in whatever order, the stored spans are what the calendar says of the facts."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from contracts.billing import OrderPaid, OrderRefunded
from contracts.calendar import Piece, pack
from contracts.members import MembershipChanged
from contracts.referrals import RewardGranted
from kit import clock
from kit.events import Event
from kit.ids import new_id
from tests.harness import Api
from tests.services.members.test_membership import paid, refunded

START = datetime(2031, 1, 31, 2, 0, tzinfo=UTC)


def a_history(chance: random.Random, member_id: UUID) -> list[Event]:
    """Purchases, rewards and refunds of a member over half a year."""
    facts: list[Event] = []
    for _ in range(chance.randint(1, 9)):
        at = START + timedelta(hours=chance.randint(0, 4000))
        if chance.random() < 0.3:
            days = chance.randint(1, 40)
            facts.append(RewardGranted(reward_id=new_id(), member_id=member_id, days=days, reason="x", granted_at=at))
            continue
        order = paid(member_id, chance.choice((1, 3, 12)), at)
        facts.append(order)
        if chance.random() < 0.5:
            facts.append(refunded(order, at + timedelta(hours=chance.choice((0, 1, 500, 3000)))))
    return facts


def expected(facts: list[Event], ids: dict[UUID, UUID]) -> dict[UUID, Any]:
    """The spans by source id, from the facts alone; `ids` are the segments' own, which break ties."""
    ended = {fact.order_id: fact.refunded_at for fact in facts if isinstance(fact, OrderRefunded)}
    pieces = {}
    for fact in facts:
        if isinstance(fact, OrderPaid):
            source = fact.order_id
            pieces[source] = Piece(ids[source], fact.paid_at, months=fact.months, revoked_at=ended.get(source))
        elif isinstance(fact, RewardGranted):
            pieces[fact.reward_id] = Piece(ids[fact.reward_id], fact.granted_at, days=fact.days)
    spans = pack(pieces.values(), clock.ZONE)
    return {source: spans[ids[source]] for source in pieces}


async def test_any_order_of_arrival_gives_the_same_spans(api: Api) -> None:
    for seed in range(15):
        await _check(api, random.Random(seed))
    assert await api.sql("SELECT * FROM early_revocation") == []


async def _check(api: Api, chance: random.Random) -> None:
    member_id = new_id()
    facts = a_history(chance, member_id)
    arriving = facts * 2
    chance.shuffle(arriving)
    await api.handle(*arriving)

    rows = await api.sql(
        "SELECT id, source_id, starts_at, ends_at, revoked_at FROM segment WHERE member_id = :id ORDER BY starts_at",
        id=member_id,
    )
    spans = {row.source_id: (row.starts_at, row.ends_at) if row.starts_at else None for row in rows}
    assert spans == expected(facts, {row.source_id: row.id for row in rows})
    held = [row for row in rows if row.starts_at is not None]
    assert all(earlier.ends_at <= later.starts_at for earlier, later in pairwise(held))

    told = [event for event in await api.emitted() if isinstance(event, MembershipChanged)]
    assert [event.version for event in told] == list(range(1, len(told) + 1))
    live = [(row.source_id, row.starts_at, row.ends_at) for row in held if row.revoked_at is None]
    assert [(piece.source_id, piece.starts_at, piece.ends_at) for piece in told[-1].segments] == live
    assert told[-1].access_until == max((row.ends_at for row in held), default=None)
