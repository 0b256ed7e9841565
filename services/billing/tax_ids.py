"""Taxpayer numbers of mainland China, as an invoice must name a company."""

import re
from typing import Final

from kit.wording import Wrong

_LETTERS: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_UNIFIED: Final = re.compile(rf"[{_LETTERS}]{{2}}[0-9]{{6}}[{_LETTERS}]{{10}}")
_OLD: Final = re.compile(rf"[0-9]{{6}}[{_LETTERS}]{{9}}|[0-9]{{17}}[0-9X][0-9A-Z]{{2}}")
_SHAPE: Final = re.compile(r"[0-9A-Z]{15}|[0-9A-Z]{18}|[0-9A-Z]{20}")
_MODULUS: Final = 31
_UNIFIED_LENGTH: Final = 18


def tidy_tax_id(typed: str) -> str:
    """The number without spaces and in capitals; ValueError when it has not the length of one, or other signs."""
    tax_id = re.sub(r"\s", "", typed).upper()
    if not _SHAPE.fullmatch(tax_id):
        raise Wrong(
            "not a taxpayer number: 15, 18 or 20 letters and digits",
            "税号不正确：应为 15、18 或 20 位字母和数字",
        )
    return tax_id


def is_doubtful(tax_id: str) -> bool:
    """Whether a tidy number looks mistyped, so that whoever issues the invoice asks before.

    A unified social credit code has 18 places, the last of which checks the others (GB 32100-2015, 5.2 and annex B:
    weights 3^i mod 31). Numbers of before 2015 have 15 places, or 20 for the self-employed, and no such check.
    """
    if len(tax_id) == _UNIFIED_LENGTH:
        return not (_UNIFIED.fullmatch(tax_id) and _check_letter(tax_id[:-1]) == tax_id[-1])
    return _OLD.fullmatch(tax_id) is None


def _check_letter(places: str) -> str:
    total = sum(_LETTERS.index(letter) * pow(3, place, _MODULUS) for place, letter in enumerate(places))
    return _LETTERS[-total % _MODULUS]
