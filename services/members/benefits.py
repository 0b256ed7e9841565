"""Benefits: what each plan gives, as billing tells it when a plan changes, and as paid orders showed it before that."""

from datetime import datetime

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import PlanChanged
from services.members.ledger_models import PlanBenefits

BLACK_CARD = "black-card-1m"
BLACK_CARD_BENEFITS = (
    "member_lessons",
    "live_replay",
    "live_priority",
    "monthly_coupon",
    "double_points",
    "qa_priority",
)
BLACK_CARDS = (BLACK_CARD, "black-card-3m", "black-card-12m")


async def benefits_of(session: AsyncSession, plan_code: str) -> list[str] | None:
    """What a plan gives; None for a plan nobody has told of."""
    told = await session.get(PlanBenefits, plan_code)
    if told is not None:
        return told.benefits
    return list(BLACK_CARD_BENEFITS) if plan_code in BLACK_CARDS else None


async def note_order(session: AsyncSession, plan_code: str, benefits: tuple[str, ...], at: datetime) -> None:
    """Keep what a paid order shows of its plan, unless the plan itself was told of or a later order showed it."""
    shown = insert(PlanBenefits).values(plan_code=plan_code, benefits=list(benefits), seen_at=at)
    await session.execute(
        shown.on_conflict_do_update(
            index_elements=["plan_code"],
            set_={"benefits": shown.excluded.benefits, "seen_at": shown.excluded.seen_at},
            where=col(PlanBenefits.revision).is_(None) & (col(PlanBenefits.seen_at) < shown.excluded.seen_at),
        )
    )


async def on_plan_changed(session: AsyncSession, event: PlanChanged) -> None:
    """Keep a plan's benefits; an older revision than the one held is ignored."""
    told = insert(PlanBenefits).values(
        plan_code=event.plan_code, benefits=list(event.benefits), seen_at=event.at, revision=event.revision
    )
    kept = {name: told.excluded[name] for name in ("benefits", "seen_at", "revision")}
    newer = col(PlanBenefits.revision).is_(None) | (col(PlanBenefits.revision) < told.excluded.revision)
    await session.execute(told.on_conflict_do_update(index_elements=["plan_code"], set_=kept, where=newer))
