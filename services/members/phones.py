"""Phone numbers: read as E.164 or as a mainland mobile number, shown masked."""

import re
from typing import Annotated

import phonenumbers
from pydantic import AfterValidator, Field

from kit.shapes import CleanStr
from kit.wording import Wrong

_MAINLAND_MOBILE = re.compile(r"\+861[3-9]\d{9}")


def read_phone(value: str) -> str:
    """The number in E.164; ValueError unless it is E.164 or a mainland mobile number."""
    try:
        number = phonenumbers.parse(value, "CN")
    except phonenumbers.NumberParseException as failure:
        raise Wrong("not a phone number", "不是电话号码") from failure
    phone = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    # By shape, not by the library's list of assigned blocks: new blocks are in use before a release knows them.
    if number.country_code == phonenumbers.country_code_for_region("CN"):
        good = _MAINLAND_MOBILE.fullmatch(phone) is not None
    else:
        reason = phonenumbers.is_possible_number_with_reason(number)
        good = reason == phonenumbers.ValidationResult.IS_POSSIBLE
    if not good or number.extension:
        raise Wrong("not a phone number that can receive a code", "这个号码收不到验证码")
    return phone


def mask_phone(phone: str) -> str:
    """`138****8000` for a mainland number, country code and last four digits for any other."""
    if phone.startswith("+86"):
        return f"{phone[3:6]}****{phone[-4:]}"
    country = phonenumbers.parse(phone).country_code
    return f"+{country}****{phone[-4:]}"


Phone = Annotated[CleanStr, Field(max_length=40), AfterValidator(read_phone)]
"""A phone number in a request, as E.164 once read."""
