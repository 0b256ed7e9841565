"""Revocations: what the database says of ended sessions and frozen accounts is shown to every process through Redis."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from math import inf
from typing import Any
from uuid import UUID

import structlog
from redis.exceptions import RedisError
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from kit import clock
from kit.app import Runtime
from kit.auth import LONGEST_TOKEN_SECONDS
from kit.revocations import FROZEN_KEY, NOBODY, REVOKED_KEY, revocations

log = structlog.get_logger(__name__)

TOKEN_LIFE = timedelta(seconds=LONGEST_TOKEN_SECONDS)

# Older ones need no mention: the tokens of such a session have expired by themselves.
_ENDED = "SELECT id, revoked_at FROM login_session WHERE revoked_at > $1"
_FROZEN = "SELECT id FROM member WHERE frozen"


def tell_ended(session: AsyncSession, sessions: Sequence[UUID]) -> None:
    """Have this process refuse the tokens of these sessions from the moment the transaction commits."""
    if sessions:
        event.listen(session.sync_session, "after_commit", lambda _: revocations.end(*sessions), once=True)


def tell_frozen(session: AsyncSession, member_id: UUID, *, frozen: bool) -> None:
    """Have this process refuse, or take again, this member's tokens from the moment the transaction commits."""
    told = partial(revocations.freeze, member_id, frozen=frozen)
    event.listen(session.sync_session, "after_commit", lambda _: told(), once=True)


async def mirror_revocations(rt: Runtime) -> int:
    """Make both sets what the rows say, so that a Redis that lost them has them again; counts as nothing done."""
    now = clock.now()
    ended = await rt.db.line.fetch(_ENDED, now - TOKEN_LIFE)
    frozen = [str(row["id"]) for row in await rt.db.line.fetch(_FROZEN)]
    gone = {f"session:{row['id']}": (row["revoked_at"] + TOKEN_LIFE).timestamp() for row in ended}
    try:
        # Only what is new or over is a change that Redis writes to its disk, every second.
        held: Any = await rt.redis.smembers(FROZEN_KEY)
        over = {item.decode() for item in held} - {NOBODY, *frozen}
        async with rt.redis.pipeline(transaction=True) as pipeline:
            pipeline.zremrangebyscore(REVOKED_KEY, "-inf", now.timestamp())
            pipeline.zadd(REVOKED_KEY, {NOBODY: inf} | gone)
            if over:
                pipeline.srem(FROZEN_KEY, *over)
            pipeline.sadd(FROZEN_KEY, NOBODY, *frozen)
            await pipeline.execute()
    except (RedisError, OSError) as failure:
        log.warning("revocations not mirrored", error=type(failure).__name__)
    return 0
