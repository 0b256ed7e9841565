"""Live events: whoever follows a live lesson hears of it as server-sent events, and misses nothing on the way."""

from typing import Annotated
from uuid import uuid4

from fastapi import Header
from starlette.responses import StreamingResponse

from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import OptionalMemberDep
from kit.db import SessionDep
from kit.errors import problems
from services.courses.live import LiveLessonNotFound
from services.courses.live_feeds import LAST
from services.courses.ways import ShownLiveLesson

router = new_router(prefix="/v1/live-lessons/{lesson_id}/events", tags=["live lessons"])

LastEventId = Annotated[str | None, Header(max_length=100)]


@router.get(
    "",
    response_class=StreamingResponse,
    responses=problems(LiveLessonNotFound)
    | {
        200: {
            "content": {"text/event-stream": {}},
            "description": "`status` `{status}`, `online` `{online}`, `question` and `answer` as questions show them, "
            "`notice` `{kind, …}`.",
        }
    },
)
async def follow_live_lesson(
    lesson: ShownLiveLesson,
    caller: OptionalMemberDep,
    session: SessionDep,
    runtime: RuntimeDep,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """How the lesson stands, and then whatever happens; with `Last-Event-ID`, all that happened since that one.

    Anyone may follow, as anyone may read a lesson's questions. A member counts as online once, however many streams
    they have open.
    """
    # The stream outlives the request's transaction and must not hold its connection.
    await session.commit()
    known = last_event_id is not None and last_event_id.isascii() and last_event_id.isdecimal()
    last = min(int(last_event_id), LAST) if known and last_event_id else None
    return StreamingResponse(
        runtime.state["feeds"].follow(lesson.id, str(caller.id if caller else uuid4()), last),
        media_type="text/event-stream",
        headers={"Cache-Control": "private, no-store", "X-Accel-Buffering": "no"},
    )
