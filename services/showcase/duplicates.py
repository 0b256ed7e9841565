"""Duplicates: which works of a contest show the very same picture, for those who moderate it."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# Pictures are stored anew, so that the same pixels have the same content, whatever else was in the files.
_SAME: Final = """
FROM entry_image mine
JOIN upload ON upload.id = mine.upload_id
JOIN upload same ON same.content = upload.content
JOIN entry_image other ON other.contest_id = mine.contest_id AND other.upload_id = same.id AND other.standing
    AND other.entry_id <> mine.entry_id
"""
_OF: Final = text(
    f"SELECT DISTINCT mine.entry_id, other.entry_id AS other_id {_SAME} "
    "WHERE mine.entry_id = ANY(:entries) ORDER BY other.entry_id"
)
HAS_DUPLICATE: Final[Any] = text(f"EXISTS (SELECT {_SAME} WHERE mine.entry_id = entry.id)")
"""The condition of works that share a picture with another standing one of their contest."""


async def duplicates_of(session: AsyncSession, entries: list[UUID]) -> dict[UUID, list[UUID]]:
    """The other standing works of the same contest that show a picture of each of these, the oldest first."""
    found: dict[UUID, list[UUID]] = {entry_id: [] for entry_id in entries}
    for row in await session.execute(_OF, {"entries": entries}):
        found[row.entry_id].append(row.other_id)
    return found
