"""Exchanging refresh tokens: those of members that come at the same time, in one statement and one commit."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kit import clock
from kit.app import Runtime
from kit.db import fetch
from kit.group import GroupCommit

REFRESH_FOR: Final = timedelta(days=60)

# Of two with the same token one is left out, and so is whoever would have to wait for another process: why a token is not
# exchanged here is for `tokens.rotate` to say. Nobody waits, so that many rows held at once are no danger to others.
_ROTATE: Final = """
WITH asked AS (
    SELECT DISTINCT ON (hash) hash, fresh FROM unnest($1::bytea[], $2::bytea[]) AS a (hash, fresh) ORDER BY hash, fresh
), held AS (
    SELECT asked.hash, asked.fresh, login.id, login.subject_id, login.scope
    FROM asked
    JOIN refresh_token AS token ON token.token_hash = asked.hash
    JOIN login_session AS login ON login.id = token.session_id
    JOIN member ON member.id = login.subject_id
    WHERE token.used_at IS NULL AND token.expires_at > $3 AND login.revoked_at IS NULL AND login.role = 'member'
        AND NOT member.frozen AND member.erased_at IS NULL
    FOR UPDATE OF token, login SKIP LOCKED
), used AS (
    UPDATE refresh_token SET used_at = $3 FROM held WHERE token_hash = held.hash
), kept AS (
    UPDATE login_session SET last_seen_at = $3, expires_at = $4 FROM held WHERE login_session.id = held.id
), given AS (
    INSERT INTO refresh_token (token_hash, session_id, expires_at) SELECT fresh, id, $4 FROM held
)
SELECT fresh, id, subject_id, scope FROM held
"""


class Exchange(NamedTuple):
    """The hash of a token, and of the one that is to follow it."""

    held: bytes
    fresh: bytes


class Kept(NamedTuple):
    """Whose session goes on."""

    session_id: UUID
    member_id: UUID
    scope: str


async def _rotate(connection: AsyncConnection, asked: Sequence[Exchange]) -> list[Kept | None]:
    now = clock.now()
    held, fresh = [one.held for one in asked], [one.fresh for one in asked]
    rows = await fetch(connection, _ROTATE, held, fresh, now, now + REFRESH_FOR)
    kept = {bytes(row["fresh"]): Kept(row["id"], row["subject_id"], row["scope"]) for row in rows}
    return [kept.get(one.fresh) for one in asked]


@asynccontextmanager
async def rotating(rt: Runtime) -> AsyncIterator[None]:
    """Exchange tokens together for the life of the process."""
    rt.state["rotating"] = GroupCommit(rt.db, _rotate, name="refresh", at_once=2, commits_itself=True)
    yield


async def rotate_together(rt: Runtime, exchange: Exchange) -> Kept | None:
    """Exchange an unused token of a member's living session; None for every other, which is left as it is."""
    group: GroupCommit[Exchange, Kept | None] = rt.state["rotating"]
    return await group.submit(exchange)
