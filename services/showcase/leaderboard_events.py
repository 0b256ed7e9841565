"""Leaderboard events: whoever watches a contest hears of changes, at most once a second."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Annotated, Any, Final
from uuid import UUID

import structlog
from fastapi import Header
from sqlalchemy import select
from sqlmodel import col
from starlette.responses import Response, StreamingResponse

from kit.app import Runtime, RuntimeDep, router
from kit.errors import Unavailable, problems
from kit.text import dump_json
from services.showcase.contests import ContestNotFound
from services.showcase.leaderboard import Limit, leaders
from services.showcase.models import Contest
from services.showcase.standings import standings_of

log = structlog.get_logger(__name__)

api = router(prefix="/v1/contests/{contest_id}/leaderboard", tags=["contests"])

EVERY_S: Final = 1.0
QUIET_S: Final = 15.0
"""After this long a comment is sent, so that proxies do not close a silent stream."""
MAX_WATCHERS: Final = 5000
DESCRIPTION: Final = (
    "`event: leaderboard`, data is the leaderboard; then `event: delta`, data is `items`, the places that changed, and "
    "`gone`, the ids of works that left it."
)


class TooManyWatchers(Unavailable):
    """Very many people are watching right now; read the leaderboard itself from time to time."""

    zh = "正在围观的人太多，请改为定时读取排行榜。"


class Board:
    """A leaderboard in this process, read once a second for however many watch it."""

    def __init__(self, rt: Runtime, contest_id: UUID, limit: int) -> None:
        self.rt = rt
        self.contest_id = contest_id
        self.limit = limit
        self.tag = ""
        self.whole = b""
        self.before = ""
        self.delta = b""
        self.over = False
        self.watchers = 0
        self.changed = asyncio.Event()
        self.reader: asyncio.Task[None] | None = None
        self._items: list[dict[str, Any]] = []

    async def watch(self, seen: str | None) -> AsyncGenerator[bytes]:
        """The leaderboard now, unless its tag is the one `seen`, and what changes until the contest is settled.

        Whoever has seen the last one is told what changed since then, anybody else the whole; each once a second at most.
        """
        self.watchers += 1
        if self.reader is None:
            self.reader = asyncio.create_task(self._keep_reading(), name="leaderboard")
        loop = asyncio.get_running_loop()
        told_at = loop.time() - EVERY_S
        try:
            while True:
                changed = self.changed
                if self.tag and self.tag != seen:
                    wait = told_at + EVERY_S - loop.time()
                    if wait > 0:
                        await asyncio.sleep(wait)
                    frame = self.delta if seen and seen == self.before else self.whole
                    seen, told_at = self.tag, loop.time()
                    yield frame
                elif self.over:
                    return
                else:
                    try:
                        await asyncio.wait_for(changed.wait(), QUIET_S)
                    except TimeoutError:
                        yield b": quiet\n\n"
        finally:
            self.watchers -= 1

    async def _keep_reading(self) -> None:
        try:
            while self.watchers and not self.over:
                try:
                    await self._read()
                except Exception as failure:  # noqa: BLE001 - those who watch wait for the database to come back
                    log.warning("leaderboard not read", error=type(failure).__name__)
                await asyncio.sleep(EVERY_S)
        finally:
            self.reader = None
            if self.over or not self.watchers:
                _boards(self.rt).pop((self.contest_id, self.limit), None)

    async def _read(self) -> None:
        async with self.rt.db.session() as session:
            settled = select(col(Contest.settled_at)).where(col(Contest.id) == self.contest_id)
            over = await session.scalar(settled) is not None
            shown = await leaders(self.rt, session, self.contest_id, self.limit)
        content = dump_json(shown)
        tag = _tag(content)
        if tag == self.tag and over == self.over:
            return
        if tag != self.tag:
            self.before, self.tag = self.tag, tag
            self.whole = _frame(tag, b"leaderboard", content)
            self.delta = _frame(tag, b"delta", dump_json(_difference(self._items, shown["items"])))
            self._items = shown["items"]
        self.over = over
        told, self.changed = self.changed, asyncio.Event()
        told.set()


def _tag(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()


def _frame(tag: str, event: bytes, content: bytes) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (tag.encode(), event, content)


def _difference(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> dict[str, Any]:
    """The places that are new or other than before, and the works that have none any more."""
    held = {item["entry_id"]: item for item in before}
    left = held.keys() - {item["entry_id"] for item in now}
    return {"items": [item for item in now if held.get(item["entry_id"]) != item], "gone": sorted(left)}


@asynccontextmanager
async def boards_of(rt: Runtime) -> AsyncIterator[None]:
    """Stop reading when the process stops."""
    yield
    await standings_of(rt).close()
    readers = [board.reader for board in _boards(rt).values() if board.reader is not None]
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)


def _boards(rt: Runtime) -> dict[tuple[UUID, int], Board]:
    boards: dict[tuple[UUID, int], Board] = rt.state.setdefault("boards", {})
    return boards


@api.get(
    "/events",
    response_class=StreamingResponse,
    responses=problems(ContestNotFound, TooManyWatchers)
    | {
        200: {"content": {"text/event-stream": {}}, "description": DESCRIPTION},
        204: {"description": "The contest is settled, and `Last-Event-ID` is its last: do not reconnect."},
    },
)
async def follow_leaderboard(
    contest_id: UUID,
    rt: RuntimeDep,
    limit: Limit = 20,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> Response:
    """The leaderboard now and as it changes, at most once a second, until the contest is settled."""
    boards = _boards(rt)
    if sum(board.watchers for board in boards.values()) >= MAX_WATCHERS:
        raise TooManyWatchers(retry_after=30)
    async with rt.db.session() as session:
        await rt.db.connect(session)
        contest = await session.get(Contest, contest_id)
        if contest is None:
            raise ContestNotFound
        if contest.settled_at is not None and last_event_id:
            last = dump_json(await leaders(rt, session, contest_id, limit))
            if _tag(last) == last_event_id:
                return Response(status_code=204)
    board = boards.setdefault((contest_id, limit), Board(rt, contest_id, limit))
    return StreamingResponse(
        board.watch(last_event_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
