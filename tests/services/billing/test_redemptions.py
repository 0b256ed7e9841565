"""Redemptions: a code becomes time once, from then on, whoever comes at once, and guessing leads nowhere."""

import asyncio
from collections import Counter
from datetime import timedelta
from uuid import UUID

from contracts.billing import CodeRedeemed
from contracts.members import MemberMerged, MembershipChanged, SegmentPicture
from kit import clock
from kit.ids import new_id
from kit.revocations import revocations
from kit.text import instant
from tests.services.billing.test_code_batches import codes_of, redeem
from tests.services.billing.till import Till


async def test_a_code_becomes_time_from_this_moment_on(till: Till) -> None:
    _, [code] = await codes_of(till, count=1, expires_at="2028-01-01T00:00:00Z")
    till.api.clock.set(clock.now().replace(year=2027, month=1, day=31, hour=2))
    await till.api.emitted()
    member = new_id()
    before = clock.now()
    answer = await redeem(till, code.lower().replace("-", " "), member)
    after = clock.now()
    assert answer.status_code == 201, answer.text
    segment = answer.json()["segment"]
    [event] = await till.api.emitted()
    assert isinstance(event, CodeRedeemed)
    assert before <= event.redeemed_at <= after
    [(code_id,)] = await till.api.sql("SELECT id FROM redeem_code")
    wall = event.redeemed_at.astimezone(clock.ZONE)
    assert segment == {
        "id": str(event.segment_id),
        "source": "redeem_code",
        "source_id": str(code_id),
        "plan_code": "black-card-3m",
        "months": 3,
        "days": 0,
        "starts_at": instant(event.redeemed_at),
        "ends_at": instant(wall.replace(month=4, day=30)),
        "state": "active",
    }
    assert (event.source, event.source_id, event.member_id) == ("redeem_code", code_id, member)
    assert (event.plan_code, event.months, len(event.benefits)) == ("black-card-3m", 3, 6)
    again = await redeem(till, code, member)
    assert (again.status_code, again.json()["code"]) == (409, "code_used")
    assert await till.api.emitted() == []


async def test_two_hundred_at_once_redeem_one_code_once(till: Till) -> None:
    _, [code] = await codes_of(till, count=1)
    await till.api.emitted()
    answers = await asyncio.gather(*(redeem(till, code) for _ in range(200)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 199}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"code_used"}
    [event] = await till.api.emitted()
    assert isinstance(event, CodeRedeemed)
    assert await till.api.sql("SELECT member_id, segment_id FROM redeem_code") == [(event.member_id, event.segment_id)]


async def test_one_member_two_hundred_times_redeems_once_and_a_retry_hears_the_first_answer(till: Till) -> None:
    _, [code, other] = await codes_of(till, count=2)
    await till.api.emitted()
    member = new_id()
    answers = await asyncio.gather(*(redeem(till, code, member) for _ in range(200)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 199}
    headers = till.api.member(member) | {"Idempotency-Key": "the other"}
    retries = [await till.client.post("/v1/redemptions", json={"code": other}, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in retries] == [201, 201]
    assert retries[0].json() == retries[1].json()
    assert retries[1].headers["Idempotency-Replayed"] == "true"
    assert len(await till.api.emitted()) == 2


async def test_codes_queue_behind_each_other_and_behind_what_was_bought(till: Till) -> None:
    _, found = await codes_of(till, count=10, plan_code="black-card-1m")
    member = new_id()
    await till.buy(member)
    answers = await asyncio.gather(*(redeem(till, code, member) for code in found))
    segments = sorted((answer.json()["segment"] for answer in answers), key=lambda segment: segment["starts_at"])
    assert {segment["state"] for segment in segments} == {"queued"}
    assert [segment["starts_at"] for segment in segments[1:]] == [segment["ends_at"] for segment in segments[:-1]]
    path = "/v1/orders/preview"
    quote = await till.client.post(path, json={"plan_code": "black-card-1m"}, headers=till.api.member(member))
    assert quote.json()["membership_after"]["starts_at"] == segments[-1]["ends_at"]
    events = [event for event in await till.api.emitted() if isinstance(event, CodeRedeemed)]
    order = [str(event.segment_id) for event in sorted(events, key=lambda event: event.redeemed_at)]
    assert order == [segment["id"] for segment in segments]


async def test_unknown_void_and_expired_codes_are_told_apart(till: Till) -> None:
    _, [code] = await codes_of(till, count=1)
    for unknown in ("0000-0000-0000-0000", "hello", "!", "七" * 16):
        answer = await redeem(till, unknown)
        assert (answer.status_code, answer.json()["code"]) == (404, "code_unknown")
    till.api.clock.advance(timedelta(days=30))
    answer = await redeem(till, code)
    assert (answer.status_code, answer.json()["code"]) == (409, "code_expired")
    assert await till.api.sql("SELECT status FROM redeem_code") == [("open",)]
    assert (await till.client.post("/v1/redemptions", json={"code": code})).status_code == 401
    admin = await till.client.post("/v1/redemptions", json={"code": code}, headers=till.api.admin())
    assert admin.status_code == 403
    for body in ({}, {"code": ""}, {"code": 7}, {"code": "x" * 101}, {"code": code, "member_id": str(new_id())}):
        answer = await till.client.post("/v1/redemptions", json=body, headers=till.api.member())
        assert answer.status_code == 422


async def test_a_frozen_member_redeems_nothing(till: Till) -> None:
    _, [code] = await codes_of(till, count=1)
    member = new_id()
    revocations.frozen = frozenset({str(member)})
    answer = await redeem(till, code, member)
    assert (answer.status_code, answer.json()["code"]) == (403, "account_frozen")
    assert (await redeem(till, code)).status_code == 201


async def test_wrong_codes_are_soon_refused_and_right_ones_with_them(till: Till) -> None:
    _, [code] = await codes_of(till, count=1)
    member = new_id()
    wrong = [await redeem(till, f"0000 0000 0000 {place:04}", member) for place in range(12)]
    assert [answer.status_code for answer in wrong] == [404] * 10 + [429] * 2
    refused = await redeem(till, code, member)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 0 < int(refused.headers["Retry-After"]) <= 601
    till.api.clock.advance(timedelta(minutes=10))
    assert (await redeem(till, code, member)).status_code == 201


async def test_an_address_guesses_no_more_than_its_members_together(till: Till) -> None:
    _, [code] = await codes_of(till, count=1)
    till.api.rt.settings.limits_mode = "strict"
    answers = [await redeem(till, f"0000 0000 0000 {place:04}") for place in range(22)]
    assert [answer.status_code for answer in answers] == [404] * 20 + [429] * 2
    assert (await redeem(till, code)).status_code == 429


async def test_time_past_the_end_of_the_calendar_is_refused(till: Till) -> None:
    _, [code] = await codes_of(till, count=1)
    member, now = new_id(), clock.now()
    endless = SegmentPicture(
        id=new_id(),
        source="comp",
        source_id=new_id(),
        plan_code="black-card-1m",
        months=0,
        days=(now.replace(year=9990, month=11, day=1) - now).days,
        starts_at=now,
        ends_at=now + timedelta(days=(now.replace(year=9990, month=11, day=1) - now).days),
        benefits=(),
        added_at=now,
    )
    await till.api.handle(MembershipChanged(member_id=member, version=1, segments=(endless,)))
    refused = await redeem(till, code, member)
    assert (refused.status_code, refused.json()["code"]) == (409, "membership_too_long")
    assert await till.api.sql("SELECT status FROM redeem_code") == [("open",)]
    assert (await redeem(till, code)).status_code == 201


async def test_what_a_merged_account_redeemed_follows(till: Till) -> None:
    _, [code] = await codes_of(till, count=1)
    kept, merged = new_id(), new_id()
    assert (await redeem(till, code, merged)).status_code == 201
    await till.api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    [(owner,)] = await till.api.sql("SELECT member_id FROM redeem_code")
    assert UUID(str(owner)) == kept
