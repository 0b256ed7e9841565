"""Prizes of contests: a coupon reaches the winner once, whoever the winner is by then."""

from typing import Any
from uuid import UUID

from contracts.members import MemberErased, MemberMerged
from contracts.referrals import CouponIssued
from contracts.showcase import PrizeWon
from kit import clock
from kit.consume import Letter
from kit.ids import new_id
from tests.harness import Api
from tests.services.referrals.world import campaign, coupons, member


def won(member_id: UUID, value: int | str, reward: str = "coupon", contest_id: UUID | None = None) -> PrizeWon:
    ids = {"prize_id": new_id(), "contest_id": contest_id or new_id(), "entry_id": new_id()}
    facts = {
        "member_id": member_id,
        "rank": 2,
        "title": "二等奖",
        "reward": reward,
        "value": value,
        "won_at": clock.now(),
    }
    return PrizeWon.model_validate(ids | facts)


async def test_a_coupon_of_so_many_fen_is_given_once_and_nothing_else_is_here(api: Api) -> None:
    winners, contest = [await member(api) for _ in range(2)], new_id()
    await api.emitted()
    for winner in winners:
        event = won(winner, 800, contest_id=contest)
        await api.handle(event, event, event.model_copy(update={"id": new_id()}))
        [coupon] = await coupons(api, winner)
        assert (coupon["kind"], coupon["value"], coupon["title"], coupon["status"]) == (
            "amount",
            800,
            "二等奖",
            "issued",
        )
        assert UUID(coupon["id"]).version == 7
        [told] = await api.emitted()
        assert isinstance(told, CouponIssued)
        assert (str(told.coupon_id), told.member_id) == (coupon["id"], winner)
    [campaign_row] = await api.sql("SELECT id, claimed, claimable FROM campaign WHERE title = '二等奖'")
    assert (campaign_row.id.version, campaign_row.claimed, campaign_row.claimable) == (7, 2, False)
    await api.handle(won(winners[0], 7, "membership_days"), won(winners[0], 7, "points"))
    assert await api.emitted() == []
    assert len(await coupons(api, winners[0])) == 1


async def test_a_named_campaign_gives_by_code_or_id_and_what_it_cannot_give_waits(api: Api) -> None:
    winner = await member(api)
    opened = await campaign(api, code="PRIZE1", total=1, claimable=False)
    await api.handle(won(winner, "prize1"))
    assert [coupon["title"] for coupon in await coupons(api, winner)] == [opened["title"]]
    other = await member(api)
    for wanted in (won(other, opened["id"]), won(other, "NOSUCH")):
        letter = Letter(wanted.id, wanted.wire_type, wanted.model_dump_json(), None, None)
        await api.rt.consumer.deliver(letter)
    assert await coupons(api, other) == []
    failed = await api.sql("SELECT error FROM event_failure ORDER BY error")
    assert len(failed) == 2
    more = await api.client.patch(f"/v1/admin/coupon-campaigns/{opened['id']}", json={"total": 2}, headers=api.admin())
    assert more.status_code == 200
    await api.sql("UPDATE event_failure SET next_attempt_at = :now", now=clock.now())
    await api.run_due()
    assert [coupon["title"] for coupon in await coupons(api, other)] == [opened["title"]]
    assert len(await api.sql("SELECT 1 FROM event_failure")) == 1


async def test_who_was_merged_wins_for_the_one_they_are_now_and_who_left_wins_nothing(api: Api) -> None:
    kept, merged, gone = [await member(api) for _ in range(3)]
    await api.handle(MemberMerged(kept_id=kept, merged_id=merged), MemberErased(member_id=gone))
    prizes: list[Any] = [won(merged, 300), won(gone, 300)]
    await api.handle(*prizes)
    assert [coupon["value"] for coupon in await coupons(api, kept)] == [300]
    assert await coupons(api, gone) == []
    unheard = new_id()
    await api.handle(won(unheard, 300))
    assert [coupon["value"] for coupon in await coupons(api, unheard)] == [300]
