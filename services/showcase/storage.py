"""Stored pictures: files named by their content in one folder, written once and never changed."""

import os
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

from kit.ids import new_id

NAME: Final = re.compile(r"[0-9a-f]{64}-(?:original|large|medium|small)\.(?:jpg|webp)")
SIZES: Final = ("original", "large", "medium", "small")
MEDIA_TYPES: Final = {".jpg": "image/jpeg", ".webp": "image/webp"}


def content_name(content: bytes) -> str:
    """The name of a content: its SHA-256 in hex."""
    return sha256(content).hexdigest()


def file_name(content: str, size: str, suffix: str) -> str:
    """The name of one size of a picture."""
    return f"{content}-{size}.{suffix}"


class Folder:
    """Pictures kept in a folder that all processes of the service share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, name: str) -> Path | None:
        """The file of this name, None when there is none or when it is not a name we give; blocking."""
        if NAME.fullmatch(name) is None:
            return None
        path = self._place(name)
        return path if path.is_file() else None

    def save(self, name: str, content: bytes) -> None:
        """Keep a file for good, whole or not at all; a file of the same name is the same; blocking."""
        if NAME.fullmatch(name) is None:
            raise ValueError(f"not the name of a picture: {name}")
        path = self._place(name)
        if path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{new_id()}")
        try:
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, names: Iterable[str]) -> None:
        """Delete the files of these names; those that are gone are gone; blocking."""
        for name in names:
            if NAME.fullmatch(name) is None:
                raise ValueError(f"not the name of a picture: {name}")
            self._place(name).unlink(missing_ok=True)

    def _place(self, name: str) -> Path:
        return self.root / name[:2] / name[2:4] / name
