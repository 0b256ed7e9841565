"""Revocations: what the database says of ended sessions and frozen accounts is shown to every process through Redis."""

from datetime import timedelta

import structlog
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from kit.auth import FROZEN_KEY, LONGEST_TOKEN_SECONDS, REVOKED_KEY
from services.members.models import LoginSession, Member

log = structlog.get_logger(__name__)

TOKEN_LIFE = timedelta(seconds=LONGEST_TOKEN_SECONDS)


async def mirror_revocations(rt: Runtime) -> int:
    """Write both sets anew from the rows, so that a Redis that lost them has them again; counts as nothing done."""
    now = clock.now()
    async with rt.db.session() as session:
        revoked_at = col(LoginSession.revoked_at)
        # Older ones need no mention: the tokens of such a session have expired by themselves.
        ended = select(col(LoginSession.id), revoked_at).where(revoked_at > now - TOKEN_LIFE)
        gone = {f"session:{row.id}": (row.revoked_at + TOKEN_LIFE).timestamp() for row in await session.execute(ended)}
        frozen = [
            str(item) for item in (await session.execute(select(col(Member.id)).where(col(Member.frozen)))).scalars()
        ]
    try:
        async with rt.redis.pipeline(transaction=True) as pipeline:
            pipeline.zremrangebyscore(REVOKED_KEY, "-inf", now.timestamp())
            if gone:
                pipeline.zadd(REVOKED_KEY, gone)
            pipeline.delete(FROZEN_KEY)
            if frozen:
                pipeline.sadd(FROZEN_KEY, *frozen)
            await pipeline.execute()
    except (RedisError, OSError) as failure:
        log.warning("revocations not mirrored", error=type(failure).__name__)
    return 0
