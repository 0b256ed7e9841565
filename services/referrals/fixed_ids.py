"""Ids that are the same whenever they are made, so that whoever needs a row first makes it, once."""

from hashlib import sha256
from uuid import UUID


def fixed_id(moment: bytes, said: bytes) -> UUID:
    """A UUIDv7 (RFC 9562 5.7) of a moment's six bytes, its other bits made of what is said."""
    number = int.from_bytes(moment + sha256(said).digest()[:10], "big")
    return UUID(int=number & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)
