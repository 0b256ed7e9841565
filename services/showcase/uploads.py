"""Uploads: members bring pictures, which are stored as new files and served for good."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

from fastapi import Depends, Request, Response
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from kit import clock
from kit.app import Runtime, RuntimeDep, router
from kit.auth import MemberDep
from kit.errors import NotFound, PayloadTooLarge, Unavailable, Unprocessable, problems
from kit.files import is_held, whole_or_part
from kit.http import json_response
from kit.limits import limit
from kit.shapes import Out
from services.showcase.discarding import is_being_deleted, lock_content
from services.showcase.images import BrokenImage, ImageTooLarge, Picture, UnsupportedImage, render
from services.showcase.models import Upload
from services.showcase.storage import (
    MEDIA_TYPES,
    SIZES,
    PicturesAway,
    Storage,
    content_name,
    file_name,
    open_storage,
)

T = TypeVar("T")

api = router(prefix="/v1/uploads", tags=["uploads"])

MAX_BYTES: Final = 20 << 20
FORM_ALLOWANCE: Final = 64 << 10
UPLOADS_AN_HOUR: Final = 300
# Whoever brings a picture whose files are being deleted this moment waits for the end of that.
TURNS: Final = 30
TURN_S: Final = 0.1
FORM: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "contentMediaType": "application/octet-stream"}},
                }
            }
        },
    }
}
FOREVER: Final = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


class FileTooLarge(PayloadTooLarge):
    """A picture may have 20 MiB at most; make it smaller and upload it again."""

    zh = "图片不能超过 20 MiB，请压缩后再上传。"


class FileMissing(Unprocessable):
    """Send the picture as multipart/form-data, in one field named `file`."""

    zh = "请用 multipart/form-data 上传图片，字段名为 file。"
    loc = ("body", "file")


class ImagesBusy(Unavailable):
    """Many pictures are being uploaded right now; nothing was stored. Try again in a moment."""

    zh = "正在上传图片的人太多，没有保存任何内容，请稍后再试。"


class FileNotFound(NotFound):
    """There is no such picture."""

    zh = "没有这张图片。"


class ImageOut(Out):
    """A stored picture, with smaller ones by name: `large`, `medium`, `small`."""

    url: str
    width: int
    height: int
    thumbnails: dict[str, str]


class UploadOut(ImageOut):
    """A picture that can be entered in a contest."""

    id: UUID


class Darkroom:
    """The threads that render and store pictures: few, because each may hold hundreds of megabytes."""

    def __init__(self, storage: Storage, workers: int, waiting: int) -> None:
        self.storage = storage
        self.limit = workers + waiting
        self.inside = 0
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix="darkroom")

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue until the picture is stored; raises ImagesBusy."""
        if self.inside >= self.limit:
            raise ImagesBusy(retry_after=5)
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def develop(self, file: UploadFile) -> tuple[str, Picture]:
        """Render one file; its content name and the picture. Raises the refusals of `render`."""
        return await self._in_thread(self._develop, file)

    def _develop(self, file: UploadFile) -> tuple[str, Picture]:
        # Read here, so that those who wait do so on disk and not in memory.
        file.file.seek(0)
        picture = render(file.file.read())
        return content_name(picture.sizes["original"]), picture

    async def keep(self, content: str, picture: Picture) -> None:
        """Store a picture's files; raises PicturesAway."""
        await self._in_thread(self._keep, content, picture)

    def _keep(self, content: str, picture: Picture) -> None:
        for size, encoded in picture.sizes.items():
            self.storage.save(file_name(content, size, picture.suffix), encoded)

    async def _in_thread(self, work: Callable[..., T], *values: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, work, *values)


@asynccontextmanager
async def darkroom(rt: Runtime) -> AsyncIterator[None]:
    """Open the darkroom of a process and close it after its last picture."""
    settings = rt.settings
    storage = await asyncio.to_thread(open_storage, settings)
    room = rt.state["darkroom"] = Darkroom(storage, settings.image_workers, settings.images_waiting)
    try:
        yield
    finally:
        await asyncio.to_thread(room.threads.shutdown, cancel_futures=True)


async def _address(rt: RuntimeDep) -> str:
    return str(rt.settings.public_url.rstrip("/"))


AddressDep = Annotated[str, Depends(_address, scope="function")]
"""Where the outside reaches pictures; pages of other origins show them too."""


def image_out(row: Any, address: str) -> dict[str, Any]:
    """ImageOut's fields, of an Upload or a row with its columns."""
    urls = {size: f"{address}/v1/uploads/files/{file_name(row.content, size, row.suffix)}" for size in SIZES}
    return {"url": urls.pop("original"), "width": row.width, "height": row.height, "thumbnails": urls}


@api.post(
    "",
    status_code=201,
    response_model=UploadOut,
    max_body_size=MAX_BYTES + FORM_ALLOWANCE,
    openapi_extra=FORM,
    responses=problems(
        UnsupportedImage, BrokenImage, ImageTooLarge, FileMissing, FileTooLarge, ImagesBusy, PicturesAway
    ),
)
async def upload_picture(request: Request, caller: MemberDep, rt: RuntimeDep, address: AddressDep) -> Response:
    """Bring a JPEG, PNG, WebP or HEIC picture of up to 20 MiB and 50 megapixels.

    It is decoded, turned upright and stored anew: without EXIF, place or anything else that was in the file.
    """
    await limit(request, "uploads", str(caller.id), times=UPLOADS_AN_HOUR, seconds=3600)
    # Not a parameter: FastAPI would read the whole form before it asks who is calling.
    try:
        form = await request.form(max_files=1, max_fields=8)
    except HTTPException as broken:
        raise FileMissing from broken
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise FileMissing
        if file.size is None or file.size > MAX_BYTES:
            raise FileTooLarge
        # A keyed request came with a connection; others shall have it while the picture waits and is rendered.
        if (own := request.scope.get("heika.session")) is not None:
            await own.commit()
        room: Darkroom = rt.state["darkroom"]
        with room.place():
            content, picture = await room.develop(file)
            row = Upload(
                member_id=caller.id,
                content=content,
                suffix=picture.suffix,
                width=picture.width,
                height=picture.height,
                created_at=clock.now(),
            )
            await _announce(rt, row)
            await room.keep(content, picture)
    finally:
        await form.close()
    await _finish(own, rt, row)
    return json_response({"id": row.id} | image_out(row, address), 201, {"Cache-Control": "private, no-store"})


async def _announce(rt: Runtime, row: Upload) -> None:
    """Write the row before the first file: so no file is ever without one, whenever this process dies."""
    for _ in range(TURNS):
        # Not SessionDep: a slow upload would hold a connection to the database for as long as its bytes take.
        async with rt.db.session() as session:
            await rt.db.connect(session)
            await lock_content(session, row.content)
            if not await is_being_deleted(session, row.content):
                await session.execute(insert(Upload).values(row.model_dump()))
                await session.commit()
                return
        await asyncio.sleep(TURN_S)
    raise ImagesBusy(retry_after=5)


async def _finish(own: AsyncSession | None, rt: Runtime, row: Upload) -> None:
    """Say that the files are there; a keyed request does so together with its stored answer."""
    there = update(Upload).where(col(Upload.id) == row.id).values(stored=True)
    if own is not None:
        await own.execute(there)
        return
    async with rt.db.session() as session:
        await rt.db.connect(session)
        await session.execute(there)
        await session.commit()


@api.get(
    "/files/{name}",
    response_class=FileResponse,
    responses=whole_or_part(*MEDIA_TYPES.values()) | problems(FileNotFound, PicturesAway),
)
async def read_picture(name: str, request: Request, rt: RuntimeDep) -> Response:
    """A stored picture or thumbnail; its address names its content, so it may be kept for good."""
    headers = {**FOREVER, "ETag": f'"{name}"'}
    answer: Response | None = await rt.state["darkroom"].storage.answer(name, headers)
    if answer is None:
        raise FileNotFound
    # A browser told to load anew asks all the same.
    return Response(status_code=304, headers=headers) if is_held(request.headers, headers["ETag"]) else answer
