"""Polyglots: where a picture's own bytes end, and whether an archive, a page or a program follows in the same file."""

import re
from typing import Final

_FILL, _SOS = 0xFF, 0xDA
_ALONE: Final = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})
_BOX: Final = 8
_BOX_WIDE: Final = 16
_NAME: Final = re.compile(rb"[ -~]{4}")

# What phones append (a second picture, a film, a table of their own) is none of these, and is left out in silence.
_FIRST: Final = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"Rar!\x1a\x07",
    b"7z\xbc\xaf\x27\x1c",
    b"\x7fELF",
    b"MZ",
    b"#!",
    b"\x1f\x8b",
)
# Long enough not to turn up by chance in the film of a moving picture, of which both ends are looked at.
_ANYWHERE: Final = re.compile(
    rb"<script|<html[\s>]|<!doctype|<svg\s[^>]*(?:xmlns|on)|<iframe|<\?php|%PDF-|java(?:script:|/lang)", re.IGNORECASE
)
_END_OF_ZIP: Final = b"PK\x05\x06"
_NEAR_THE_END: Final = 1024
_LOOK: Final = 1 << 16


def is_polyglot(content: bytes, kind: str) -> bool:
    """Whether something else begins behind the picture; `kind` as `format_of` tells it."""
    rest = content[_ENDS[kind](content) :]
    if len(rest) > 2 * _LOOK:
        rest = rest[:_LOOK] + rest[-_LOOK:]
    rest = rest.lstrip(b"\0 \t\r\n")
    return rest.startswith(_FIRST) or _END_OF_ZIP in rest[-_NEAR_THE_END:] or _ANYWHERE.search(rest) is not None


def _end_of_jpeg(content: bytes) -> int:
    """Behind its EOI (ITU T.81 B.1.1); a picture that has none has no end."""
    at = 2
    while at + 4 <= len(content):
        if content[at] != _FILL:
            return len(content)
        marker = content[at + 1]
        if marker == _FILL:
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
            if marker == _SOS:
                # In coded data no FF is followed by D9; a table between two scans that has them ends the search early.
                found = content.find(b"\xff\xd9", at)
                return len(content) if found < 0 else found + 2
    return len(content)


def _end_of_png(content: bytes) -> int:
    at = 8
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] == b"IEND":
            return end
        at = end
    return len(content)


def _end_of_webp(content: bytes) -> int:
    size = int.from_bytes(content[4:8], "little")
    return 8 + size + size % 2


def _end_of_heif(content: bytes) -> int:
    """Behind the last box (ISO/IEC 14496-12 4.2)."""
    at = 0
    while at + _BOX <= len(content) and _NAME.fullmatch(content[at + 4 : at + 8]):
        size = int.from_bytes(content[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(content[at + _BOX : at + _BOX_WIDE], "big")
        if size == 0:
            return len(content)
        if size < _BOX or at + size > len(content):
            break
        at += size
    return at


_ENDS: Final = {"JPEG": _end_of_jpeg, "PNG": _end_of_png, "WEBP": _end_of_webp, "HEIF": _end_of_heif}
