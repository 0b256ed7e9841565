"""Media in a bucket of an S3-compatible store, which players read straight from it through presigned links."""

import asyncio
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import S3Store

from kit import clock
from services.courses.media import MediaAway
from services.courses.settings import Settings

log = structlog.get_logger(__name__)

CONNECT_WITHIN: Final = timedelta(seconds=3)
ANSWER_WITHIN: Final = timedelta(seconds=30)
TRIES: Final = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}


class BucketMedia:
    """Files of a bucket; links are signed with its key and need no request to it."""

    def __init__(self, settings: Settings) -> None:
        known = {
            "endpoint": settings.bucket_endpoint,
            "region": settings.bucket_region,
            "access_key_id": settings.bucket_access_key,
            "secret_access_key": settings.bucket_secret_key,
        }
        given: dict[str, Any] = {name: value for name, value in known.items() if value}
        self.store = S3Store(
            settings.bucket,
            prefix=settings.bucket_prefix or None,
            client_options={
                "allow_http": settings.bucket_endpoint.startswith("http:"),
                "connect_timeout": CONNECT_WITHIN,
                "timeout": ANSWER_WITHIN,
            },
            retry_config=TRIES,  # type: ignore[arg-type]  # a TypedDict of just these
            **given,
        )

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
    try:
        async with asyncio.timeout(ANSWER_WITHIN.total_seconds()):
            await request
    except (BaseError, OSError) as failure:
        # TimeoutError is an OSError. The words name the object and never a key.
        log.warning("media away", error=str(failure)[:300])
        raise MediaAway(retry_after=5) from failure
