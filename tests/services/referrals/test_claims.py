"""Claims: exactly what a campaign has, to whom it is for, once each."""

import asyncio
import re
from collections import Counter
from datetime import timedelta

import pytest

from contracts.coupon import read
from contracts.members import MemberChanged
from contracts.referrals import CouponIssued
from kit import clock
from kit.ids import new_id
from services.referrals.app import service
from services.referrals.issue import REFUSALS
from tests.harness import Api, Run
from tests.services.referrals.conftest import KEYS
from tests.services.referrals.world import campaign, claim, coupons, member, paid


async def test_a_claim_gives_a_coupon_with_a_token_that_billing_can_read(api: Api) -> None:
    made = await campaign(api, title="面包节", value=20, kind="percent", min_amount=1000, plan_codes=["black-card-3m"])
    holder = await member(api)
    await api.emitted()

    answer = await claim(api, made["id"], holder)

    assert answer.status_code == 201
    coupon = answer.json()
    claims = read(coupon["token"], KEYS)
    assert (str(claims.id), claims.member_id, str(claims.campaign_id)) == (coupon["id"], holder, made["id"])
    assert (claims.title, claims.kind, claims.value, claims.min_amount) == ("面包节", "percent", 20, 1000)
    assert claims.plan_codes == ("black-card-3m",)
    assert claims.starts_at < clock.now() < claims.ends_at
    assert coupon["status"] == "issued"
    assert await coupons(api, holder) == [coupon]
    (told,) = await api.emitted()
    assert isinstance(told, CouponIssued)
    assert (str(told.coupon_id), told.member_id, told.title) == (coupon["id"], holder, "面包节")
    assert told.ends_at == claims.ends_at


async def test_sixty_four_people_at_once_get_exactly_the_fifty_coupons_there_are(api: Api) -> None:
    made = await campaign(api, total=50)
    crowd = [new_id() for _ in range(64)]

    answers = await asyncio.gather(*(claim(api, made["id"], one) for one in crowd))

    codes = Counter(answer.json().get("code", "given") for answer in answers)
    assert codes == {"given": 50, "coupon_exhausted": 14}
    stored = await api.sql("SELECT count(*) AS n, count(DISTINCT member_id) AS people FROM coupon")
    assert tuple(stored[0]) == (50, 50)
    assert len([event for event in await api.emitted() if isinstance(event, CouponIssued)]) == 50
    asked = {answer.headers["X-Request-Id"] for answer in answers if answer.status_code == 201}
    assert {
        row.request_id for row in await api.sql("SELECT request_id FROM outbox WHERE type = 'referrals.coupon.issued'")
    } == asked


@pytest.mark.parametrize("key", [None, "of the request"])
async def test_two_processes_together_never_give_one_more(api: Api, run: Run, key: str | None) -> None:
    made = await campaign(api, total=30, per_member=2)
    url = str(api.rt.db.url)
    async with run(service, database_url=url, coupon_keys=KEYS) as second:
        crowd = [new_id() for _ in range(25)] * 3
        answers = await asyncio.gather(
            *(
                claim(each, made["id"], one, **({"Idempotency-Key": str(new_id())} if key else {}))
                for one in crowd[: 20 if key else None]
                for each in (api, second)
            )
        )

    codes = Counter(answer.json().get("code", "given") for answer in answers)
    assert codes["given"] == 30
    assert set(codes) <= {"given", "coupon_exhausted", "coupon_already_claimed"}
    held = await api.sql("SELECT count(*) AS n FROM coupon GROUP BY member_id")
    assert sum(row.n for row in held) == 30
    assert max(row.n for row in held) <= 2


async def test_a_member_who_taps_ten_times_gets_one_coupon(api: Api) -> None:
    made = await campaign(api)
    holder = await member(api)

    answers = await asyncio.gather(*(claim(api, made["id"], holder) for _ in range(10)))

    codes = Counter(answer.json().get("code", "given") for answer in answers)
    assert codes == {"given": 1, "coupon_already_claimed": 9}
    assert len(await coupons(api, holder)) == 1


async def test_the_same_idempotency_key_answers_the_same_coupon(api: Api) -> None:
    made = await campaign(api)
    holder, key = await member(api), str(new_id())

    first = await claim(api, made["id"], holder, **{"Idempotency-Key": key})
    again = await claim(api, made["id"], holder, **{"Idempotency-Key": key})

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(await coupons(api, holder)) == 1


async def test_a_code_works_in_any_case_and_an_unknown_one_is_404(api: Api) -> None:
    await campaign(api, code="Baking2026")
    holder = await member(api)

    unknown = await api.client.post("/v1/coupons/claim", headers=api.member(holder), json={"code": "nothing"})
    given = await api.client.post("/v1/coupons/claim", headers=api.member(holder), json={"code": " baking2026 "})
    again = await api.client.post("/v1/coupons/claim", headers=api.member(holder), json={"code": "BAKING2026"})

    assert (unknown.status_code, unknown.json()["code"]) == (404, "coupon_unknown")
    assert (given.status_code, given.json()["value"]) == (201, 300)
    assert (again.status_code, again.json()["code"]) == (409, "coupon_already_claimed")


async def test_codes_cannot_be_tried_out(api: Api) -> None:
    guesser = api.member()

    answers = [await api.client.post("/v1/coupons/claim", headers=guesser, json={"code": f"X{n}Y"}) for n in range(6)]

    assert [answer.status_code for answer in answers] == [404] * 5 + [429]
    assert answers[5].json()["code"] == "rate_limited"
    assert 1 <= int(answers[5].headers["Retry-After"]) <= 6
    api.clock.advance(timedelta(seconds=6))
    later = await api.client.post("/v1/coupons/claim", headers=guesser, json={"code": "XYZ"})
    assert later.status_code == 404


async def test_codes_cannot_be_tried_out_by_many_callers_at_one_address(run: Run) -> None:
    async with run(service, coupon_keys=KEYS, limits_mode="strict") as api:
        path = "/v1/coupons/claim"
        answers = [await api.client.post(path, headers=api.member(), json={"code": f"X{n}Y"}) for n in range(6)]
        assert [answer.status_code for answer in answers] == [404] * 5 + [429]
        assert 1 <= int(answers[5].headers["Retry-After"]) <= 6
        api.clock.advance(timedelta(seconds=6))
        assert (await api.client.post(path, headers=api.member(), json={"code": "X"})).status_code == 404


async def test_every_refusal_says_in_both_languages_why_and_what_to_do_next() -> None:
    for refusal in REFUSALS.values():
        problem = refusal()
        assert re.search(r"[;:]", problem.detail("en")), refusal
        assert re.search(r"[，；：]", problem.detail("zh")), refusal
    actions = {code: refusal.action for code, refusal in REFUSALS.items()}
    assert actions == {
        "coupon_unknown": None,
        "coupon_not_started": "retry_later",
        "coupon_ended": "see_campaigns",
        "audience_mismatch": "see_campaigns",
        "coupon_exhausted": "see_campaigns",
        "coupon_already_claimed": "see_coupons",
    }


async def test_a_campaign_gives_only_between_its_start_and_its_end(api: Api) -> None:
    now = clock.now()
    made = await campaign(
        api, starts_at=(now + timedelta(hours=1)).isoformat(), ends_at=(now + timedelta(hours=2)).isoformat()
    )
    holder = await member(api)

    early = await claim(api, made["id"], holder)
    api.clock.advance(timedelta(hours=1, minutes=30))
    timely = await claim(api, made["id"], holder)
    api.clock.advance(timedelta(hours=1))
    late = await claim(api, made["id"], await member(api))

    assert (early.status_code, early.json()["code"]) == (409, "coupon_not_started")
    assert (early.json()["starts_at"], early.json()["action"]) == (made["starts_at"], "retry_later")
    assert timely.status_code == 201
    assert (late.status_code, late.json()["code"]) == (409, "coupon_ended")


async def test_the_newcomer_coupon_is_for_those_who_are_new_and_never_paid(api: Api) -> None:
    (listed,) = (await api.client.get("/v1/coupon-campaigns")).json()["items"]
    assert (listed["value"], listed["audience"]) == (500, "new_members")
    newcomer, payer, old = await member(api), await member(api), await member(api)
    unheard = new_id()
    await api.handle(paid(payer))

    assert (await claim(api, listed["id"], newcomer)).status_code == 201
    assert (await claim(api, listed["id"], newcomer)).json()["code"] == "coupon_already_claimed"
    assert (await claim(api, listed["id"], unheard)).status_code == 201
    assert (await claim(api, listed["id"], payer)).json()["code"] == "audience_mismatch"
    api.clock.advance(timedelta(days=31))
    assert (await claim(api, listed["id"], old)).json()["code"] == "audience_mismatch"


@pytest.mark.parametrize("audience", ["tier:expert", "label:爱好者:北京", "channel:douyin"])
async def test_an_audience_is_a_tier_a_label_or_a_channel(api: Api, audience: str) -> None:
    made = await campaign(api, audience=audience)
    inside, outside = await member(api, channel="douyin"), await member(api, channel="weibo")
    await api.handle(MemberChanged(member_id=inside, nickname="小麦", tier="expert", labels=("爱好者:北京",)))

    assert (await claim(api, made["id"], inside)).status_code == 201
    refused = await claim(api, made["id"], outside)
    assert (refused.status_code, refused.json()["code"]) == (409, "audience_mismatch")
    assert refused.json()["audience"] == audience


async def test_who_may_claim(api: Api) -> None:
    made = await campaign(api)
    path = f"/v1/coupon-campaigns/{made['id']}/claims"

    assert (await api.client.post(path)).status_code == 401
    assert (await api.client.post(path, headers=api.admin())).status_code == 403
    unknown = await claim(api, str(new_id()), new_id())
    assert (unknown.status_code, unknown.json()["code"]) == (404, "coupon_unknown")
    assert (await claim(api, "not-an-id", new_id())).status_code == 422


async def test_a_campaign_with_a_code_is_not_listed_and_left_counts_down(api: Api) -> None:
    await campaign(api, code="SECRET")
    public = await campaign(api, title="公开", total=3)
    await claim(api, public["id"], new_id())

    answer = await api.client.get("/v1/coupon-campaigns")

    found = {item["title"]: item for item in answer.json()["items"]}
    assert set(found) == {"公开", "新人见面礼"}
    assert (found["公开"]["total"], found["公开"]["left"]) == (3, 2)
    assert "code" not in found["公开"]
    again = await api.client.get("/v1/coupon-campaigns", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
