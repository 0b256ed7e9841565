"""Ways in: what opens a live lesson to a member, what each way still takes, and who switched sharing off."""

import math
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, Query, Response
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import audit, clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Forbidden, problems
from kit.shapes import Out, StrictIn, Text
from services.courses.access import BOUGHT
from services.courses.admin_courses import EDITOR, READER
from services.courses.live import LiveLessonNotFound
from services.courses.models import LiveLesson
from services.courses.room_models import LiveGrant, ShareSwitch
from services.courses.settings import Settings

router = new_router(prefix="/v1/live-lessons/{lesson_id}/access", tags=["live lessons"])
admin_router = new_router(prefix="/v1/admin/live-lessons", tags=["admin live lessons"])

Channel = Literal["mini_program", "h5", "app"]
WayKind = Literal["free", "membership", "purchase", "points", "invites"]
ChannelQuery = Annotated[Channel | None, Query(description="where the caller is; some channels offer no sharing")]

ACTIONS = {"membership": "buy_membership", "points": "pay_points", "purchase": "buy_lesson"}


class Option(Out):
    """One way in; `needed` and `have` count points or arrivals, `amount` is what a purchase costs in fen.

    A purchase is an order whose `course_id` is the live lesson's id.
    """

    kind: WayKind
    needed: int | None = None
    have: int | None = None
    amount: int | None = None


class AccessOut(Out):
    """Whether the caller may come in, by which way, and all the ways there are.

    `grant` is an admin's, or was earned by inviting while that, or so few, still opened the lesson.
    """

    granted: bool
    by: WayKind | Literal["grant"] | None
    options: list[Option]


class AccessRequired(Forbidden):
    """This live lesson is not open to you yet; any one of the listed ways opens it."""

    zh = "你还不能进入这节直播课，完成所列任意一种方式即可进入。"


async def shown_live_lesson(lesson_id: UUID, session: SessionDep) -> LiveLesson:
    """A live lesson that members see."""
    lesson = await session.get(LiveLesson, lesson_id)
    if lesson is None or lesson.deleted_at is not None or lesson.status == "draft":
        raise LiveLessonNotFound
    return lesson


ShownLiveLesson = Annotated[LiveLesson, Depends(shown_live_lesson, scope="function")]

_HELD = text(f"""
SELECT
    EXISTS (SELECT FROM live_grant WHERE lesson_id = :lesson_id AND member_id = :member_id) AS by_grant,
    coalesce((SELECT member_lessons @> CAST(:now AS timestamptz) FROM access WHERE member_id = :member_id), false)
        AS by_membership,
    EXISTS (SELECT FROM points_payment WHERE lesson_id = :lesson_id AND member_id = :member_id AND status = 'paid')
        AS by_points,
    {BOUGHT.format(member_id=":member_id", course_id=":lesson_id")} AS by_purchase,
    coalesce((SELECT balance FROM points_balance WHERE member_id = :member_id), 0) AS balance,
    (SELECT count(*) FROM arrival JOIN invite_link ON invite_link.id = arrival.link_id
        WHERE invite_link.lesson_id = :lesson_id AND invite_link.member_id = :member_id) AS arrivals
""")  # noqa: S608 - constants


async def access_of(
    session: AsyncSession,
    lesson: LiveLesson,
    member_id: UUID,
    settings: Settings,
    channel: Channel | None = None,
    *,
    without: WayKind | None = None,
    at: datetime | None = None,
) -> AccessOut:
    """What opens this lesson to this member now, or by a membership `at` an instant; as if there were no way `without`.

    A way that is done counts in every channel; one by sharing that is not done is offered only where it is switched on.
    """
    values = {"lesson_id": lesson.id, "member_id": member_id, "now": at or clock.now()}
    held = (await session.execute(_HELD, values)).one()
    by: Any = "grant" if held.by_grant or lesson.instructor_id == member_id else None
    options = []
    for way in lesson.access:
        kind, needed = way["kind"], way.get("needed")
        if kind == without:
            continue
        option = Option(kind=kind, needed=needed)
        if kind == "free":
            done = True
        elif kind == "membership":
            done = held.by_membership
        elif kind == "points":
            done, option.have = held.by_points, held.balance
        elif kind == "invites":
            done, option.have = held.arrivals >= needed, held.arrivals
        else:
            done = held.by_purchase
            option.amount = way.get("amount") or settings.live_amount
        if kind == "invites" and not done and not await shares_in(session, channel):
            continue
        options.append(option)
        if done and by is None:
            by = kind
    if by is None:
        # What was paid opens the lesson also when it is not offered any more.
        by = "purchase" if held.by_purchase else "points" if held.by_points else None
    return AccessOut(granted=by is not None, by=by, options=options)


_KEEP_EARNED = text("""
INSERT INTO live_grant (lesson_id, member_id, reason, granted_at)
SELECT :lesson_id, invite_link.member_id, :reason, :now
FROM invite_link JOIN arrival ON arrival.link_id = invite_link.id WHERE invite_link.lesson_id = :lesson_id
GROUP BY invite_link.member_id HAVING count(*) >= :needed ON CONFLICT DO NOTHING
""")
EARNED = "已完成当时要求的邀请"


async def keep_earned(session: AsyncSession, lesson: LiveLesson, before: list[dict[str, Any]]) -> None:
    """Let in for good who earned it by invitations, where the lesson's ways before this change took fewer than now, or none."""
    needed = _invites(before)
    if needed is not None and needed < (_invites(lesson.access) or math.inf):
        values = {"lesson_id": lesson.id, "reason": EARNED, "needed": needed, "now": clock.now()}
        await session.execute(_KEEP_EARNED, values)


def _invites(ways: list[dict[str, Any]]) -> int | None:
    return next((way["needed"] for way in ways if way["kind"] == "invites"), None)


async def shares_in(session: AsyncSession, channel: Channel | None) -> bool:
    """Whether this channel offers sharing; who names none may be in any that does."""
    switches = await _switches(session)
    return any(switches.values()) if channel is None else switches[channel]


async def require_entry(
    session: AsyncSession, lesson: LiveLesson, member_id: UUID, settings: Settings, at: datetime | None = None
) -> AccessOut:
    """The way by which this member may come in; AccessRequired, with the whole answer, when there is none."""
    answer = await access_of(session, lesson, member_id, settings, at=at)
    if not answer.granted:
        action = next((ACTIONS[way.kind] for way in answer.options if way.kind in ACTIONS), None)
        raise AccessRequired(extra=answer.model_dump(mode="json") | {"action": action})
    return answer


@router.get("", responses=problems(LiveLessonNotFound))
async def read_live_access(
    caller: MemberDep,
    lesson: ShownLiveLesson,
    session: SessionDep,
    runtime: RuntimeDep,
    response: Response,
    channel: ChannelQuery = None,
) -> AccessOut:
    """Whether the caller may come in, and every way that would open the lesson; one of them never takes sharing."""
    response.headers["Cache-Control"] = "private, no-store"
    return await access_of(session, lesson, caller.id, runtime.settings, channel)


class LessonGrantIn(StrictIn):
    """Whom to let in, and why."""

    member_id: UUID
    reason: Text(1, 500)  # type: ignore[valid-type]


class GrantOut(Out):
    """A live lesson opened to a member."""

    lesson_id: UUID
    member_id: UUID
    reason: str


@admin_router.post("/{lesson_id}/grants", dependencies=EDITOR, status_code=201, responses=problems(LiveLessonNotFound))
async def grant_live_access(lesson_id: UUID, body: LessonGrantIn, session: SessionDep) -> GrantOut:
    """Let a member into a live lesson; granting again only changes the reason."""
    lesson = await session.get(LiveLesson, lesson_id)
    if lesson is None or lesson.deleted_at is not None:
        raise LiveLessonNotFound
    grant = {"lesson_id": lesson_id, "member_id": body.member_id, "reason": body.reason}
    row = insert(LiveGrant).values(**grant, granted_at=clock.now())
    again = row.on_conflict_do_update(index_elements=["lesson_id", "member_id"], set_={"reason": body.reason})
    await session.execute(again)
    await audit.record(session, "live_lesson.granted", lesson_id, after=grant)
    return GrantOut(**grant)


class Switches(StrictIn):
    """In which channels members are offered to invite others."""

    mini_program: bool
    h5: bool
    app: bool


async def _switches(session: AsyncSession) -> dict[str, bool]:
    rows = (await session.execute(select(col(ShareSwitch.channel), col(ShareSwitch.invites)))).all()
    return {"mini_program": True, "h5": True, "app": True} | {row.channel: row.invites for row in rows}


@admin_router.get("/share-switches", dependencies=READER)
async def read_share_switches(session: SessionDep) -> Switches:
    """In which channels live lessons offer to invite others."""
    return Switches(**await _switches(session))


@admin_router.put("/share-switches", dependencies=EDITOR)
async def set_share_switches(body: Switches, session: SessionDep) -> Switches:
    """Switch inviting on or off in each channel; what was earned by it stays."""
    before = await _switches(session)
    for channel, invites in body.model_dump().items():
        row = insert(ShareSwitch).values(channel=channel, invites=invites)
        await session.execute(row.on_conflict_do_update(index_elements=["channel"], set_={"invites": invites}))
    await audit.record(session, "live_lesson.share_switches", "share-switches", before=before, after=body.model_dump())
    return body
