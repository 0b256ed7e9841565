"""Events by hand: how far behind each listener is, and the dead letters to list, replay, discard, or tell again."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from redis.exceptions import ResponseError
from sqlalchemy import text

from kit import clock
from kit.app import Runtime
from kit.relay import UNPUBLISHED, stream_of


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a service could not handle."""

    service: str
    event_id: UUID
    type: str
    attempts: int
    error: str
    failed_at: datetime
    next_attempt_at: datetime | None


async def lag(runtime: Runtime) -> dict[str, Any]:
    """What this service has not told yet, and for each group on its stream what it has not handled."""
    async with runtime.db.session() as session:
        waiting = (await session.execute(text(UNPUBLISHED))).scalar_one()
    groups = {}
    try:
        for group in await runtime.redis.xinfo_groups(stream_of(runtime.service)):
            groups[group["name"].decode()] = int(group["pending"]) + int(group.get("lag") or 0)
    except ResponseError:  # no stream yet: nothing was ever told
        groups = {}
    return {"service": runtime.service, "unpublished": waiting, "groups": groups}


async def failures(runtime: Runtime, *, dead_only: bool = False) -> list[DeadLetter]:
    """The events this service failed to handle: dead letters, and those still being retried."""
    where = "WHERE next_attempt_at IS NULL" if dead_only else ""
    statement = text(
        "SELECT event_id, type, attempts, error, failed_at, next_attempt_at FROM event_failure "  # noqa: S608 - no input
        f"{where} ORDER BY failed_at LIMIT 1000"
    )
    async with runtime.db.session() as session:
        rows = (await session.execute(statement)).all()
    return [DeadLetter(runtime.service, *row) for row in rows]


async def replay(runtime: Runtime, event_id: UUID | None = None) -> int:
    """Make one failed event, or all of them, due now; how many."""
    statement = text(
        "UPDATE event_failure SET next_attempt_at = :now, attempts = 0 WHERE CAST(:id AS uuid) IS NULL OR event_id = :id"
    )
    async with runtime.db.session() as session, session.begin():
        result = await session.execute(statement, {"now": clock.now(), "id": event_id})
    return int(result.rowcount)  # type: ignore[attr-defined]


async def discard(runtime: Runtime, event_id: UUID) -> int:
    """Give up one failed event for good: it counts as handled. 1, or 0 when there is no such failure."""
    statement = text(
        "WITH gone AS (DELETE FROM event_failure WHERE event_id = :id RETURNING event_id) "
        "INSERT INTO inbox (event_id) SELECT event_id FROM gone ON CONFLICT DO NOTHING RETURNING event_id"
    )
    async with runtime.db.session() as session, session.begin():
        return len((await session.execute(statement, {"id": event_id})).all())


async def republish(runtime: Runtime) -> int:
    """Tell all events this service keeps once more; listeners drop those they have handled. How many."""
    return await runtime.relay.republish()
