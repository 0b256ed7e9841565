"""Pictures in a bucket of an S3-compatible store, read through the service or straight from an edge in front of it."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import S3Store
from starlette.responses import Response, StreamingResponse

from services.showcase.storage import PicturesAway, is_ours, key_of, media_type_of

if TYPE_CHECKING:
    from obstore import GetResult

    from services.showcase.settings import Settings

T = TypeVar("T")
log = structlog.get_logger(__name__)

CONNECT_WITHIN: Final = timedelta(seconds=3)
# Of one request, the largest being the upload or download of one picture of a few megabytes.
ANSWER_WITHIN: Final = timedelta(seconds=20)
TRIES: Final = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
PIECE: Final = 256 << 10
IMMUTABLE: Final = "public, max-age=31536000, immutable"


class Bucket:
    """Pictures kept in a bucket; an object is there whole or not at all, as one request puts it."""

    def __init__(self, settings: "Settings") -> None:
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

    def save(self, name: str, content: bytes) -> None:
        """Keep a file for good; again is the same; blocking."""
        key = key_of(name)
        kind = {"Content-Type": media_type_of(name), "Cache-Control": IMMUTABLE}
        _asked(lambda: obstore.put(self.store, key, content, attributes=kind, use_multipart=False))

    def read(self, name: str) -> bytes | None:
        """The content of a file, None when there is none; blocking."""
        key = key_of(name)
        return _asked(lambda: self._read(key))

    def _read(self, key: str) -> bytes | None:
        try:
            return bytes(obstore.get(self.store, key).bytes())
        except FileNotFoundError:
            return None

    def delete(self, names: Iterable[str]) -> None:
        """Delete the files of these names; those that are gone are gone; blocking."""
        keys = [key_of(name) for name in names]
        _asked(lambda: obstore.delete(self.store, keys))

    def tidy(self) -> int:
        """Nothing: a put that was cut leaves no object."""
        return 0

    async def answer(self, name: str, headers: Mapping[str, str]) -> Response | None:
        """The whole file, passed on in pieces; a Range is ignored, as RFC 9110 14.2 lets us."""
        if not is_ours(name):
            return None
        try:
            found = await obstore.get_async(self.store, key_of(name))
        except FileNotFoundError:
            return None
        except BaseError as failure:
            log.warning("pictures away", error=str(failure)[:300])
            raise PicturesAway(retry_after=5) from failure
        length = {"Content-Length": str(found.meta["size"])}
        return StreamingResponse(_pieces(found), media_type=media_type_of(name), headers={**headers, **length})


async def _pieces(found: "GetResult") -> AsyncIterator[bytes]:
    async for piece in found.stream(min_chunk_size=PIECE):
        yield bytes(piece)


def _asked(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except (BaseError, OSError) as failure:
        # Also "not found" where something is put: the bucket is missing. The words name the object and never a key.
        log.warning("pictures away", error=str(failure)[:300])
        raise PicturesAway(retry_after=5) from failure
