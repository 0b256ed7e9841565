"""Questions: members ask in a live lesson and after it, others raise what they want answered."""

from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Response
from sqlalchemy import BigInteger, Integer, cast, exists, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.courses import QuestionAsked, QuestionUpvoted
from kit import audit, clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import AnyCallerDep, MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, Forbidden, NotFound, problems
from kit.events import emit
from kit.page import Page, PageDep, keyset
from kit.shapes import In, Instant, Out, Text
from services.courses.live import LiveLessonNotFound
from services.courses.live_news import tell
from services.courses.models import LiveLesson
from services.courses.room_models import Person, Question, QuestionAnswer, QuestionUpvote
from services.courses.ways import AccessRequired, ShownLiveLesson, require_entry

router = new_router(prefix="/v1/live-lessons/{lesson_id}/questions", tags=["live lessons"])
question_router = new_router(prefix="/v1/questions/{question_id}", tags=["live lessons"])

ADMIN_NAME: Final = "老师助手"
"""The name under which admins answer."""


class QuestionNotFound(NotFound):
    """There is no such question."""

    zh = "没有这个问题。"


class QuestionsClosed(Conflict):
    """This lesson is canceled and takes no questions."""

    zh = "这节直播课已取消，不能再提问。"


class OwnQuestion(Forbidden):
    """Your own question counts already; upvotes are others' voices."""

    zh = "不能给自己的问题点赞。"


class Voice(Out):
    """Who asked or answered; no id for an admin, or for somebody who left."""

    id: UUID | None
    nickname: str | None


class AnswerOut(Out):
    """An answer to a question."""

    id: UUID
    text: str
    by: Voice
    at: Instant


class QuestionOut(Out):
    """A question with its answers, the first one first; `priority` for holders of that benefit when they asked."""

    id: UUID
    text: str
    upvotes: int
    priority: bool
    asked_by: Voice
    asked_at: Instant
    answers: list[AnswerOut]


class WordsIn(In):
    """What is asked or answered."""

    text: Text(1, 500)  # type: ignore[valid-type]


async def open_question(question_id: UUID, session: SessionDep) -> Question:
    """A question of a lesson that is still there."""
    shown = exists().where(
        col(LiveLesson.id) == col(Question.lesson_id),
        col(LiveLesson.deleted_at).is_(None),
        col(LiveLesson.status) != "draft",
    )
    question = (await session.execute(select(Question).where(col(Question.id) == question_id, shown))).scalar()
    if question is None:
        raise QuestionNotFound
    return question


OpenQuestion = Annotated[Question, Depends(open_question, scope="function")]

_FIELDS: Final = (
    Question.id,
    Question.text,
    Question.upvotes,
    Question.priority,
    Question.asked_at,
    Question.member_id,
)
RANK: Final = (
    cast(cast(col(Question.priority), Integer), BigInteger) * 2**40 + cast(col(Question.upvotes), BigInteger)
).label("rank")
_ANSWERS: Final = text(
    "SELECT answer.id, answer.question_id, answer.text, answer.answered_at, answer.member_id, "
    "CASE WHEN answer.by_admin THEN :admin ELSE person.nickname END AS nickname FROM question_answer AS answer "
    "LEFT JOIN person ON person.member_id = answer.member_id WHERE answer.question_id = ANY(CAST(:ids AS uuid[])) "
    "ORDER BY answer.id"
)


def _rows() -> Any:
    columns: list[Any] = [col(field) for field in _FIELDS]
    asker = select(*columns, RANK, col(Person.nickname))
    return asker.outerjoin(Person, col(Person.member_id) == col(Question.member_id))


async def shown(session: AsyncSession, rows: Sequence[Any]) -> list[QuestionOut]:
    """Questions with the names and answers that they have now."""
    answers: dict[UUID, list[AnswerOut]] = {row.id: [] for row in rows}
    for answer in await session.execute(_ANSWERS, {"ids": list(answers), "admin": ADMIN_NAME}):
        by = Voice(id=answer.member_id, nickname=answer.nickname)
        answers[answer.question_id].append(AnswerOut(id=answer.id, text=answer.text, by=by, at=answer.answered_at))
    return [
        QuestionOut(
            id=row.id,
            text=row.text,
            upvotes=row.upvotes,
            priority=row.priority,
            asked_by=Voice(id=row.member_id, nickname=row.nickname),
            asked_at=row.asked_at,
            answers=answers[row.id],
        )
        for row in rows
    ]


async def _one(session: AsyncSession, question_id: UUID) -> QuestionOut:
    await session.flush()
    row = (await session.execute(_rows().where(col(Question.id) == question_id))).one()
    return (await shown(session, [row]))[0]


async def complete(session: AsyncSession, told: Sequence[tuple[str, Any]]) -> list[Any]:
    """The bodies of live news; of questions and answers only ids are kept there, and they are told as they are now."""
    ids = {UUID(body["question_id"]) for _, body in told if "question_id" in body}
    found: dict[str, QuestionOut] = {}
    if ids:
        rows = (await session.execute(_rows().where(col(Question.id).in_(ids)))).all()
        found = {str(question.id): question for question in await shown(session, rows)}
    bodies = []
    for kind, body in told:
        question = found.get(body.get("question_id", ""))
        if question is None:
            bodies.append(body)
        elif kind == "question":
            bodies.append(question.model_dump(mode="json"))
        else:
            answer = next((item for item in question.answers if str(item.id) == body["id"]), None)
            bodies.append(body | (answer.model_dump(mode="json") if answer else {}))
    return bodies


_PRIORITY: Final = text(
    "SELECT coalesce((SELECT qa_priority @> CAST(:now AS timestamptz) FROM access WHERE member_id = :member_id), false)"
)
ORDER: Final = (RANK.desc(), col(Question.id))


@router.get("", responses=problems(LiveLessonNotFound))
async def list_questions(
    lesson: ShownLiveLesson, session: SessionDep, page: PageDep, response: Response
) -> Page[QuestionOut]:
    """A lesson's questions, those with priority first, then the most wanted."""
    rows, next_cursor = await keyset(session, _rows().where(col(Question.lesson_id) == lesson.id), page, ORDER)
    response.headers["Cache-Control"] = "no-cache"
    return Page(items=await shown(session, rows), next_cursor=next_cursor)


@router.post("", status_code=201, responses=problems(LiveLessonNotFound, AccessRequired, QuestionsClosed))
async def ask_question(
    caller: MemberDep, body: WordsIn, lesson: ShownLiveLesson, session: SessionDep, runtime: RuntimeDep
) -> QuestionOut:
    """Ask, if the lesson is open to the caller; before it, during it, and after it."""
    await require_entry(session, lesson, caller.id, runtime.settings)
    if lesson.status == "canceled":
        raise QuestionsClosed
    now = clock.now()
    priority = (await session.execute(_PRIORITY, {"member_id": caller.id, "now": now})).scalar_one()
    question = Question(
        lesson_id=lesson.id, member_id=caller.id, text=body.text, priority=priority, upvotes=0, asked_at=now
    )
    session.add(question)
    await session.flush()
    asked = QuestionAsked(question_id=question.id, live_lesson_id=lesson.id, member_id=caller.id, asked_at=now)
    await emit(session, asked)
    await tell(session, lesson.id, "question", {"question_id": question.id})
    return await _one(session, question.id)


@question_router.put("/upvote", responses=problems(QuestionNotFound, OwnQuestion, AccessRequired))
async def upvote_question(
    caller: MemberDep, question: OpenQuestion, session: SessionDep, runtime: RuntimeDep
) -> QuestionOut:
    """Want a question answered; asking again changes nothing."""
    if question.member_id == caller.id:
        raise OwnQuestion
    lesson = await session.get_one(LiveLesson, question.lesson_id)
    await require_entry(session, lesson, caller.id, runtime.settings)
    now = clock.now()
    vote = insert(QuestionUpvote).values(question_id=question.id, member_id=caller.id, upvoted_at=now)
    new = await session.execute(vote.on_conflict_do_nothing().returning(col(QuestionUpvote.member_id)))
    if new.first() is not None:
        await _count(session, question.id)
        if question.member_id is not None:
            upvoted = QuestionUpvoted(
                question_id=question.id, member_id=question.member_id, voter_id=caller.id, upvoted_at=now
            )
            await emit(session, upvoted)
        await tell(session, question.lesson_id, "question", {"question_id": question.id})
    return await _one(session, question.id)


async def _count(session: AsyncSession, question_id: UUID) -> None:
    more = update(Question).where(col(Question.id) == question_id).values(upvotes=col(Question.upvotes) + 1)
    await session.execute(more.execution_options(synchronize_session=False))


@question_router.post("/answers", status_code=201, responses=problems(QuestionNotFound, AccessRequired))
async def answer_question(
    caller: AnyCallerDep, body: WordsIn, question: OpenQuestion, session: SessionDep, runtime: RuntimeDep
) -> AnswerOut:
    """Answer: the instructor, an admin of courses, or any member to whom the lesson is open."""
    by_admin = caller.role == "admin" and "courses:write" in caller.scopes
    if not by_admin:
        if caller.role != "member":
            raise Forbidden
        lesson = await session.get_one(LiveLesson, question.lesson_id)
        await require_entry(session, lesson, caller.id, runtime.settings)
    answer = QuestionAnswer(
        question_id=question.id,
        member_id=None if by_admin else caller.id,
        by_admin=by_admin,
        text=body.text,
        answered_at=clock.now(),
    )
    session.add(answer)
    await session.flush()
    if by_admin:
        await audit.record(session, "question.answered", question.id, after={"text": body.text})
    await tell(session, question.lesson_id, "answer", {"id": answer.id, "question_id": question.id})
    answered = await _one(session, question.id)
    return next(item for item in answered.answers if item.id == answer.id)
