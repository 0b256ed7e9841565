"""Where time comes from and how it goes: orders, gifts, codes and rewards, refunds, disputes and lost causes."""

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.billing import CodeRedeemed, OrderDisputed, OrderPaid, OrderRefunded
from contracts.referrals import RewardGranted, RewardRevoked
from services.members.benefits import BLACK_CARD, BLACK_CARD_BENEFITS, benefits_of, note_order
from services.members.disputes import pauses_of
from services.members.ledger import GRACE, add_segment, find_segment, open_ledger, repack, revoke_segment
from services.members.ledger_models import Dispute, Segment


async def on_order_paid(session: AsyncSession, event: OrderPaid) -> None:
    """A paid membership order is one segment: from the payment on, a renewal's from the end of the time before it.

    A renewal paid after its grace lost nothing before the payment, and starts with it. A gift's time starts when it is
    redeemed.
    """
    if event.plan_code is None:
        return
    await note_order(session, event.plan_code, event.benefits, event.paid_at)
    if event.kind != "membership":
        return
    in_grace = event.renews_from is not None and event.paid_at < event.renews_from + GRACE
    await add_segment(
        session,
        Segment(
            member_id=event.member_id,
            source="order",
            source_id=event.order_id,
            plan_code=event.plan_code,
            months=event.months,
            benefits=list(event.benefits),
            added_at=event.paid_at,
            not_before=event.renews_from if in_grace else None,
        ),
    )


async def on_code_redeemed(session: AsyncSession, event: CodeRedeemed) -> None:
    """A redeemed gift or code is one segment of whoever redeemed it, from that moment on."""
    await add_segment(
        session,
        Segment(
            id=event.segment_id,
            member_id=event.member_id,
            source=event.source,
            source_id=event.source_id,
            plan_code=event.plan_code,
            months=event.months,
            benefits=list(event.benefits),
            added_at=event.redeemed_at,
        ),
    )


async def on_order_refunded(session: AsyncSession, event: OrderRefunded) -> None:
    """A refund of all there was to refund takes the order's segment with it, unless an admin left the time.

    A gift's is with whoever redeemed it; one that nobody has redeemed has no time, and billing lets nobody redeem it now.
    """
    if not event.removes_time:
        return
    if event.kind == "membership":
        await revoke_segment(session, event.member_id, "order", event.order_id, event.refunded_at)
    elif event.kind == "gift" and event.beneficiary_id is not None:
        await revoke_segment(session, event.beneficiary_id, "gift", event.order_id, event.refunded_at)


async def on_order_disputed(session: AsyncSession, event: OrderDisputed) -> None:
    """Suspend the order's segment while its payment is disputed, or for good; give it back when the dispute is won.

    Steps may come in any order and more than once, and before the segment itself. A gift's segment is with whoever
    redeemed it; one that nobody has redeemed has no time to suspend.
    """
    if event.kind == "course":
        return
    source = "order" if event.kind == "membership" else "gift"
    owner_id = event.member_id if event.kind == "membership" else event.beneficiary_id
    if owner_id is None:
        return
    ledger = await open_ledger(session, owner_id)
    step = {"source": source, "source_id": event.order_id, "at": event.disputed_at, "outcome": event.outcome}
    await session.execute(insert(Dispute).values(step | {"removes_time": event.removes_time}).on_conflict_do_nothing())
    segment = await find_segment(session, source, event.order_id)
    if segment is None:
        return
    pauses = await pauses_of(session, source, event.order_id)
    if pauses != segment.pauses:
        segment.pauses = pauses
        await repack(session, ledger)


async def on_reward_granted(session: AsyncSession, event: RewardGranted) -> None:
    """Earned days are a segment with the benefits of the named plan."""
    plan_code = event.plan_code or BLACK_CARD
    await add_segment(
        session,
        Segment(
            member_id=event.member_id,
            source="reward",
            source_id=event.reward_id,
            plan_code=plan_code,
            days=event.days,
            benefits=await benefits_of(session, plan_code) or list(BLACK_CARD_BENEFITS),
            added_at=event.granted_at,
        ),
    )


async def on_reward_revoked(session: AsyncSession, event: RewardRevoked) -> None:
    """A reward whose cause was undone takes its segment with it; what was used of it stays used."""
    await revoke_segment(session, event.member_id, "reward", event.reward_id, event.revoked_at)
