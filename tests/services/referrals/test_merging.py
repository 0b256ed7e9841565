"""Two accounts of one person: coupons, invitees, rewards and origins become one's."""

from datetime import timedelta

from contracts.members import MemberMerged
from contracts.referrals import RewardGranted
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.referrals.world import code_of, coupons, invited, lesson, member, paid, registered


async def merge(api: Api, kept: object, merged: object) -> None:
    event = MemberMerged(kept_id=kept, merged_id=merged)  # type: ignore[arg-type]
    await api.handle(event, event.model_copy(update={"id": new_id()}))


async def test_coupons_of_one_campaign_both_stay(api: Api) -> None:
    inviter = await member(api)
    kept, merged = await invited(api, inviter), await invited(api, inviter)
    before = await coupons(api, kept) + await coupons(api, merged)
    await merge(api, kept, merged)
    held = await coupons(api, kept)
    assert {coupon["id"] for coupon in held} == {coupon["id"] for coupon in before}
    assert len(held) == 2
    assert await coupons(api, merged) == []
    ordinals = await api.sql("SELECT ordinal FROM coupon WHERE member_id = :id ORDER BY ordinal", id=kept)
    assert [row.ordinal for row in ordinals] == [1, 2]


async def test_invitees_and_both_codes_lead_to_the_kept(api: Api) -> None:
    kept, merged = await member(api), await member(api)
    mine, theirs = await invited(api, kept), await invited(api, merged)
    code = await code_of(api, merged)
    await api.handle(lesson(theirs))
    await merge(api, kept, merged)
    later = await member(api, invite_code=code)
    items = (await api.client.get("/v1/me/invitees", headers=api.member(kept))).json()["items"]
    assert {item["member_id"] for item in items} == {str(mine), str(theirs), str(later)}
    assert [coupon["value"] for coupon in await coupons(api, kept)] == [500]
    [used] = await api.sql("SELECT used FROM reward_budget")
    assert used.used == 1
    await api.emitted()
    await api.handle(paid(theirs))
    [reward] = [event for event in await api.emitted() if isinstance(event, RewardGranted)]
    assert reward.member_id == kept


async def test_the_older_origin_stays_though_it_was_fixed(api: Api) -> None:
    first, second = await member(api), await member(api)
    merged = await invited(api, first)
    await api.handle(paid(merged))
    api.clock.advance(timedelta(days=1))
    kept = await invited(api, second)
    await merge(api, kept, merged)
    [origin] = await api.sql("SELECT * FROM attribution")
    assert (origin.member_id, origin.inviter_id) == (kept, first)
    assert origin.fixed_at is not None
    await api.emitted()
    # The step was rewarded already, to the first inviter.
    await api.handle(paid(kept))
    assert [event for event in await api.emitted() if isinstance(event, RewardGranted)] == []
    assert len(await api.sql("SELECT 1 FROM reward WHERE status = 'granted'")) == 1


async def test_nobody_becomes_their_own_inviter(api: Api) -> None:
    kept = await member(api)
    merged = await invited(api, kept)
    await merge(api, kept, merged)
    assert await api.sql("SELECT 1 FROM attribution") == []
    await api.emitted()
    await api.handle(paid(kept), lesson(merged))
    assert await api.emitted() == []


async def test_a_registration_told_after_the_merge_follows(api: Api) -> None:
    inviter = await member(api)
    kept, merged = await member(api), new_id()
    await merge(api, kept, merged)
    news = registered(merged, invite_code=await code_of(api, inviter), registered_at=clock.now())
    await api.handle(news)
    [origin] = await api.sql("SELECT * FROM attribution")
    assert (origin.member_id, origin.inviter_id) == (kept, inviter)
    assert len(await coupons(api, kept)) == 1
    assert await api.sql("SELECT 1 FROM member_card WHERE member_id = :id", id=merged) == []
    assert await api.run_due() == 0
