"""Codes: the letters of gifts and redeem codes, how people may type them, and the keyed digest that is kept of each."""

import hashlib
import hmac
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from kit.app import Runtime

# Crockford's base 32: nobody reads an I for a 1 or an O for a 0 over the telephone.
ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LETTERS: Final = 16
"""Of five bits each: 80 bits, which nobody guesses."""
SEED_BYTES: Final = 32
_GROUP: Final = 4
_BYTES: Final = LETTERS * 5 // 8
_LOOK_ALIKES: Final = str.maketrans("ILOU", "110V")
_SEPARATORS: Final = ("Zs", "Zl", "Zp", "Pd", "Pc", "Cc", "Cf")
_MINUS: Final = "\N{MINUS SIGN}"


def normalised(typed: str) -> str | None:
    """The letters of a code however it was typed; None for what cannot be one.

    Case, width, spaces, dashes and the letters Crockford leaves out (I and L for 1, O for 0, U for V) do not matter.
    """
    wide = unicodedata.normalize("NFKC", typed)
    letters = "".join(letter for letter in wide if letter != _MINUS and unicodedata.category(letter) not in _SEPARATORS)
    code = letters.upper().translate(_LOOK_ALIKES)
    return code if len(code) == LETTERS and all(letter in ALPHABET for letter in code) else None


def grouped(code: str) -> str:
    """A code as it is read aloud, such as 7K3M-Q9TX-04HB-WZ5R."""
    return "-".join(code[start : start + _GROUP] for start in range(0, LETTERS, _GROUP))


def digest(key: str, code: str) -> bytes:
    """HMAC-SHA256 (RFC 2104) of normalised letters: what the database holds of a code."""
    return hmac.digest(_derived(key, b"digest"), code.encode(), hashlib.sha256)


def gift_code(key: str, order_id: UUID) -> str:
    """The letters of an order's gift, the same at every reading."""
    return _letters(hmac.digest(_derived(key, b"gift"), order_id.bytes, hashlib.sha256))


def batch_codes(key: str, seed: bytes, count: int) -> list[str]:
    """The letters of a batch's codes, which nobody can make again once its seed is gone."""
    own = hmac.digest(_derived(key, b"batch"), seed, hashlib.sha256)
    return [_letters(hmac.digest(own, place.to_bytes(4), hashlib.sha256)) for place in range(count)]


def _derived(key: str, use: bytes) -> bytes:
    return hmac.digest(key.encode(), use, hashlib.sha256)


def _letters(digits: bytes) -> str:
    value = int.from_bytes(digits[:_BYTES])
    return "".join(ALPHABET[value >> shift & 31] for shift in range(5 * (LETTERS - 1), -1, -5))


@asynccontextmanager
async def code_key(rt: Runtime) -> AsyncIterator[None]:
    """A process that could not read its own codes does not start."""
    rt.settings.codes_key  # noqa: B018 - raises
    yield
