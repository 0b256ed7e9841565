"""A small service of the tests' own, with a table, a hot counter and an event."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import Request, Response
from pydantic import Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlmodel import Field as Column
from sqlmodel import SQLModel, select

from kit.app import RuntimeDep, Service, json_response, router, shortcut
from kit.auth import Caller, MemberDep, OptionalMemberDep, admin_with
from kit.db import SessionDep, new_registry
from kit.errors import Conflict, Problem, problems
from kit.events import Event, emit
from kit.group import GroupCommit
from kit.idempotency import KeyDep, answers_in_group
from kit.ids import new_id
from kit.page import Page, PageDep, keyset
from kit.settings import ServiceSettings
from kit.shapes import Count, Out, StrictIn, Text
from tests.harness import Api, Run

NO_NOTE, BROKEN_NOTE = UUID(int=0), UUID(int=1)

routes = router(prefix="/v1/notes", tags=["notes"])


class Model(SQLModel, registry=new_registry()):
    """The probe's tables."""


class Note(Model, table=True):
    id: UUID = Column(default_factory=new_id, primary_key=True)
    words: str
    weight: int = 0


class NoteWritten(Event, type="probe.note.written"):
    words: str


class NoteRefused(Conflict):
    """This note is refused."""

    zh = "这条笔记不被接受。"


class NoteIn(StrictIn):
    words: Text(1, 50)  # type: ignore[valid-type]
    weight: Count = 0
    ratio: Annotated[float, Field(ge=0)] = 0


class NoteOut(Out):
    id: UUID
    words: str
    weight: int


@routes.post("", status_code=201, responses=problems(NoteRefused))
async def write_note(body: NoteIn, session: SessionDep, caller: OptionalMemberDep) -> NoteOut:
    """Write a note."""
    note = Note(words=body.words, weight=body.weight)
    session.add(note)
    await session.flush()
    if body.words == "refused":
        raise NoteRefused
    await emit(session, NoteWritten(words=body.words))
    return NoteOut.model_validate(note)


@routes.post("/paid", status_code=201)
async def write_paid_note(body: NoteIn, session: SessionDep, caller: MemberDep, _: KeyDep) -> NoteOut:
    """Write a note that needs a key."""
    return await write_note(body, session, caller)


@routes.post("/uncommittable", status_code=201)
async def write_uncommittable(session: SessionDep) -> dict[str, str]:
    """Succeed, but for the commit."""
    await session.execute(text("INSERT INTO late (id) VALUES (1), (1)"))
    return {"status": "written"}


@routes.get("")
async def list_notes(session: SessionDep, page: PageDep) -> Page[NoteOut]:
    """All notes."""
    items, cursor = await keyset(session, select(Note), page, (Note.weight.desc(), Note.id.desc()))  # type: ignore[attr-defined]
    return Page(items=[NoteOut.model_validate(item) for item in items], next_cursor=cursor)


@routes.get("/crash")
async def crash(request: Request) -> None:
    """Break."""
    raise RuntimeError("a secret detail")


@routes.post("/collide")
async def collide(session: SessionDep) -> None:
    """Wait in a ring with somebody."""
    await session.execute(text("INSERT INTO note (id, words, weight) VALUES (gen_random_uuid(), 'collided', 0)"))
    await session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$"))


@routes.get("/mine")
async def mine(caller: MemberDep) -> dict[str, str]:
    """Who am I."""
    return {"id": str(caller.id)}


@routes.get("/admin")
async def admin_only(caller: Annotated[Caller, admin_with("plans:write")]) -> dict[str, str]:
    """Which admin am I."""
    return {"id": str(caller.id)}


@routes.post("/{note_id}/touches", status_code=201)
@shortcut
async def touch_note(note_id: UUID, request: Request, caller: MemberDep, rt: RuntimeDep) -> Response:
    """Say who touched a note, if it may be touched."""
    if note_id == NO_NOTE:
        raise NoteRefused
    if note_id == BROKEN_NOTE:
        raise RuntimeError("a secret detail")
    way = "long" if "fastapi_inner_astack" in request.scope else "short"
    return json_response({"id": note_id, "by": caller.id, "service": rt.service, "way": way}, 201)


@routes.put("/{note_id}/marks")
@shortcut
async def mark_note(body: NoteIn, note_id: UUID, request: Request, caller: MemberDep) -> Response:
    """Say what a note would be."""
    way = "long" if "fastapi_inner_astack" in request.scope else "short"
    return json_response({"id": note_id, "by": caller.id, "body": body.model_dump(), "way": way})


async def stamp(connection: AsyncConnection, stamps: Sequence[UUID]) -> list[UUID | Problem]:
    """Write a note for each stamp, but none for a note that is none."""
    taken = [new_id() for note_id in stamps if note_id != NO_NOTE]
    words = "INSERT INTO note (id, words, weight) SELECT unnest(CAST(:ids AS uuid[])), 'stamp', :at_once"
    await connection.execute(text(words), {"ids": taken, "at_once": len(stamps)})
    ids = iter(taken)
    return [NoteRefused() if note_id == NO_NOTE else next(ids) for note_id in stamps]


@routes.post("/{note_id}/stamps", status_code=201, responses=problems(NoteRefused))
@shortcut
@answers_in_group
async def stamp_note(note_id: UUID, request: Request, caller: MemberDep, rt: RuntimeDep) -> Response:
    """Stamp a note, with whoever stamps one at the same moment."""
    group: GroupCommit[UUID, UUID] = rt.state.setdefault("stamps", GroupCommit(rt.db, stamp, name="stamps"))
    way = "long" if "fastapi_inner_astack" in request.scope else "short"
    found, response = await group.answer(request, note_id, lambda made: json_response({"id": made, "way": way}, 201))
    response.headers["X-Made"] = str(found)
    return response


heard: list[Any] = []
trouble: list[Exception] = []


async def on_note_written(session: AsyncSession, event: NoteWritten) -> None:
    """Count the notes heard of, unless there is trouble."""
    if trouble:
        raise trouble.pop()
    heard.append(event.words)
    await session.execute(
        text("INSERT INTO note (id, words, weight) VALUES (:id, :words, 0)"),
        {"id": new_id(), "words": f"heard {event.words}"},
    )


service = Service(
    name="probe",
    title="Probe",
    settings=ServiceSettings,
    metadata=Model.metadata,
    routers=[routes],
    handlers={NoteWritten: [on_note_written]},
    listeners=frozenset({"probe"}),
)


@pytest.fixture
async def api(run: Run) -> AsyncIterator[Api]:
    heard.clear()
    trouble.clear()
    async with run(service) as api:
        yield api
