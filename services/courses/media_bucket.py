"""Media in a bucket of an S3-compatible store, which players read straight from it through presigned links."""

import asyncio
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import obstore

from kit import clock
from kit.bucket import open_bucket, told_as
from services.courses.media import MediaAway
from services.courses.settings import Settings

ANSWER_WITHIN: Final = timedelta(seconds=30)


class BucketMedia:
    """Files of a bucket; links are signed with its key and need no request to it."""

    def __init__(self, settings: Settings) -> None:
        self.store = open_bucket(settings, ANSWER_WITHIN)

    def link(self, kind: str, owner_id: UUID, name: str, expires_at: datetime) -> str:
        """A presigned address; the store counts its seconds from now by the real clock."""
        _ = kind, owner_id
        lasts = max(expires_at - clock.now(), timedelta(seconds=1))
        return obstore.sign(self.store, "GET", name, lasts)

    async def save(self, name: str, content: bytes, media_type: str) -> None:
        """Put the file in one request, which leaves it whole or not at all."""
        await _asked(
            obstore.put_async(self.store, name, content, attributes={"Content-Type": media_type}, use_multipart=False)
        )

    async def remove(self, name: str) -> None:
        """Delete the file; the store answers for one that is gone as for one that was there."""
        await _asked(obstore.delete_async(self.store, name))


async def _asked(request: Awaitable[Any]) -> None:
    with told_as(MediaAway):
        async with asyncio.timeout(ANSWER_WITHIN.total_seconds()):
            await request
