"""Merged accounts: works, uploads, comments and votes follow; a day's votes of both are one person's votes."""

from collections import Counter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.merging import Merging
from services.showcase.models import Contest, Entry, Vote
from services.showcase.signals import join_trees

_MOVES: Final = (
    # The older account says since when the person is here, and who brought them.
    text("""
    WITH theirs AS (DELETE FROM member_card WHERE member_id = :merged RETURNING *)
    INSERT INTO member_card AS mine (member_id, nickname, registered_at, invite_code, tree_id, device)
    SELECT :kept, '', registered_at, invite_code, nullif(tree_id, :kept), device FROM theirs
    ON CONFLICT (member_id) DO UPDATE SET registered_at = least(mine.registered_at, excluded.registered_at),
        tree_id = coalesce(mine.tree_id, excluded.tree_id), device = coalesce(mine.device, excluded.device),
        invite_code = CASE WHEN excluded.registered_at < mine.registered_at
            THEN coalesce(excluded.invite_code, mine.invite_code) ELSE coalesce(mine.invite_code, excluded.invite_code)
            END
    """),
    text("UPDATE upload SET member_id = :kept WHERE member_id = :merged"),
    text("UPDATE entry SET member_id = :kept WHERE member_id = :merged"),
    text("UPDATE comment SET member_id = :kept WHERE member_id = :merged"),
    # Of two reports of one thing the first stays; who had reported the other account's work stands by it.
    text("""
    DELETE FROM report AS other USING report AS mine
    WHERE mine.member_id IN (:kept, :merged) AND other.member_id IN (:kept, :merged) AND other.id > mine.id
    AND other.entry_id = mine.entry_id AND other.comment_id IS NOT DISTINCT FROM mine.comment_id
    """),
    text("UPDATE report SET member_id = :kept WHERE member_id = :merged"),
    text("UPDATE report SET author_id = :kept WHERE author_id = :merged"),
    text("""
    DELETE FROM share_link AS other USING share_link AS mine
    WHERE other.member_id = :merged AND mine.member_id = :kept AND other.entry_id = mine.entry_id
    """),
    text("UPDATE share_link SET member_id = :kept WHERE member_id = :merged"),
)
# In the order of entries, as a batch of votes writes them.
_UNCOUNT: Final = text("""
UPDATE tally SET votes = votes - lost.n, changes = changes + 1
FROM (SELECT * FROM unnest(CAST(:entries AS uuid[]), CAST(:counts AS int[])) AS l(entry_id, n) ORDER BY entry_id) lost
WHERE tally.entry_id = lost.entry_id
""")


async def move(session: AsyncSession, kept_id: UUID, merged_id: UUID) -> None:
    """Give the kept member what the merged one showed and cast; the votes of settled contests stay as published."""
    for statement in _MOVES:
        await session.execute(statement, {"kept": kept_id, "merged": merged_id})
    await join_trees(session, kept_id, merged_id)
    theirs = select(col(Vote.contest_id)).where(col(Vote.member_id) == merged_id)
    shown = select(col(Entry.contest_id)).where(col(Entry.member_id) == kept_id)
    # A vote being cast holds its contest shared, who settles it alone: neither happens while the two are made one.
    contests = (
        select(Contest)
        .where(col(Contest.id).in_(theirs) | col(Contest.id).in_(shown), col(Contest.settled_at).is_(None))
        .order_by(col(Contest.id))
        .with_for_update()
    )
    held = (await session.execute(contests)).scalars().all()
    voted = set((await session.execute(theirs)).scalars())
    for contest in held:
        if contest.id in voted:
            await _move_votes(session, contest, kept_id, merged_id)
    # A work of one that the other voted for is now their own.
    await _drop_own(session, kept_id)


async def _move_votes(session: AsyncSession, contest: Contest, kept_id: UUID, merged_id: UUID) -> None:
    """Lay both members' votes together day by day, the earliest first, as if one person had cast them."""
    of_both = (col(Vote.contest_id) == contest.id, col(Vote.member_id).in_((kept_id, merged_id)))
    columns = select(*Vote.__table__.c).where(*of_both)  # type: ignore[attr-defined]  # SQLModel hides it
    cast = (await session.execute(columns.order_by(col(Vote.cast_at), col(Vote.entry_id)))).all()
    rows: list[dict[str, Any]] = []
    lost: Counter[UUID] = Counter()
    seen: set[tuple[UUID, Any]] = set()
    used: Counter[Any] = Counter()
    for vote in cast:
        if (vote.entry_id, vote.day) in seen or used[vote.day] >= contest.votes_per_day:
            lost[vote.entry_id] += vote.quarantine is None
            continue
        seen.add((vote.entry_id, vote.day))
        used[vote.day] += 1
        rows.append(vote._asdict() | {"slot": used[vote.day], "member_id": kept_id})
    await session.execute(delete(Vote).where(*of_both))
    if rows:
        await session.execute(insert(Vote), rows)
    await _uncount(session, lost)


async def _drop_own(session: AsyncSession, member_id: UUID) -> None:
    own = select(col(Entry.id)).where(col(Entry.member_id) == member_id)
    unsettled = select(col(Contest.id)).where(col(Contest.settled_at).is_(None))
    gone = (
        delete(Vote)
        .where(col(Vote.member_id) == member_id, col(Vote.entry_id).in_(own), col(Vote.contest_id).in_(unsettled))
        .returning(col(Vote.entry_id), col(Vote.quarantine))
    )
    dropped = (await session.execute(gone)).all()
    await _uncount(session, Counter(vote.entry_id for vote in dropped if vote.quarantine is None))


async def _uncount(session: AsyncSession, lost: Counter[UUID]) -> None:
    if lost:
        await session.execute(_UNCOUNT, {"entries": list(lost), "counts": list(lost.values())})


merging = Merging(move)
