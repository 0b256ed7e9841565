"""The ledger as a rule: whatever happens in whatever order, the stored spans are what the calendar says of the facts."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from contracts.billing import CodeRedeemed, OrderDisputed, OrderPaid, OrderRefunded
from contracts.calendar import Piece, pack
from contracts.members import MembershipChanged
from contracts.referrals import RewardGranted
from kit import clock
from kit.events import Event
from kit.ids import new_id
from tests.harness import Api
from tests.services.members.test_membership import paid, refunded
from tests.services.members.test_sources import disputed, redeemed

START = datetime(2031, 1, 31, 2, 0, tzinfo=UTC)


def a_history(chance: random.Random, member_id: UUID) -> list[Event]:
    """Purchases, renewals, codes, rewards, refunds and disputes of a member over half a year."""
    facts: list[Event] = []
    for _ in range(chance.randint(1, 9)):
        at = START + timedelta(hours=chance.randint(0, 4000))
        kind = chance.random()
        if kind < 0.2:
            days = chance.randint(1, 40)
            facts.append(RewardGranted(reward_id=new_id(), member_id=member_id, days=days, reason="x", granted_at=at))
            continue
        if kind < 0.35:
            source = chance.choice(("gift", "redeem_code"))
            facts.append(redeemed(member_id, source, months=chance.choice((1, 3)), redeemed_at=at))
            continue
        grace = {"renews_from": at - timedelta(hours=chance.randint(0, 167))} if kind < 0.5 else {}
        order = paid(member_id, chance.choice((1, 3, 12)), at, **grace)
        facts.append(order)
        fate = chance.random()
        later = at + timedelta(hours=chance.choice((0, 1, 500, 3000)))
        if fate < 0.35:
            facts.append(refunded(order, later))
        elif fate < 0.7:
            decided = later + timedelta(hours=chance.choice((0, 2, 700, 1500)))
            facts += [
                disputed(order, "opened", later),
                disputed(order, chance.choice(("won", "won", "lost")), decided),
            ]
            if fate < 0.45:
                facts.append(refunded(order, decided + timedelta(hours=chance.choice((1, 400)))))
    return facts


def expected(facts: list[Event], ids: dict[UUID, UUID]) -> dict[UUID, Any]:
    """The spans by source id, from the facts alone; `ids` are the segments' own, which break ties."""
    ended = {fact.order_id: fact.refunded_at for fact in facts if isinstance(fact, OrderRefunded)}
    steps = {(fact.order_id, fact.outcome): fact.disputed_at for fact in facts if isinstance(fact, OrderDisputed)}
    pieces = {}
    for fact in facts:
        if isinstance(fact, OrderPaid):
            source = fact.order_id
            opened, won = steps.get((source, "opened")), steps.get((source, "won"))
            outs = [ended.get(source), None if won else opened]
            pieces[source] = Piece(
                ids[source],
                fact.paid_at,
                months=fact.months,
                not_before=fact.renews_from,
                revoked_at=min((out for out in outs if out), default=None),
                pauses=((opened, won),) if opened and won else (),
            )
        elif isinstance(fact, RewardGranted):
            pieces[fact.reward_id] = Piece(ids[fact.reward_id], fact.granted_at, days=fact.days)
        elif isinstance(fact, CodeRedeemed):
            pieces[fact.source_id] = Piece(fact.segment_id, fact.redeemed_at, months=fact.months)
    spans = pack(pieces.values(), clock.ZONE)
    return {source: spans[pieces[source].id] for source in pieces}


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
        "SELECT id, source_id, starts_at, ends_at, revoked_at IS NOT NULL OR pauses @@ '$[*][1] == null' AS out "
        "FROM segment WHERE member_id = :id ORDER BY starts_at, ends_at",
        id=member_id,
    )
    spans = {row.source_id: (row.starts_at, row.ends_at) if row.starts_at else None for row in rows}
    assert spans == expected(facts, {row.source_id: row.id for row in rows})
    held = [row for row in rows if row.starts_at is not None]
    assert all(earlier.ends_at <= later.starts_at for earlier, later in pairwise(held))

    told = [event for event in await api.emitted() if isinstance(event, MembershipChanged)]
    assert [event.version for event in told] == list(range(1, len(told) + 1))
    live = [(row.source_id, row.starts_at, row.ends_at) for row in held if not row.out]
    assert [(piece.source_id, piece.starts_at, piece.ends_at) for piece in told[-1].segments] == live
    assert told[-1].access_until == max((row.ends_at for row in held), default=None)
