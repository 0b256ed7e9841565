"""Stored pictures: files named by their content, written once and never changed; in a folder, or in a bucket."""

import os
import re
import time
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from starlette.responses import Response

from kit.errors import Unavailable
from kit.files import StoredFile
from kit.ids import new_id

if TYPE_CHECKING:
    from services.showcase.settings import Settings

NAME: Final = re.compile(r"[0-9a-f]{64}-(?:original|large|medium|small)\.(?:jpg|webp)")
SIZES: Final = ("original", "large", "medium", "small")
MEDIA_TYPES: Final = {".jpg": "image/jpeg", ".webp": "image/webp"}
LEFT_BEHIND_S: Final = 3600.0


class PicturesAway(Unavailable):
    """The store of pictures does not answer right now; nothing was stored. Try again in a moment."""

    zh = "图片存储暂时不可用，没有保存任何内容，请稍后再试。"


class Storage(Protocol):
    """Where pictures are kept. Its blocking calls are for threads; all of them raise PicturesAway."""

    def save(self, name: str, content: bytes) -> None:
        """Keep a file for good, whole or not at all; a file of the same name is the same; blocking."""

    def read(self, name: str) -> bytes | None:
        """The content of a file, None when there is none; blocking."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete the files of these names; those that are gone are gone; blocking."""

    def tidy(self) -> int:
        """Remove what writers that were killed left behind; how many files; blocking."""

    async def answer(self, name: str, headers: Mapping[str, str]) -> Response | None:
        """The file as an answer with these headers, None when there is none."""


def content_name(content: bytes) -> str:
    """The name of a content: its SHA-256 in hex."""
    return sha256(content).hexdigest()


def file_name(content: str, size: str, suffix: str) -> str:
    """The name of one size of a picture."""
    return f"{content}-{size}.{suffix}"


def is_ours(name: str) -> bool:
    """Whether it is a name we give."""
    return NAME.fullmatch(name) is not None


def key_of(name: str) -> str:
    """Where a file lies, below the storage's root; ValueError for a name that is not ours."""
    if not is_ours(name):
        raise ValueError(f"not the name of a picture: {name}")
    return f"{name[:2]}/{name[2:4]}/{name}"


def media_type_of(name: str) -> str:
    """What a file is served as."""
    return MEDIA_TYPES[Path(name).suffix]


class Folder:
    """Pictures kept in a folder that all processes of the service share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # On the same file system, so that a finished file is moved and not copied; apart, so that it is quickly tidied.
        self.partial = root / ".partial"

    def find(self, name: str) -> Path | None:
        """The file of this name, None when there is none or when it is not a name we give; blocking."""
        if not is_ours(name):
            return None
        path = self.root / key_of(name)
        return path if path.is_file() else None

    def save(self, name: str, content: bytes) -> None:
        """Keep a file for good, whole or not at all; a file of the same name is the same; blocking."""
        path = self.root / key_of(name)
        if path.is_file():
            return
        partial = self.partial / str(new_id())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.partial.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
            _sync_folder(path.parent)
        except OSError as failure:
            raise PicturesAway(retry_after=5) from failure

    def read(self, name: str) -> bytes | None:
        """The content of a file, None when there is none; blocking."""
        path = self.find(name)
        return None if path is None else path.read_bytes()

    def delete(self, names: Iterable[str]) -> None:
        """Delete the files of these names; those that are gone are gone; blocking."""
        for name in names:
            (self.root / key_of(name)).unlink(missing_ok=True)

    def tidy(self) -> int:
        """Remove partial files an hour after their writer began, which by then was killed; blocking."""
        removed = 0
        for path in self.partial.iterdir() if self.partial.is_dir() else ():
            if path.stat().st_mtime < time.time() - LEFT_BEHIND_S:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    async def answer(self, name: str, headers: Mapping[str, str]) -> Response | None:
        """The file, or the part of it that Range asks for."""
        # A look at the file system's cache; a thread would cost ten times as much.
        path = self.find(name)
        return None if path is None else StoredFile(path, media_type=media_type_of(name), headers=headers)


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder outlive a power cut, as its content already does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_storage(settings: "Settings") -> Storage:
    """The bucket, where one is set; else the folder."""
    if not settings.bucket:
        return Folder(settings.uploads)
    # Not at the top: its library is loaded only where a bucket is used.
    from services.showcase.bucket import Bucket  # noqa: PLC0415 - as above

    return Bucket(settings)
