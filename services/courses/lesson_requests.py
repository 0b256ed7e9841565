"""Lesson requests: what members want taught next; an admin's live lesson answers one."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Response
from sqlalchemy import BigInteger, cast, delete, exists, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import audit, clock
from kit.app import router as new_router
from kit.auth import MemberDep, OptionalMemberDep
from kit.db import SessionDep
from kit.errors import NotFound, problems
from kit.page import Page, PageDep, keyset
from kit.shapes import In, Instant, Out, StrictIn, Text
from services.courses.admin_courses import EDITOR
from services.courses.live import LiveLessonNotFound
from services.courses.live_news import notify
from services.courses.models import LiveLesson
from services.courses.rhythm_models import LessonRequest, LessonRequestVote

router = new_router(prefix="/v1/lesson-requests", tags=["live lessons"])
admin_router = new_router(prefix="/v1/admin/live-lessons", tags=["admin live lessons"])


class LessonRequestNotFound(NotFound):
    """There is no such request."""

    zh = "没有这个选题。"


class LessonRequestIn(In):
    """What should be taught."""

    title: Text(1, 100)  # type: ignore[valid-type]


class LessonRequestOut(Out):
    """A request and who wants it; `live_lesson_id` once a lesson answers it, `voted` for the caller's own vote."""

    id: UUID
    title: str
    votes: int
    voted: bool
    live_lesson_id: UUID | None
    created_at: Instant


VOTES: Final = cast(col(LessonRequest.votes), BigInteger).label("rank")
ORDER: Final = (VOTES.desc(), col(LessonRequest.id))


def _rows(member_id: UUID | None) -> Any:
    voted = exists().where(
        col(LessonRequestVote.request_id) == col(LessonRequest.id), col(LessonRequestVote.member_id) == member_id
    )
    fields = (
        LessonRequest.id,
        LessonRequest.title,
        LessonRequest.votes,
        LessonRequest.live_lesson_id,
        LessonRequest.created_at,
    )
    columns: list[Any] = [col(field) for field in fields]
    return select(*columns, VOTES, (voted if member_id else literal(False)).label("voted"))


async def _one(session: AsyncSession, request_id: UUID, member_id: UUID | None) -> LessonRequestOut:
    row = (await session.execute(_rows(member_id).where(col(LessonRequest.id) == request_id))).one()
    return LessonRequestOut.model_validate(row)


async def held_request(request_id: UUID, session: SessionDep) -> LessonRequest:
    """The request, locked for this request: whoever changes its votes holds its row, so the tally is exact."""
    request = await session.get(LessonRequest, request_id, with_for_update=True)
    if request is None:
        raise LessonRequestNotFound
    return request


HeldRequest = Annotated[LessonRequest, Depends(held_request, scope="function")]


@router.get("")
async def list_lesson_requests(
    caller: OptionalMemberDep, session: SessionDep, page: PageDep, response: Response
) -> Page[LessonRequestOut]:
    """What members want taught, the most wanted first."""
    rows, next_cursor = await keyset(session, _rows(caller.id if caller else None), page, ORDER)
    response.headers["Cache-Control"] = "private, no-store" if caller else "no-cache"
    return Page(items=[LessonRequestOut.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.post("", status_code=201)
async def request_lesson(body: LessonRequestIn, caller: MemberDep, session: SessionDep) -> LessonRequestOut:
    """Say what should be taught; who says it has voted for it."""
    request = LessonRequest(member_id=caller.id, title=body.title, votes=1, created_at=clock.now())
    session.add(request)
    await session.flush()
    session.add(LessonRequestVote(request_id=request.id, member_id=caller.id, voted_at=request.created_at))
    await session.flush()
    return await _one(session, request.id, caller.id)


@router.put("/{request_id}/vote", responses=problems(LessonRequestNotFound))
async def vote_for_lesson(caller: MemberDep, request: HeldRequest, session: SessionDep) -> LessonRequestOut:
    """Want it, too; asking again changes nothing."""
    vote = insert(LessonRequestVote).values(request_id=request.id, member_id=caller.id, voted_at=clock.now())
    new = await session.execute(vote.on_conflict_do_nothing().returning(col(LessonRequestVote.member_id)))
    request.votes += new.first() is not None
    await session.flush()
    return await _one(session, request.id, caller.id)


@router.delete("/{request_id}/vote", responses=problems(LessonRequestNotFound))
async def take_lesson_vote_back(caller: MemberDep, request: HeldRequest, session: SessionDep) -> LessonRequestOut:
    """Want it no more; a request that nobody wants stays, at the end."""
    mine = delete(LessonRequestVote).where(
        col(LessonRequestVote.request_id) == request.id, col(LessonRequestVote.member_id) == caller.id
    )
    gone = await session.execute(mine.returning(col(LessonRequestVote.member_id)))
    request.votes -= gone.first() is not None
    await session.flush()
    return await _one(session, request.id, caller.id)


class AnsweredRequestIn(StrictIn):
    """Which request a live lesson answers."""

    request_id: UUID


@admin_router.put(
    "/{lesson_id}/lesson-request",
    dependencies=EDITOR,
    responses=problems(LiveLessonNotFound, LessonRequestNotFound),
)
async def answer_lesson_request(lesson_id: UUID, body: AnsweredRequestIn, session: SessionDep) -> LessonRequestOut:
    """Say that this live lesson is what a request asked for; the request then leads to it."""
    lesson = await session.get(LiveLesson, lesson_id)
    if lesson is None or lesson.deleted_at is not None:
        raise LiveLessonNotFound
    await answer_request(session, body.request_id, lesson)
    return await _one(session, body.request_id, None)


async def answer_request(session: AsyncSession, request_id: UUID, lesson: LiveLesson) -> None:
    """Have a request lead to this lesson, and tell who wanted it if the lesson is on the calendar already."""
    request = await held_request(request_id, session)
    before = {"live_lesson_id": request.live_lesson_id}
    request.live_lesson_id = lesson.id
    await session.flush()
    after = {"live_lesson_id": lesson.id}
    await audit.record(session, "lesson_request.answered", request.id, before=before, after=after)
    if lesson.status == "scheduled":
        await tell_voters(session, lesson)


async def open_again(session: AsyncSession, lesson_id: UUID) -> None:
    """Have the requests that led to a lesson wait for another one."""
    led = update(LessonRequest).where(col(LessonRequest.live_lesson_id) == lesson_id).values(live_lesson_id=None)
    await session.execute(led.execution_options(synchronize_session=False))


_VOTERS: Final = text(
    "SELECT DISTINCT vote.member_id FROM lesson_request_vote AS vote JOIN lesson_request AS request "
    "ON request.id = vote.request_id WHERE request.live_lesson_id = :id ORDER BY vote.member_id"
)


async def tell_voters(session: AsyncSession, lesson: LiveLesson) -> None:
    """Tell whoever voted for what this lesson answers that they can enrol; each once for this lesson."""
    voters = (await session.scalars(_VOTERS, {"id": lesson.id})).all()
    await notify(session, lesson, "lesson_wanted", "", voters)
