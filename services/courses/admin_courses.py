"""Courses as admins edit them; every change is a new version."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request, Response
from pydantic import Field
from sqlalchemy import text
from sqlmodel import col

from kit import audit, clock
from kit.app import router as new_router
from kit.auth import admin_with
from kit.db import SessionDep
from kit.errors import Conflict, StaleVersion, Unprocessable, problems
from kit.http import require_version, version_tag
from kit.page import Page, PageDep, keyset
from kit.patch import Patch
from kit.shapes import StrictIn, Text
from services.courses.announcements import announce
from services.courses.catalogue_models import Instructor
from services.courses.categories import Category
from services.courses.courses import CourseNotFound, CourseOut, Question, course_rows, courses_out, searched
from services.courses.models import Course, CourseAccess, Level
from services.courses.search import matches

router = new_router(prefix="/v1/admin/courses", tags=["admin courses"])

READER = [admin_with("courses:read")]
EDITOR = [admin_with("courses:write")]

Title = Text(1, 200)
Description = Text(0, 4000)
Price = Annotated[int, Field(strict=True, ge=1, le=99_999_999)]
Flag = Annotated[bool, Field(strict=True)]


class PriceMismatch(Unprocessable):
    """A paid course has an amount of at least 1, and no other course has one."""

    zh = "付费课程必须填写大于 0 的价格，其他课程不能填写价格。"


class CourseSold(Conflict):
    """Members have bought this course: set `published` to false instead, and it stays open to them alone."""

    zh = "已有会员购买了这门课程：请改为下架（published 设为 false），已购会员仍可观看。"


class InstructorUnknown(Unprocessable):
    """There is no instructor with this id; list them with GET /v1/admin/instructors, or make the profile first."""

    zh = "没有这个 id 的讲师，请先用 GET /v1/admin/instructors 查询或新建讲师资料。"
    loc = ("body", "instructor_id")


class CourseEdit(CourseOut):
    """A course as its editors see it."""

    published: bool


class CourseIn(StrictIn):
    """A new course."""

    title: Title  # type: ignore[valid-type]
    description: Description = ""  # type: ignore[valid-type]
    category: Category
    level: Level
    access: CourseAccess
    amount: Price | None = None
    currency: Annotated[str, Field(pattern="^CNY$")] = "CNY"
    instructor_id: UUID | None = None
    published: Flag = False


class CoursePatch(Patch):
    """What to change in a course."""

    nullable = frozenset({"amount", "instructor_id"})

    title: Title | None = None  # type: ignore[valid-type]
    description: Description | None = None  # type: ignore[valid-type]
    category: Category | None = None
    level: Level | None = None
    access: CourseAccess | None = None
    amount: Price | None = None
    currency: Annotated[str, Field(pattern="^CNY$")] | None = None
    instructor_id: UUID | None = None
    published: Flag | None = None


async def held_course(course_id: UUID, session: SessionDep) -> Course:
    """The course, locked for this request."""
    course = await session.get(Course, course_id, with_for_update=True)
    if course is None or course.deleted_at is not None:
        raise CourseNotFound
    return course


HeldCourse = Annotated[Course, Depends(held_course, scope="function")]


async def _answer(session: SessionDep, course_id: UUID, response: Response) -> CourseEdit:
    rows = (await session.execute(course_rows(Course.published).where(col(Course.id) == course_id))).all()
    if not rows:
        raise CourseNotFound
    response.headers["ETag"] = version_tag(rows[0].version)
    return CourseEdit.model_validate((await courses_out(session, rows, edited=True))[0])


@router.get("", dependencies=READER)
async def list_courses_to_edit(
    session: SessionDep,
    page: PageDep,
    published: bool | None = None,  # noqa: FBT001 - a filter, by name
    q: Question = "",  # type: ignore[valid-type]
) -> Page[CourseEdit]:
    """All courses, shown or not, the newest first."""
    statement = searched(course_rows(Course.published), await matches(session, q))
    if published is not None:
        statement = statement.where(col(Course.published) == published)
    rows, next_cursor = await keyset(session, statement, page, (col(Course.id).desc(),))
    items = [CourseEdit.model_validate(item) for item in await courses_out(session, rows, edited=True)]
    return Page[CourseEdit](items=items, next_cursor=next_cursor)


@router.post("", dependencies=EDITOR, status_code=201, responses=problems(PriceMismatch, InstructorUnknown))
async def create_course(body: CourseIn, session: SessionDep, response: Response) -> CourseEdit:
    """Write a new course; members see it once it is published."""
    _check_price(body.access, body.amount)
    await _require_instructor(session, body.instructor_id)
    now = clock.now()
    course = Course(**body.model_dump(), created_at=now, updated_at=now)
    session.add(course)
    await session.flush()
    await announce(session, course)
    await audit.record(session, "course.created", course.id, after=course.model_dump())
    response.headers["Location"] = f"/v1/admin/courses/{course.id}"
    return await _answer(session, course.id, response)


async def _require_instructor(session: SessionDep, instructor_id: UUID | None) -> None:
    """Whoever is named must be there, and stay while this transaction lasts."""
    if instructor_id is not None:
        found = await session.get(Instructor, instructor_id, with_for_update={"read": True})
        if found is None or found.deleted_at is not None:
            raise InstructorUnknown


def _check_price(access: str, amount: int | None) -> None:
    if (access == "paid") != (amount is not None):
        raise PriceMismatch


@router.get("/{course_id}", dependencies=READER, responses=problems(CourseNotFound))
async def read_course_to_edit(course_id: UUID, session: SessionDep, response: Response) -> CourseEdit:
    """One course, with the ETag that a change names in If-Match."""
    return await _answer(session, course_id, response)


@router.patch(
    "/{course_id}",
    dependencies=EDITOR,
    responses=problems(CourseNotFound, StaleVersion, PriceMismatch, InstructorUnknown),
)
async def change_course(
    body: CoursePatch, course: HeldCourse, session: SessionDep, request: Request, response: Response
) -> CourseEdit:
    """Change a course; taking `access` away from `paid` takes its amount with it."""
    require_version(request, course.version)
    changes: dict[str, Any] = body.model_dump(exclude_unset=True)
    if changes.get("access", "paid") != "paid":
        changes.setdefault("amount", None)
    _check_price(changes.get("access", course.access), changes.get("amount", course.amount))
    await _require_instructor(session, changes.get("instructor_id"))
    before = course.model_dump()
    course.sqlmodel_update(changes)
    touch(course)
    await session.flush()
    await announce(session, course)
    await audit.record(session, "course.changed", course.id, before=before, after=course.model_dump())
    return await _answer(session, course.id, response)


def touch(course: Course) -> None:
    """Make it a new version."""
    course.version += 1
    course.updated_at = clock.now()


_SOLD = text(
    "SELECT EXISTS (SELECT FROM purchase WHERE course_id = :id AND paid_at IS NOT NULL AND refunded_at IS NULL)"
)


@router.delete(
    "/{course_id}", dependencies=EDITOR, status_code=204, responses=problems(CourseNotFound, StaleVersion, CourseSold)
)
async def delete_course(course: HeldCourse, session: SessionDep, request: Request) -> None:
    """Take a course that nobody bought down for good; what members learned in it stays theirs."""
    require_version(request, course.version)
    if await session.scalar(_SOLD, {"id": course.id}):
        raise CourseSold
    await audit.record(session, "course.deleted", course.id, before=course.model_dump())
    course.deleted_at = clock.now()
    touch(course)
    await session.flush()
    await announce(session, course)
