"""Redemptions: a code, of a gift or of a batch, becomes membership time of whoever types it first, from that moment on."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Request
from pydantic import Field
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.billing import CodeRedeemed
from contracts.members import SegmentPicture
from kit import clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, TooManyRequests, problems
from kit.events import emit
from kit.ids import new_id
from kit.limits import limit, limit_address
from kit.shapes import LAST_YEAR, CleanStr, Instant, Out, StrictIn
from services.billing import codes, gifts, payments
from services.billing.code_models import CodeBatch, RedeemCode
from services.billing.member_time import segments_of

router = new_router(prefix="/v1/redemptions", tags=["redemptions"])

TRIES, TRY_SECONDS = 300, 60
WRONG_TRIES, WRONG_ADDRESS_TRIES, WRONG_SECONDS = 10, 20, 600
"""Codes are too long to be guessed; whoever tries all the same is soon asked to wait."""

# Redemptions of one member come one after the other, so that each sees where the one before it lies.
_TURN = text("SELECT pg_advisory_xact_lock(hashtextextended('redemption ' || :member_id, 0))")
# What members has told of says more, but lags behind.
_FIRST_TIME = text("""
SELECT NOT EXISTS (SELECT FROM member_time WHERE member_id = :member_id AND segments <> '[]')
AND NOT EXISTS (SELECT FROM redeem_code WHERE member_id = :member_id)
AND NOT EXISTS (SELECT FROM "order" WHERE member_id = :member_id AND kind = 'membership' AND paid_at IS NOT NULL)
""")


class CodeUnknown(NotFound):
    """There is no such code; compare it letter by letter with the one you were given."""

    zh = "没有这个兑换码，请逐位核对。"


class CodeUsed(Conflict):
    """This code was redeemed already; each one works once."""

    zh = "这个兑换码已被使用，每个码只能兑换一次。"


class CodeVoid(Conflict):
    """This code was withdrawn; ask whoever gave it to you for another one."""

    zh = "这个兑换码已作废，请向赠送者或发放方要一个新的。"


class CodeExpired(Conflict):
    """This code has expired; ask whoever gave it to you for another one."""

    zh = "这个兑换码已过期，请向赠送者或发放方要一个新的。"


class MembershipTooLong(Conflict):
    """This would carry your membership past the end of the calendar; give the code to somebody else."""

    zh = "兑换后会员期会超出日历的范围，请把兑换码送给别人。"


REFUSALS = {"redeemed": CodeUsed, "void": CodeVoid}


class RedemptionIn(StrictIn):
    """A code as somebody typed it: case, spaces, dashes and look-alike letters do not matter."""

    code: Annotated[CleanStr, Field(min_length=1, max_length=100)]


class RedeemedSegment(Out):
    """The membership time a code gave; it is in the member's time ledger under this id a moment later."""

    id: UUID
    source: Literal["gift", "redeem_code"]
    source_id: UUID
    plan_code: str
    months: int
    days: int
    starts_at: Instant
    ends_at: Instant
    state: Literal["queued", "active"]


class RedemptionOut(Out):
    """What a code gave."""

    segment: RedeemedSegment


class Given(Out):
    """What a code gives, and of what it is."""

    source: Literal["gift", "redeem_code"]
    source_id: UUID
    plan_code: str
    months: int
    benefits: list[str]


@router.post(
    "",
    status_code=201,
    responses=problems(CodeUnknown, CodeUsed, CodeVoid, CodeExpired, MembershipTooLong, TooManyRequests),
)
async def redeem_code(
    body: RedemptionIn, caller: MemberDep, session: SessionDep, rt: RuntimeDep, request: Request
) -> RedemptionOut:
    """Turn a code into membership time that starts now, or behind the time there is; each code works once."""
    member = str(caller.id)
    await limit(request, "redemption", member, times=TRIES, seconds=TRY_SECONDS)
    await limit_address(request, "redemption", times=TRIES, seconds=TRY_SECONDS)
    await _note_wrong(request, member, only_look=True)
    letters = codes.normalised(body.code)
    code = await _find(session, codes.digest(rt.settings.codes_key, letters)) if letters else None
    if code is None or code.status == "unpaid":
        await _note_wrong(request, member)
        raise CodeUnknown
    if code.status != "open":
        raise REFUSALS[code.status]
    await session.execute(_TURN, {"member_id": member})
    given = await _given(session, code)
    now = clock.now()
    segment_id = new_id()
    await _take(session, code, {"member_id": caller.id, "segment_id": segment_id, "redeemed_at": now})
    segments = await _segments(session, caller.id)
    span = next(segment for segment in segments if segment.id == segment_id)
    await emit(
        session,
        CodeRedeemed(
            segment_id=segment_id,
            source=given.source,
            source_id=given.source_id,
            member_id=caller.id,
            plan_code=given.plan_code,
            months=given.months,
            benefits=tuple(given.benefits),
            redeemed_at=now,
        ),
    )
    return RedemptionOut(
        segment=RedeemedSegment(
            id=segment_id,
            source=given.source,
            source_id=given.source_id,
            plan_code=given.plan_code,
            months=given.months,
            days=0,
            starts_at=span.starts_at,
            ends_at=span.ends_at,
            state="active" if span.starts_at <= now else "queued",
        )
    )


async def _note_wrong(request: Request, member: str, *, only_look: bool = False) -> None:
    name = "wrong redeem code"
    await limit(request, name, member, times=WRONG_TRIES, seconds=WRONG_SECONDS, only_look=only_look)
    await limit_address(request, name, times=WRONG_ADDRESS_TRIES, seconds=WRONG_SECONDS, only_look=only_look)


async def _find(session: AsyncSession, digest: bytes) -> RedeemCode | None:
    return await session.scalar(select(RedeemCode).where(col(RedeemCode.code_hash) == digest))


async def _given(session: AsyncSession, code: RedeemCode) -> Given:
    """What a code gives; a gift's order is locked, so that its refund comes before this redemption or after it."""
    if code.order_id is None:
        batch = await session.get_one(CodeBatch, code.batch_id)
        return Given(source="redeem_code", source_id=code.id, **batch.model_dump())
    order = await payments.lock_order(session, code.order_id)
    if order is None or order.plan_code is None:
        raise CodeUnknown
    if order.status == "disputed" or await gifts.is_going_back(session, order):
        # Its money may yet be gone; a dispute that is won, or a refund that fails, makes the gift good again.
        raise CodeVoid
    return Given(source="gift", source_id=order.id, **order.model_dump())


async def _segments(session: AsyncSession, member_id: UUID) -> list[SegmentPicture]:
    """The member's time with that of the code just taken."""
    try:
        segments = await segments_of(session, member_id)
    except (OverflowError, ValueError) as failure:
        raise MembershipTooLong from failure
    if max(segment.ends_at for segment in segments).year > LAST_YEAR:
        raise MembershipTooLong
    return segments


async def _take(session: AsyncSession, code: RedeemCode, values: dict[str, Any]) -> None:
    """Give an open code to its redeemer; of all who try at once, and of a withdrawal, exactly one succeeds."""
    first_time = (await session.execute(_FIRST_TIME, {"member_id": values["member_id"]})).scalar_one()
    is_code = col(RedeemCode.id) == code.id
    open_now = (col(RedeemCode.status) == "open") & (col(RedeemCode.expires_at) > values["redeemed_at"])
    # One statement: a row changed twice in a transaction has its references checked, which waits for its batch.
    taken = update(RedeemCode).where(is_code, open_now).values(status="redeemed", first_time=first_time, **values)
    if await session.scalar(taken.returning(col(RedeemCode.id))) is None:
        status = await session.scalar(select(col(RedeemCode.status)).where(is_code))
        raise REFUSALS.get(status or "", CodeExpired)
