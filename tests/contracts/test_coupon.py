"""The coupon token: read back exactly, refused in every other shape, and never worth more than the price."""

import base64
import json
from datetime import UTC, datetime
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey
from pydantic import ValidationError

from contracts.coupon import CouponClaims, CouponInvalid, discount_of, read, sign

KEY, OLD_KEY = "k" * 32, "o" * 32
CLAIMS = CouponClaims(
    id=UUID(int=1),
    member_id=UUID(int=2),
    campaign_id=UUID(int=3),
    title="新人立减 5 元",
    kind="amount",
    value=500,
    min_amount=1000,
    plan_codes=("black-card-3m", "black-card-12m"),
    starts_at=datetime(2026, 1, 1, tzinfo=UTC),
    ends_at=datetime(2026, 2, 1, tzinfo=UTC),
)
INSTANTS = st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1), max_value=datetime(2999, 1, 1))  # noqa: DTZ001


def changed(**fields: object) -> CouponClaims:
    return CouponClaims.model_validate(CLAIMS.model_dump() | fields)


def forged(header: dict[str, str], payload: object, key: str = KEY) -> str:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return jws.serialize_compact(header, text, OctKey.import_key(key), algorithms=["HS256", "HS512"])


def payload_of(claims: CouponClaims = CLAIMS) -> dict[str, object]:
    return {"aud": "heika.coupon", "coupon": claims.model_dump(mode="json")}


HEADER = {"alg": "HS256", "typ": "coupon+jws"}


@given(
    title=st.text(st.characters(codec="utf-8"), min_size=1, max_size=200),
    value=st.integers(1, 2**53),
    minimum=st.integers(0, 2**53),
    plans=st.lists(st.text("abc-1", min_size=1, max_size=64), max_size=50).map(tuple),
    starts_at=INSTANTS,
    ends_at=INSTANTS,
)
def test_what_was_signed_is_read_back(
    title: str, value: int, minimum: int, plans: tuple[str, ...], starts_at: datetime, ends_at: datetime
) -> None:
    claims = changed(
        title=title, value=value, min_amount=minimum, plan_codes=plans, starts_at=starts_at, ends_at=ends_at
    )
    assert read(sign(claims, [KEY]), [KEY]) == claims


def test_an_older_key_still_reads_and_an_unknown_one_does_not() -> None:
    token = sign(CLAIMS, [OLD_KEY])
    assert read(token, [KEY, OLD_KEY]) == CLAIMS
    with pytest.raises(CouponInvalid):
        read(token, [KEY])
    with pytest.raises(CouponInvalid):
        read(token, [])


def test_our_own_forgery_of_a_good_token_is_good() -> None:
    assert read(forged(HEADER, payload_of()), [KEY]) == CLAIMS


@pytest.mark.parametrize(
    "token",
    [
        forged({"alg": "HS256"}, payload_of()),
        forged({"alg": "HS256", "typ": "JWT"}, payload_of()),
        forged({"alg": "HS512", "typ": "coupon+jws"}, payload_of()),
        forged(HEADER, payload_of() | {"aud": "heika"}),
        forged(HEADER, payload_of() | {"extra": 1}),
        forged(HEADER, {"aud": "heika.coupon"}),
        forged(HEADER, {"aud": "heika.coupon", "coupon": CLAIMS.model_dump(mode="json") | {"value": "500"}}),
        forged(HEADER, {"aud": "heika.coupon", "coupon": CLAIMS.model_dump(mode="json") | {"value": True}}),
        forged(HEADER, {"aud": "heika.coupon", "coupon": CLAIMS.model_dump(mode="json") | {"kind": "percent"}}),
        forged(HEADER, "not json"),
        forged(HEADER, "[" * 5000),
        forged(HEADER, json.dumps(payload_of()).replace("500", "1" * 5000)),
        forged(HEADER, '"\\ud800"'),
        "",
        ".",
        "..",
        "a.b.c",
        "中.文.令牌",
        "\x00",
        "\ud800",
        "a" * 10_000_000,
        "a." * 1_000_000,
    ],
)
def test_a_token_that_is_not_exactly_good_is_invalid(token: str) -> None:
    with pytest.raises(CouponInvalid):
        read(token, [KEY])


def test_an_unsigned_token_is_invalid() -> None:
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"coupon+jws"}').rstrip(b"=").decode()
    _, payload, signature = sign(CLAIMS, [KEY]).split(".")
    for token in (f"{header}.{payload}.", f"{header}.{payload}.{signature}"):
        with pytest.raises(CouponInvalid):
            read(token, [KEY])


@pytest.mark.parametrize(
    "head", ["[]", "1", "null", '"alg"', '{"alg":1}', '{"alg":[]}', '{"alg":"HS256","crit":["x"]}']
)
def test_a_strange_header_is_invalid(head: str) -> None:
    header = base64.urlsafe_b64encode(head.encode()).rstrip(b"=").decode()
    _, payload, signature = sign(CLAIMS, [KEY]).split(".")
    with pytest.raises(CouponInvalid):
        read(f"{header}.{payload}.{signature}", [KEY])


@given(st.data())
def test_one_changed_letter_makes_it_invalid(data: st.DataObject) -> None:
    token = sign(CLAIMS, [KEY])
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters(exclude_characters=token[place]))
    with pytest.raises(CouponInvalid):
        read(token[:place] + letter + token[place + 1 :], [KEY])


@given(st.text() | st.text("ab-_.A"))
def test_any_text_at_all_is_invalid(text: str) -> None:
    with pytest.raises(CouponInvalid):
        read(text, [KEY])


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "percent", "value": 101},
        {"value": 0},
        {"value": -1},
        {"value": 1.5},
        {"min_amount": -1},
        {"title": ""},
        {"starts_at": datetime(2026, 1, 1)},  # noqa: DTZ001 - the point
    ],
)
def test_impossible_claims_cannot_be_made(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        changed(**fields)


@pytest.mark.parametrize(
    ("kind", "value", "subtotal", "discount"),
    [
        ("amount", 500, 4900, 500),
        ("amount", 500, 400, 400),
        ("percent", 10, 1990, 199),
        ("percent", 15, 1990, 299),
        ("percent", 50, 1, 1),
        ("percent", 49, 1, 0),
        ("percent", 33, 50, 17),
        ("percent", 100, 18900, 18900),
        ("percent", 1, 0, 0),
    ],
)
def test_discounts(kind: str, value: int, subtotal: int, discount: int) -> None:
    assert discount_of(changed(kind=kind, value=value), subtotal) == discount


@given(percent=st.integers(1, 100), subtotal=st.integers(0, 2**53))
def test_percent_is_within_half_a_fen_and_rounds_the_half_up(percent: int, subtotal: int) -> None:
    exact = Fraction(subtotal * percent, 100)
    discount = discount_of(changed(kind="percent", value=percent), subtotal)
    assert -Fraction(1, 2) < discount - exact <= Fraction(1, 2)
    assert 0 <= discount <= subtotal
