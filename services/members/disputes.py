"""Disputes: for which times a segment is suspended because a bank asks its payment back."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from services.members.ledger_models import Dispute, Pause

_TURN = ("opened", "lost", "won")
"""Which of two steps of one instant comes first."""


async def pauses_of(session: AsyncSession, source: str, source_id: UUID) -> list[Pause]:
    """For which times a segment of this source is suspended, from all that was heard of disputes about it."""
    statement = select(Dispute).where(col(Dispute.source) == source, col(Dispute.source_id) == source_id)
    return _pauses((await session.execute(statement)).scalars())


def _pauses(steps: Iterable[Dispute]) -> list[Pause]:
    pauses: list[Pause] = []
    since: str | None = None
    for step in sorted(steps, key=lambda step: (step.at, _TURN.index(step.outcome))):
        if since is None:
            since = step.at.isoformat() if step.removes_time and step.outcome != "won" else None
        elif step.outcome == "won" or (step.outcome == "lost" and not step.removes_time):
            pauses.append([since, step.at.isoformat()])
            since = None
    return [*pauses, [since, None]] if since else pauses
