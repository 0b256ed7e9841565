"""Prizes: what a contest's winner is given here, membership time or points, once for each prize."""

from sqlalchemy.ext.asyncio import AsyncSession

from contracts.showcase import PrizeWon
from services.members.benefits import BLACK_CARD, BLACK_CARD_BENEFITS, benefits_of
from services.members.ledger import add_segment
from services.members.ledger_models import Segment
from services.members.points import give_points
from services.members.profile import lock_kept

REASON = "contest_prize"


async def on_prize_won(session: AsyncSession, event: PrizeWon) -> None:
    """Give the days or the points to whoever the winner is today; who has left gets nothing, a coupon is not given here."""
    if event.reward == "coupon" or not isinstance(event.value, int):
        return
    winner = await lock_kept(session, event.member_id)
    if winner is None:
        return
    if event.reward == "points":
        # As announced: a prize is not doubled by the card.
        await give_points(session, winner.id, event.value, REASON, str(event.prize_id), event.won_at)
        return
    await add_segment(
        session,
        Segment(
            member_id=winner.id,
            source="reward",
            source_id=event.prize_id,
            plan_code=BLACK_CARD,
            days=event.value,
            benefits=await benefits_of(session, BLACK_CARD) or list(BLACK_CARD_BENEFITS),
            added_at=event.won_at,
        ),
    )
