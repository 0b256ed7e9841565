"""Live lessons as admins plan them."""

from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import Depends, Request, Response
from pydantic import Field, model_validator
from sqlalchemy import text
from sqlmodel import col

from contracts.courses import LiveLessonCanceled
from kit import audit, clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import Conflict, StaleVersion, Unprocessable, problems
from kit.events import emit
from kit.http import require_version, version_tag
from kit.page import Page, PageDep, keyset
from kit.patch import Patch
from kit.shapes import Instant, StrictIn, Text
from kit.wording import Wrong
from services.courses.admin_courses import EDITOR, READER, Description, Title
from services.courses.admin_lessons import Media
from services.courses.announcements import offer
from services.courses.enrolments import fill_seats
from services.courses.lesson_requests import LessonRequestNotFound, answer_request, open_again
from services.courses.live import (
    ORDER,
    LiveLessonNotFound,
    LiveLessonOut,
    SinceQuery,
    StatusQuery,
    UntilQuery,
    Way,
    live_out,
    live_rows,
    within,
)
from services.courses.live_news import notify, tell
from services.courses.models import LiveLesson
from services.courses.reminders import pass_over
from services.courses.rooms import want_closed
from services.courses.ways import keep_earned

router = new_router(prefix="/v1/admin/live-lessons", tags=["admin live lessons"])

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
        if way.amount is not None and (way.kind != "purchase" or not way.amount):
            raise Wrong("only a purchase has an amount, and it is above 0", "只有 purchase 可以写 amount，且须大于 0")
    if len({way.kind for way in ways}) < len(ways):
        raise Wrong("each way is named once", "每种方式只写一次")
    return ways


class LessonRunning(Conflict):
    """This lesson has begun or is over: its time can no longer be changed."""

    zh = "这节直播课已开始或已结束，时间不能再改。"


class SeatsTaken(Conflict):
    """More members are enrolled than that leaves room for; their seats stay theirs."""

    zh = "已报名人数超过了新的名额，已有的座位不能收回。"


class LessonInUse(Conflict):
    """Members count on this lesson: cancel it, or end it, before you delete it."""

    zh = "已有成员报名、付费或直播正在进行，请先取消或结束再删除。"


class LivePlanWrong(Unprocessable):
    """A live lesson ends after it starts, names an instructor, and reserves no more seats than it has."""

    zh = "结束时间须晚于开始时间，须填写讲师，预留名额不能超过总名额。"


Ways = Annotated[list[Way], Field(min_length=1, max_length=5)]


class LiveLessonIn(StrictIn):
    """A new live lesson, a draft at first; `instructor` is a name, or `instructor_id` a member; `request_id` what it answers."""

    title: Title
    description: Description = ""
    instructor: Name | None = None  # type: ignore[valid-type]
    instructor_id: UUID | None = None
    starts_at: Instant
    ends_at: Instant
    capacity: Capacity | None = None
    priority_seats: Seats = 0
    access: Ways
    request_id: UUID | None = None

    @model_validator(mode="after")
    def _has_a_way(self) -> Self:
        _open_to_all(self.access)
        return self


class LiveLessonPatch(Patch):
    """What to change in a live lesson."""

    nullable = frozenset({"instructor", "instructor_id", "capacity", "media"})

    title: Title | None = None
    description: Description | None = None
    instructor: Name | None = None  # type: ignore[valid-type]
    instructor_id: UUID | None = None
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    capacity: Capacity | None = None
    priority_seats: Seats | None = None
    access: Ways | None = None
    media: Media | None = None

    @model_validator(mode="after")
    def _has_a_way(self) -> Self:
        if self.access is not None:
            _open_to_all(self.access)
        return self


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


async def answer(session: SessionDep, lesson_id: UUID, response: Response) -> LiveLessonOut:
    """The live lesson as admins see it, with its ETag."""
    row = (await session.execute(live_rows().where(col(LiveLesson.id) == lesson_id))).one_or_none()
    if row is None:
        raise LiveLessonNotFound
    response.headers["ETag"] = version_tag(row.version)
    return LiveLessonOut.model_validate(live_out(row))


@router.get("", dependencies=READER)
async def list_live_lessons_to_edit(
    session: SessionDep,
    page: PageDep,
    status: StatusQuery = None,
    since: SinceQuery = None,
    until: UntilQuery = None,
) -> Page[LiveLessonOut]:
    """The calendar with its drafts, the earliest first."""
    rows, next_cursor = await keyset(session, within(live_rows(), status, since, until), page, ORDER)
    items = [LiveLessonOut.model_validate(live_out(row)) for row in rows]
    return Page[LiveLessonOut](items=items, next_cursor=next_cursor)


@router.post("", dependencies=EDITOR, status_code=201, responses=problems(LivePlanWrong, LessonRequestNotFound))
async def create_live_lesson(body: LiveLessonIn, session: SessionDep, response: Response) -> LiveLessonOut:
    """Plan a live lesson; members see it once it is scheduled."""
    now = clock.now()
    fields = body.model_dump(exclude={"request_id"}) | {
        "access": [way.model_dump(exclude_none=True) for way in body.access]
    }
    lesson = LiveLesson(**fields, zone=clock.ZONE.key, created_at=now, updated_at=now)
    _check(lesson)
    session.add(lesson)
    await session.flush()
    await audit.record(session, "live_lesson.created", lesson.id, after=lesson.model_dump())
    if body.request_id is not None:
        await answer_request(session, body.request_id, lesson)
    response.headers["Location"] = f"/v1/admin/live-lessons/{lesson.id}"
    return await answer(session, lesson.id, response)


@router.get("/{lesson_id}", dependencies=READER, responses=problems(LiveLessonNotFound))
async def read_live_lesson_to_edit(lesson_id: UUID, session: SessionDep, response: Response) -> LiveLessonOut:
    """One live lesson, with the ETag that a change names in If-Match."""
    return await answer(session, lesson_id, response)


@router.patch(
    "/{lesson_id}",
    dependencies=EDITOR,
    responses=problems(LiveLessonNotFound, StaleVersion, LivePlanWrong, LessonRunning, SeatsTaken),
)
async def change_live_lesson(
    body: LiveLessonPatch,
    lesson: HeldLiveLesson,
    session: SessionDep,
    runtime: RuntimeDep,
    request: Request,
    response: Response,
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
    touch(lesson)
    await fill_seats(session, lesson)
    await session.flush()
    await audit.record(session, "live_lesson.changed", lesson.id, before=before, after=lesson.model_dump())
    await offer(session, lesson, runtime.settings.live_amount, before["access"])
    await keep_earned(session, lesson, before["access"])
    moved = (before["starts_at"], before["ends_at"]) != (lesson.starts_at, lesson.ends_at)
    if moved and lesson.status == "scheduled":
        await pass_over(session, lesson)
        await notify(session, lesson, "lesson_rescheduled", str(lesson.version))
        span = {"starts_at": lesson.starts_at, "ends_at": lesson.ends_at}
        await tell(session, lesson.id, "notice", {"kind": "rescheduled"} | span)
    return await answer(session, lesson.id, response)


def touch(lesson: LiveLesson) -> None:
    """Count a change of the lesson."""
    lesson.version += 1
    lesson.updated_at = clock.now()


_COUNTED_ON = text(
    "SELECT EXISTS (SELECT FROM enrolment WHERE lesson_id = :id) "
    "OR EXISTS (SELECT FROM points_payment WHERE lesson_id = :id AND status IN ('pending', 'paid')) "
    "OR EXISTS (SELECT FROM purchase WHERE course_id = :id AND paid_at IS NOT NULL AND refunded_at IS NULL)"
)


@router.delete(
    "/{lesson_id}",
    dependencies=EDITOR,
    status_code=204,
    responses=problems(LiveLessonNotFound, StaleVersion, LessonInUse),
)
async def delete_live_lesson(
    lesson: HeldLiveLesson, session: SessionDep, runtime: RuntimeDep, request: Request
) -> None:
    """Take a live lesson off the calendar that nobody counts on."""
    require_version(request, lesson.version)
    counted_on = lesson.status == "scheduled" and await session.scalar(_COUNTED_ON, {"id": lesson.id})
    if lesson.status in {"live", "paused"} or counted_on:
        raise LessonInUse
    await audit.record(session, "live_lesson.deleted", lesson.id, before=lesson.model_dump())
    lesson.deleted_at = clock.now()
    touch(lesson)
    await session.flush()
    await open_again(session, lesson.id)
    if lesson.status == "scheduled":
        # Somebody may stand at the cashier's.
        await emit(session, LiveLessonCanceled(lesson_id=lesson.id, canceled_at=lesson.deleted_at))
    await offer(session, lesson, runtime.settings.live_amount)
    await want_closed(session, lesson.id)
