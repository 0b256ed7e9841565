"""The coupon token: all that billing must know of a coupon, signed by referrals, so that checkout calls nobody."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Final, Literal, Self
from uuid import UUID

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

AUDIENCE: Final = "heika.coupon"
_HEADER = {"alg": "HS256", "typ": "coupon+jws"}
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,200}\.[A-Za-z0-9_-]{1,8000}\.[A-Za-z0-9_-]{43}", re.ASCII)
_MOST = 2**53

Title = Annotated[str, StringConstraints(min_length=1, max_length=200)]
PlanCode = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class CouponInvalid(ValueError):
    """This is not a token that the coupon's issuer signed."""


class CouponClaims(BaseModel):
    """What a coupon gives: `value` is percent (1..100) or fen, `min_amount` fen; no plan codes means every plan.

    It may be spent in `[starts_at, ends_at)`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: UUID
    member_id: UUID
    campaign_id: UUID
    title: Title
    kind: Literal["percent", "amount"]
    value: int = Field(ge=1, le=_MOST)
    min_amount: int = Field(ge=0, le=_MOST)
    plan_codes: Annotated[tuple[PlanCode, ...], Field(max_length=50)]
    starts_at: AwareDatetime
    ends_at: AwareDatetime

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.kind == "percent" and self.value > 100:  # noqa: PLR2004 - per cent
            raise ValueError("more than the whole price")
        return self


class _Payload(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    aud: Literal["heika.coupon"]
    coupon: CouponClaims


@lru_cache(maxsize=16)
def _key(secret: str) -> OctKey:
    return OctKey.import_key(secret)


def sign(claims: CouponClaims, keys: Sequence[str]) -> str:
    """A compact JWS (RFC 7515, HS256) under the first key; the others only read, which is how keys are rotated."""
    payload = _Payload(aud=AUDIENCE, coupon=claims).model_dump_json()
    return jws.serialize_compact(_HEADER, payload, _key(keys[0]), algorithms=["HS256"])


def read(token: str, keys: Sequence[str]) -> CouponClaims:
    """The claims of a token signed under any of `keys`; CouponInvalid for everything else. Dates are not judged."""
    if not _TOKEN.fullmatch(token):
        raise CouponInvalid
    for secret in keys:
        try:
            signed = jws.deserialize_compact(token, _key(secret), algorithms=["HS256"])
            if signed.headers() == _HEADER:
                return _Payload.model_validate_json(signed.payload).coupon
        except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
            continue
    raise CouponInvalid


def discount_of(claims: CouponClaims, subtotal: int) -> int:
    """What the coupon takes off `subtotal`, both fen; percent rounds half up, and never more than the price itself.

    Whether the coupon applies at all (plan, minimum, dates) is the caller's question.
    """
    if claims.kind == "amount":
        return min(claims.value, subtotal)
    return (subtotal * claims.value + 50) // 100
