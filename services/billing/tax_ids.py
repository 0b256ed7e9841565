"""Taxpayer numbers of mainland China, as an invoice must name a company."""

import re
from typing import Final

from kit.wording import Wrong

_LETTERS: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_UNIFIED: Final = re.compile(rf"[{_LETTERS}]{{2}}[0-9]{{6}}[{_LETTERS}]{{10}}")
_OLD: Final = re.compile(rf"[0-9]{{6}}[{_LETTERS}]{{9}}|[0-9]{{17}}[0-9X][0-9A-Z]{{2}}")
_MODULUS: Final = 31
_UNIFIED_LENGTH: Final = 18


def tidy_tax_id(typed: str) -> str:
    """The number without spaces and in capitals; ValueError when it cannot be one.

    A unified social credit code has 18 places, the last of which checks the others (GB 32100-2015, 5.2 and annex B:
    weights 3^i mod 31). Numbers of before 2015 have 15 places, or 20 for the self-employed, and no such check.
    """
    tax_id = re.sub(r"\s", "", typed).upper()
    if len(tax_id) == _UNIFIED_LENGTH:
        if _UNIFIED.fullmatch(tax_id) and _check_letter(tax_id[:-1]) == tax_id[-1]:
            return tax_id
    elif _OLD.fullmatch(tax_id):
        return tax_id
    raise Wrong(
        "not a taxpayer number: 18 places with a valid check letter, or 15 or 20 of the old kind",
        "税号不正确：应为 18 位统一社会信用代码（含校验位），或 15、20 位旧税号",
    )


def _check_letter(places: str) -> str:
    total = sum(_LETTERS.index(letter) * pow(3, place, _MODULUS) for place, letter in enumerate(places))
    return _LETTERS[-total % _MODULUS]
