"""JSON and text as the API promises them: strict numbers, NFC, no NUL, no lone surrogates, instants with Z."""

import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from pydantic import BaseModel, WithJsonSchema

from kit.wording import Wrong


def clean_text(value: str) -> str:
    """NFC-normalised (Unicode Annex 15) text; ValueError for NUL or a lone surrogate."""
    if "\x00" in value:
        raise Wrong("text must not contain NUL", "文字里不能有 NUL 字符")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Wrong("text must not contain lone surrogates", "文字里有不成对的代理字符")
    return unicodedata.normalize("NFC", value)


def scrub(value: Any) -> Any:
    """A JSON-able copy in which text that cannot be encoded as UTF-8 is replaced."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {scrub(key): scrub(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub(item) for item in value]
    return value


# The return type is how answers' instants are described: pydantic reads it where this writes them.
def instant(value: datetime) -> Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]:
    """RFC 3339 in UTC with Z; microseconds only when there are any."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def dump_json(value: Any) -> bytes:
    """JSON bytes; aware datetimes become UTC with Z, UUIDs and dates their text."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):  # asyncpg's own subclass
        return str(value)
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"not JSON: {type(value).__name__}")
