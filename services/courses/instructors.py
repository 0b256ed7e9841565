"""Instructors: who teaches courses, with a profile that the community has verified or not."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request, Response
from pydantic import Field
from sqlalchemy import Select, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from kit import audit, clock
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, StaleVersion, problems
from kit.http import cacheable, require_version, version_tag
from kit.page import Page, PageDep, keyset
from kit.patch import Patch
from kit.shapes import Instant, Out, StrictIn, Text
from services.courses.admin_courses import EDITOR, READER, Flag
from services.courses.catalogue_models import Instructor
from services.courses.models import Course

router = new_router(prefix="/v1/instructors", tags=["courses"])
admin_router = new_router(prefix="/v1/admin/instructors", tags=["admin courses"])

Name = Text(1, 60)
Headline = Text(0, 120)
Bio = Text(0, 4000)
Picture = Annotated[str, Field(pattern=r"^(https?:/)?/[!-~]{1,490}$")]


class InstructorNotFound(NotFound):
    """There is no such instructor; the profile may have been taken down."""

    zh = "没有这位讲师，资料可能已经下架。"


class InstructorTeaches(Conflict):
    """This instructor still has courses; give those to somebody else, or to nobody, first."""

    zh = "这位讲师名下还有课程，请先把课程改给其他讲师或清空讲师。"


class InstructorOut(Out):
    """Who teaches; `verified` once the community has checked who they are, `courses` counts those on show."""

    id: UUID
    name: str
    title: str
    bio: str
    avatar_url: str | None
    verified: bool
    courses: int


class InstructorEdit(InstructorOut):
    """An instructor as editors see them; `member_id` is their own account."""

    member_id: UUID | None
    verified_at: Instant | None
    version: int


class InstructorIn(StrictIn):
    """A new profile; `verified` says that the community has checked who this is."""

    name: Name  # type: ignore[valid-type]
    title: Headline = ""  # type: ignore[valid-type]
    bio: Bio = ""  # type: ignore[valid-type]
    avatar_url: Picture | None = None
    member_id: UUID | None = None
    verified: Flag = False


class InstructorPatch(Patch):
    """What to change in a profile."""

    nullable = frozenset({"avatar_url", "member_id"})

    name: Name | None = None  # type: ignore[valid-type]
    title: Headline | None = None  # type: ignore[valid-type]
    bio: Bio | None = None  # type: ignore[valid-type]
    avatar_url: Picture | None = None
    member_id: UUID | None = None
    verified: Flag | None = None


async def held_instructor(instructor_id: UUID, session: SessionDep) -> Instructor:
    """The profile, locked for this request."""
    found = await session.get(Instructor, instructor_id, with_for_update=True)
    if found is None or found.deleted_at is not None:
        raise InstructorNotFound
    return found


HeldInstructor = Annotated[Instructor, Depends(held_instructor, scope="function")]

_instructor, _course = Instructor.__table__.c, Course.__table__.c  # type: ignore[attr-defined]


def _rows() -> Select[Any]:
    shown = select(func.count()).where(
        _course.instructor_id == _instructor.id, _course.published, _course.deleted_at.is_(None)
    )
    columns = (_instructor.name, _instructor.title, _instructor.bio, _instructor.avatar_url, _instructor.member_id)
    return select(
        _instructor.id, *columns, _instructor.verified_at, _instructor.version, shown.scalar_subquery().label("courses")
    ).where(_instructor.deleted_at.is_(None))


def _edited(row: Any) -> dict[str, Any]:
    return dict(row._mapping) | {"verified": row.verified_at is not None}  # noqa: SLF001 - a row as a mapping


def _shown(row: Any) -> dict[str, Any]:
    return {name: value for name, value in _edited(row).items() if name in InstructorOut.model_fields}


_BY_NAME = (_instructor.name, _instructor.id)


@router.get("", response_model=Page[InstructorOut])
async def list_instructors(request: Request, session: SessionDep, page: PageDep) -> Response:
    """Everybody who teaches, by name; `GET /v1/courses?instructor_id=` lists what."""
    rows, next_cursor = await keyset(session, _rows(), page, _BY_NAME)
    return cacheable(request, {"items": [_shown(row) for row in rows], "next_cursor": next_cursor})


@router.get("/{instructor_id}", response_model=InstructorOut, responses=problems(InstructorNotFound))
async def read_instructor(instructor_id: UUID, request: Request, session: SessionDep) -> Response:
    """One instructor's profile."""
    return cacheable(request, _shown(await _row(session, instructor_id)))


async def _row(session: AsyncSession, instructor_id: UUID) -> Any:
    row = (await session.execute(_rows().where(_instructor.id == instructor_id))).one_or_none()
    if row is None:
        raise InstructorNotFound
    return row


async def _answer(session: AsyncSession, instructor_id: UUID, response: Response) -> InstructorEdit:
    row = await _row(session, instructor_id)
    response.headers["ETag"] = version_tag(row.version)
    return InstructorEdit.model_validate(_edited(row))


@admin_router.get("", dependencies=READER)
async def list_instructors_to_edit(session: SessionDep, page: PageDep) -> Page[InstructorEdit]:
    """All profiles, by name."""
    rows, next_cursor = await keyset(session, _rows(), page, _BY_NAME)
    items = [InstructorEdit.model_validate(_edited(row)) for row in rows]
    return Page[InstructorEdit](items=items, next_cursor=next_cursor)


@admin_router.post("", dependencies=EDITOR, status_code=201)
async def create_instructor(body: InstructorIn, session: SessionDep, response: Response) -> InstructorEdit:
    """Write the profile of somebody who teaches."""
    now = clock.now()
    fields = body.model_dump(exclude={"verified"})
    made = Instructor(**fields, verified_at=now if body.verified else None, created_at=now, updated_at=now)
    session.add(made)
    await session.flush()
    await audit.record(session, "instructor.created", made.id, after=made.model_dump())
    response.headers["Location"] = f"/v1/admin/instructors/{made.id}"
    return await _answer(session, made.id, response)


@admin_router.get("/{instructor_id}", dependencies=READER, responses=problems(InstructorNotFound))
async def read_instructor_to_edit(instructor_id: UUID, session: SessionDep, response: Response) -> InstructorEdit:
    """One profile, with the ETag that a change names in If-Match."""
    return await _answer(session, instructor_id, response)


@admin_router.patch("/{instructor_id}", dependencies=EDITOR, responses=problems(InstructorNotFound, StaleVersion))
async def change_instructor(
    body: InstructorPatch, held: HeldInstructor, session: SessionDep, request: Request, response: Response
) -> InstructorEdit:
    """Change a profile, verify it, or take that back."""
    require_version(request, held.version)
    before, now = held.model_dump(), clock.now()
    changes = body.model_dump(exclude_unset=True)
    verified = changes.pop("verified", held.verified_at is not None)
    held.sqlmodel_update(changes | {"verified_at": (held.verified_at or now) if verified else None})
    held.version += 1
    held.updated_at = now
    await session.flush()
    await audit.record(session, "instructor.changed", held.id, before=before, after=held.model_dump())
    return await _answer(session, held.id, response)


_TEACHES = text("SELECT EXISTS (SELECT FROM course WHERE instructor_id = :id AND deleted_at IS NULL)")


@admin_router.delete(
    "/{instructor_id}",
    dependencies=EDITOR,
    status_code=204,
    responses=problems(InstructorNotFound, StaleVersion, InstructorTeaches),
)
async def delete_instructor(held: HeldInstructor, session: SessionDep, request: Request) -> None:
    """Take a profile down that no course names any more."""
    require_version(request, held.version)
    if (await session.execute(_TEACHES, {"id": held.id})).scalar_one():
        raise InstructorTeaches
    await audit.record(session, "instructor.deleted", held.id, before=held.model_dump())
    held.deleted_at = clock.now()
    held.version += 1
