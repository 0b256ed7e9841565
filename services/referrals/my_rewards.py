"""An inviter's rewards: what each newcomer's steps earned them, what they did not and why, and what is left of the month."""

from typing import Final, Literal
from uuid import UUID

from sqlalchemy import case, func, select
from sqlmodel import col

from kit import clock
from kit.app import router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.referrals.models import MemberCard, Model, RewardBudget
from services.referrals.rewards import month_of
from services.referrals.rules import rule_at

routes = router(prefix="/v1/me/invite/rewards", tags=["invitations"])

TOLD: Final = (
    "monthly_cap",
    "refunded",
    "coupon_exhausted",
    "coupon_ended",
    "coupon_unknown",
    "coupon_already_claimed",
)
"""Reasons that are told as they are; what fraud is known by is not explained to whoever tries it."""


class MyReward(Out):
    """A reward: a coupon for a first lesson, days for a first payment; `held` ones wait for a person's look."""

    id: UUID
    cause: Literal["first_lesson", "first_payment"]
    status: Literal["granted", "held", "refused", "revoked"]
    reason: str | None
    nickname: str
    coupon_id: UUID | None
    days: int | None
    at: Instant


class MyRewards(Page[MyReward]):
    """The caller's rewards, the latest first, and how many of this calendar month's they have had."""

    used_this_month: int
    monthly_cap: int


@routes.get("")
async def list_own_rewards(caller: MemberDep, session: SessionDep, page: PageDep) -> MyRewards:
    """What the caller earned by inviting; a month of the business zone has so many rewards and no more."""
    table = Model.metadata.tables["reward"].c
    told = case((table.reason.in_(TOLD), table.reason), (table.reason.is_not(None), "not_eligible"))
    found = (
        select(
            *(table[name] for name in ("id", "cause", "status", "coupon_id", "days", "at")),
            told.label("reason"),
            func.coalesce(col(MemberCard.nickname), "").label("nickname"),
        )
        .join(MemberCard, col(MemberCard.member_id) == table.newcomer_id, isouter=True)
        .where(table.inviter_id == caller.id)
    )
    rows, next_cursor = await keyset(session, found, page, (table.at.desc(), table.id.desc()))
    now = clock.now()
    budget = await session.get(RewardBudget, (caller.id, month_of(now)))
    return MyRewards(
        items=[MyReward.model_validate(row) for row in rows],
        next_cursor=next_cursor,
        used_this_month=budget.used if budget else 0,
        monthly_cap=(await rule_at(session, now)).monthly_cap,
    )
