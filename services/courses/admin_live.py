"""Live lessons as admins plan and run them."""

from datetime import timedelta
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import Depends, Request, Response
from pydantic import Field, model_validator
from sqlalchemy import text
from sqlmodel import col

from kit import audit, clock
from kit.app import Due, Runtime
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import Conflict, StaleVersion, Unprocessable, problems
from kit.http import require_version, version_tag
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, StrictIn, Text
from kit.wording import Wrong
from services.courses.admin_courses import EDITOR, READER, Description, Patch, Title
from services.courses.enrolments import fill_seats
from services.courses.live import (
    ORDER,
    LiveLessonNotFound,
    LiveLessonOut,
    SinceQuery,
    UntilQuery,
    Way,
    live_out,
    live_rows,
    within,
)
from services.courses.models import LiveLesson, LiveStatus

router = new_router(prefix="/v1/admin/live-lessons", tags=["admin live lessons"])

LEGAL: dict[LiveStatus, frozenset[LiveStatus]] = {
    "draft": frozenset({"scheduled", "canceled"}),
    "scheduled": frozenset({"live", "canceled"}),
    "live": frozenset({"paused", "ended"}),
    "paused": frozenset({"live", "ended"}),
    "ended": frozenset({"replay_ready"}),
    "replay_ready": frozenset(),
    "canceled": frozenset(),
}
UNATTENDED = timedelta(minutes=30)
"""How long after its planned end a room that nobody closed is ended."""

Name = Text(1, 60)
Capacity = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Seats = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]


def _open_to_all(ways: list[Way]) -> list[Way]:
    if all(way.kind == "invites" for way in ways):
        raise Wrong("at least one way must need no invitations", "至少要有一种不需要邀请的方式")
    for way in ways:
        if (way.kind in {"points", "invites"}) != bool(way.needed):
            raise Wrong(
                "points and invites say how many are needed, other ways do not",
                "points 和 invites 要写 needed，其他方式不写",
            )
    return ways


class IllegalTransition(Conflict):
    """A live lesson cannot go from {held} to {wanted}; reload it to see where it stands."""

    zh = "直播课不能从 {held} 变为 {wanted}，请刷新后查看当前状态。"


class LessonRunning(Conflict):
    """This lesson has begun or is over: its time can no longer be changed."""

    zh = "这节直播课已开始或已结束，时间不能再改。"


class SeatsTaken(Conflict):
    """More members are enrolled than that leaves room for; their seats stay theirs."""

    zh = "已报名人数超过了新的名额，已有的座位不能收回。"


class LessonInUse(Conflict):
    """Members count on this lesson: cancel it, or end it, before you delete it."""

    zh = "已有成员报名或直播正在进行，请先取消或结束再删除。"


class LivePlanWrong(Unprocessable):
    """A live lesson ends after it starts, names an instructor, and reserves no more seats than it has."""

    zh = "结束时间须晚于开始时间，须填写讲师，预留名额不能超过总名额。"


Ways = Annotated[list[Way], Field(min_length=1, max_length=5)]


class LiveLessonIn(StrictIn):
    """A new live lesson, a draft at first; `instructor` is a name, or `instructor_id` a member."""

    title: Title
    description: Description = ""
    instructor: Name | None = None  # type: ignore[valid-type]
    instructor_id: UUID | None = None
    starts_at: Instant
    ends_at: Instant
    capacity: Capacity | None = None
    priority_seats: Seats = 0
    access: Ways

    @model_validator(mode="after")
    def _has_a_way(self) -> Self:
        _open_to_all(self.access)
        return self


class LiveLessonPatch(Patch):
    """What to change in a live lesson."""

    nullable = frozenset({"instructor", "instructor_id", "capacity"})

    title: Title | None = None
    description: Description | None = None
    instructor: Name | None = None  # type: ignore[valid-type]
    instructor_id: UUID | None = None
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    capacity: Capacity | None = None
    priority_seats: Seats | None = None
    access: Ways | None = None

    @model_validator(mode="after")
    def _has_a_way(self) -> Self:
        if self.access is not None:
            _open_to_all(self.access)
        return self


class TransitionIn(StrictIn):
    """Where the lesson goes."""

    to: LiveStatus


async def held_live_lesson(lesson_id: UUID, session: SessionDep) -> LiveLesson:
    """The live lesson, locked for this request."""
    lesson = await session.get(LiveLesson, lesson_id, with_for_update=True)
    if lesson is None or lesson.deleted_at is not None:
        raise LiveLessonNotFound
    return lesson


HeldLiveLesson = Annotated[LiveLesson, Depends(held_live_lesson, scope="function")]


def _check(lesson: LiveLesson) -> None:
    room = lesson.capacity is None or lesson.priority_seats <= lesson.capacity
    if lesson.ends_at <= lesson.starts_at or not (lesson.instructor or lesson.instructor_id) or not room:
        raise LivePlanWrong
    if lesson.capacity is not None and lesson.enrolled > lesson.capacity:
        raise SeatsTaken


async def _answer(session: SessionDep, lesson_id: UUID, response: Response) -> LiveLessonOut:
    row = (await session.execute(live_rows().where(col(LiveLesson.id) == lesson_id))).one_or_none()
    if row is None:
        raise LiveLessonNotFound
    response.headers["ETag"] = version_tag(row.version)
    return LiveLessonOut.model_validate(live_out(row))


@router.get("", dependencies=READER)
async def list_live_lessons_to_edit(
    session: SessionDep,
    page: PageDep,
    status: LiveStatus | None = None,
    since: SinceQuery = None,
    until: UntilQuery = None,
) -> Page[LiveLessonOut]:
    """The calendar with its drafts, the earliest first."""
    rows, next_cursor = await keyset(session, within(live_rows(), status, since, until), page, ORDER)
    items = [LiveLessonOut.model_validate(live_out(row)) for row in rows]
    return Page[LiveLessonOut](items=items, next_cursor=next_cursor)


@router.post("", dependencies=EDITOR, status_code=201, responses=problems(LivePlanWrong))
async def create_live_lesson(body: LiveLessonIn, session: SessionDep, response: Response) -> LiveLessonOut:
    """Plan a live lesson; members see it once it is scheduled."""
    now = clock.now()
    fields = body.model_dump() | {"access": [way.model_dump(exclude_none=True) for way in body.access]}
    lesson = LiveLesson(**fields, zone=clock.ZONE.key, created_at=now, updated_at=now)
    _check(lesson)
    session.add(lesson)
    await session.flush()
    await audit.record(session, "live_lesson.created", lesson.id, after=lesson.model_dump())
    response.headers["Location"] = f"/v1/admin/live-lessons/{lesson.id}"
    return await _answer(session, lesson.id, response)


@router.get("/{lesson_id}", dependencies=READER, responses=problems(LiveLessonNotFound))
async def read_live_lesson_to_edit(lesson_id: UUID, session: SessionDep, response: Response) -> LiveLessonOut:
    """One live lesson, with the ETag that a change names in If-Match."""
    return await _answer(session, lesson_id, response)


@router.patch(
    "/{lesson_id}",
    dependencies=EDITOR,
    responses=problems(LiveLessonNotFound, StaleVersion, LivePlanWrong, LessonRunning, SeatsTaken),
)
async def change_live_lesson(
    body: LiveLessonPatch, lesson: HeldLiveLesson, session: SessionDep, request: Request, response: Response
) -> LiveLessonOut:
    """Change a live lesson; seats that this adds go to the queue."""
    require_version(request, lesson.version)
    changes: dict[str, Any] = body.model_dump(exclude_unset=True)
    if body.access is not None:
        changes["access"] = [way.model_dump(exclude_none=True) for way in body.access]
    if changes.keys() & {"starts_at", "ends_at"} and lesson.status not in {"draft", "scheduled"}:
        raise LessonRunning
    before = lesson.model_dump()
    lesson.sqlmodel_update(changes)
    _check(lesson)
    _touch(lesson)
    await fill_seats(session, lesson)
    await session.flush()
    await audit.record(session, "live_lesson.changed", lesson.id, before=before, after=lesson.model_dump())
    return await _answer(session, lesson.id, response)


def _touch(lesson: LiveLesson) -> None:
    lesson.version += 1
    lesson.updated_at = clock.now()


@router.post("/{lesson_id}/transitions", dependencies=EDITOR, responses=problems(LiveLessonNotFound, IllegalTransition))
async def move_live_lesson(
    body: TransitionIn, lesson: HeldLiveLesson, session: SessionDep, response: Response
) -> LiveLessonOut:
    """Take a live lesson to its next status."""
    if body.to not in LEGAL[lesson.status]:
        raise IllegalTransition(held=lesson.status, wanted=body.to)
    moved = {"before": {"status": lesson.status}, "after": {"status": body.to}}
    await audit.record(session, "live_lesson.moved", lesson.id, **moved)
    lesson.status = body.to
    _touch(lesson)
    await session.flush()
    return await _answer(session, lesson.id, response)


@router.delete(
    "/{lesson_id}",
    dependencies=EDITOR,
    status_code=204,
    responses=problems(LiveLessonNotFound, StaleVersion, LessonInUse),
)
async def delete_live_lesson(lesson: HeldLiveLesson, session: SessionDep, request: Request) -> None:
    """Take a live lesson off the calendar that nobody counts on."""
    require_version(request, lesson.version)
    if lesson.status in {"live", "paused"} or (lesson.status == "scheduled" and lesson.enrolled):
        raise LessonInUse
    await audit.record(session, "live_lesson.deleted", lesson.id, before=lesson.model_dump())
    lesson.deleted_at = clock.now()
    _touch(lesson)


_END = text(
    "UPDATE live_lesson SET status = 'ended', version = version + 1, updated_at = :now WHERE id IN ("
    "SELECT id FROM live_lesson WHERE status IN ('live', 'paused') AND ends_at <= :before LIMIT 100 "
    "FOR UPDATE SKIP LOCKED) RETURNING id"
)


async def _end_unattended(runtime: Runtime) -> int:
    now = clock.now()
    async with runtime.db.session() as session, session.begin():
        return len((await session.execute(_END, {"now": now, "before": now - UNATTENDED})).all())


end_unattended = Due("end unattended rooms", _end_unattended, every_s=5.0)
