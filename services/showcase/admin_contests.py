"""Contests as admins run them: everything may change until the start, afterwards only the end may move later."""

from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError, model_validator
from sqlalchemy import delete, insert, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import audit, clock
from kit.app import router
from kit.auth import admin_with
from kit.db import SessionDep
from kit.errors import Conflict, StaleVersion, problems
from kit.http import json_response, require_version, version_tag
from kit.ids import new_id
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, StrictIn, Text
from kit.wording import Wrong
from services.showcase.contests import ContestNotFound, ContestOut, load_contest, phase_of, shown, with_entries
from services.showcase.models import Contest
from services.showcase.prizes import Prizes

api = router(prefix="/v1/admin/contests", tags=["admin contests"])

READER = [admin_with("contests:read")]
EDITOR = [admin_with("contests:write")]

Title = Text(1, 120)
Rules = Text(0, 20_000)
VotesPerDay = Annotated[int, Field(strict=True, ge=1, le=1000)]
Switch = Annotated[bool, Field(strict=True)]
LONGEST = timedelta(days=3660)


class ContestStarted(Conflict):
    """This contest has started: only its end may still move, to a later instant and before it is over."""

    zh = "比赛已经开始：现在只能在结束之前把结束时间往后延。"


class ContestIn(StrictIn):
    """A contest; `accounts_before` is its start unless given."""

    title: Title  # type: ignore[valid-type]  # Text() makes a type
    rules: Rules = ""  # type: ignore[valid-type]  # Text() makes a type
    starts_at: Instant
    ends_at: Instant
    votes_per_day: VotesPerDay = 3
    accounts_before: Instant | None = None
    moderation: Literal["pre", "post"] = "post"
    hide_totals: Switch = False
    prizes: Prizes = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        if not self.starts_at < self.ends_at <= self.starts_at + LONGEST:
            raise Wrong(
                "ends_at must be after starts_at, by ten years at most", "ends_at 应晚于 starts_at，且相差不超过十年"
            )
        if self.accounts_before is None:
            self.accounts_before = self.starts_at
        if self.accounts_before > self.ends_at:
            raise Wrong("accounts_before must be at most ends_at", "accounts_before 不能晚于 ends_at")
        return self


class ContestPatch(StrictIn):
    """What to change; what is left out stays."""

    title: Title | None = None  # type: ignore[valid-type]  # Text() makes a type
    rules: Rules | None = None  # type: ignore[valid-type]  # Text() makes a type
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    votes_per_day: VotesPerDay | None = None
    accounts_before: Instant | None = None
    moderation: Literal["pre", "post"] | None = None
    hide_totals: Switch | None = None
    prizes: Prizes | None = None


def columns_of(contest: ContestIn) -> dict[str, Any]:
    """The columns of the contest table that an admin chooses."""
    plain = contest.model_dump(exclude={"prizes"})
    return plain | {"prizes": [prize.model_dump(by_alias=True) for prize in contest.prizes]}


async def add_contest(session: AsyncSession, contest: ContestIn, contest_id: UUID | None = None) -> UUID:
    """Write a new contest; its id."""
    row = columns_of(contest) | {"id": contest_id or new_id(), "version": 1, "created_at": clock.now()}
    await session.execute(insert(Contest).values(row))
    return UUID(str(row["id"]))


async def _answer(session: AsyncSession, contest_id: UUID, status: int = 200) -> Response:
    row = await load_contest(session, contest_id)
    return json_response(shown(row), status, {"ETag": version_tag(row.version)})


async def _locked(session: AsyncSession, contest_id: UUID, request: Request) -> Contest:
    contest = await session.get(Contest, contest_id, with_for_update=True)
    if contest is None:
        raise ContestNotFound
    require_version(request, contest.version)
    return contest


@api.get("", dependencies=READER, response_model=Page[ContestOut])
async def list_contests_to_edit(session: SessionDep, page: PageDep) -> Response:
    """All contests, the one that ends last first."""
    order = (col(Contest.ends_at).desc(), col(Contest.id).desc())
    rows, next_cursor = await keyset(session, with_entries(), page, order)
    return json_response({"items": [shown(row) for row in rows], "next_cursor": next_cursor})


@api.get("/{contest_id}", dependencies=READER, response_model=ContestOut, responses=problems(ContestNotFound))
async def read_contest_to_edit(contest_id: UUID, session: SessionDep) -> Response:
    """One contest, with the ETag that a change names in If-Match."""
    return await _answer(session, contest_id)


@api.post("", dependencies=EDITOR, status_code=201, response_model=ContestOut)
async def create_contest(body: ContestIn, session: SessionDep) -> Response:
    """Call a contest."""
    contest_id = await add_contest(session, body)
    await audit.record(session, "contest.created", contest_id, after=columns_of(body))
    return await _answer(session, contest_id, 201)


@api.patch(
    "/{contest_id}",
    dependencies=EDITOR,
    response_model=ContestOut,
    responses=problems(ContestNotFound, ContestStarted, StaleVersion),
)
async def change_contest(contest_id: UUID, body: ContestPatch, session: SessionDep, request: Request) -> Response:
    """Change a contest; once it has started only `ends_at` may change, to a later instant."""
    contest = await _locked(session, contest_id, request)
    held = {name: getattr(contest, name) for name in ContestIn.model_fields}
    wanted = {
        name: value for name, value in body.model_dump(by_alias=True, exclude_unset=True).items() if value is not None
    }
    changes = {name: value for name, value in wanted.items() if value != held[name]}
    if not changes:
        return await _answer(session, contest_id)
    phase = phase_of(contest, clock.now())
    later = changes.keys() == {"ends_at"} and changes["ends_at"] > contest.ends_at
    if phase != "upcoming" and not (phase == "open" and later):
        raise ContestStarted
    if contest.accounts_before == contest.starts_at and "accounts_before" not in changes and "starts_at" in changes:
        changes["accounts_before"] = changes["starts_at"]  # the default follows the start
    try:
        merged = columns_of(ContestIn.model_validate(held | changes))
    except ValidationError as failure:
        raise RequestValidationError(
            [{**error, "loc": ("body", *error["loc"])} for error in failure.errors()]
        ) from failure
    await audit.record(session, "contest.changed", contest_id, before=held, after=merged)
    values = merged | {"version": contest.version + 1}
    await session.execute(update(Contest).where(col(Contest.id) == contest_id).values(values))
    return await _answer(session, contest_id)


@api.delete(
    "/{contest_id}",
    dependencies=EDITOR,
    status_code=204,
    responses=problems(ContestNotFound, ContestStarted, StaleVersion),
)
async def delete_contest(contest_id: UUID, session: SessionDep, request: Request) -> None:
    """Call a contest off before it starts."""
    contest = await _locked(session, contest_id, request)
    if phase_of(contest, clock.now()) != "upcoming":
        raise ContestStarted
    await audit.record(session, "contest.deleted", contest_id, before=contest.model_dump(exclude={"signal_secret"}))
    await session.execute(delete(Contest).where(col(Contest.id) == contest_id))
