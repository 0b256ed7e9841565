"""Newcomers: members whose news may still be on its way here, a moment after they registered."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.referrals.cards import living

NEW_S: Final = 60.0
WAITS_S: Final = (0.1, 0.2, 0.4, 0.8)
"""How long their news is waited for, between one look and the next."""


def is_new(member_id: UUID) -> bool:
    """Whether the account was made within the last minute; its id tells (RFC 9562, 5.7), by the real clock."""
    made_at = (member_id.int >> 80) / 1000
    return member_id.version == 7 and abs(time.time() - made_at) < NEW_S  # noqa: PLR2004 - UUIDv7


def waits_for(member_id: UUID) -> Iterator[float]:
    """How long to wait before one look and the next: not at all for somebody who is not new."""
    return iter(WAITS_S if is_new(member_id) else ())


async def living_soon(session: AsyncSession, members: Sequence[UUID]) -> set[UUID]:
    """Those of them who are members, once the news of those who registered just now is here."""
    known = await living(session, members)
    for wait in WAITS_S:
        if not any(member_id not in known and is_new(member_id) for member_id in members):
            break
        await asyncio.sleep(wait)
        known = await living(session, members)
    return known
