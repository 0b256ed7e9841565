"""Pictures in a bucket of an S3-compatible store, read through the service or straight from an edge in front of it."""

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import obstore
from starlette.responses import Response, StreamingResponse

from kit.bucket import open_bucket, told_as
from services.showcase.storage import PicturesAway, is_ours, key_of, media_type_of

if TYPE_CHECKING:
    from obstore import GetResult

    from services.showcase.settings import Settings

# Of one request, the largest being the upload or download of one picture of a few megabytes.
ANSWER_WITHIN: Final = timedelta(seconds=20)
PIECE: Final = 256 << 10
IMMUTABLE: Final = "public, max-age=31536000, immutable"


class Bucket:
    """Pictures kept in a bucket; an object is there whole or not at all, as one request puts it."""

    def __init__(self, settings: "Settings") -> None:
        self.store = open_bucket(settings, ANSWER_WITHIN)

    def save(self, name: str, content: bytes) -> None:
        """Keep a file for good; again is the same; blocking."""
        key = key_of(name)
        kind = {"Content-Type": media_type_of(name), "Cache-Control": IMMUTABLE}
        with told_as(PicturesAway):
            obstore.put(self.store, key, content, attributes=kind, use_multipart=False)

    def read(self, name: str) -> bytes | None:
        """The content of a file, None when there is none; blocking."""
        key = key_of(name)
        with told_as(PicturesAway):
            try:
                return bytes(obstore.get(self.store, key).bytes())
            except FileNotFoundError:
                return None

    def delete(self, names: Iterable[str]) -> None:
        """Delete the files of these names; those that are gone are gone; blocking."""
        keys = [key_of(name) for name in names]
        with told_as(PicturesAway):
            obstore.delete(self.store, keys)

    def tidy(self) -> int:
        """Nothing: a put that was cut leaves no object."""
        return 0

    async def answer(self, name: str, headers: Mapping[str, str]) -> Response | None:
        """The whole file, passed on in pieces; a Range is ignored, as RFC 9110 14.2 lets us."""
        if not is_ours(name):
            return None
        with told_as(PicturesAway):
            try:
                found = await obstore.get_async(self.store, key_of(name))
            except FileNotFoundError:
                return None
        length = {"Content-Length": str(found.meta["size"])}
        return StreamingResponse(_pieces(found), media_type=media_type_of(name), headers={**headers, **length})


async def _pieces(found: "GetResult") -> AsyncIterator[bytes]:
    async for piece in found.stream(min_chunk_size=PIECE):
        yield bytes(piece)
