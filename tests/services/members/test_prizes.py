"""Prizes of contests: days and points reach the winner once, whoever the winner is by then."""

from typing import Any
from uuid import UUID

from contracts.members import MembershipChanged, PointsChanged
from contracts.showcase import PrizeWon
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.members.steps import a_member


def won(member_id: UUID, reward: str, value: int | str) -> PrizeWon:
    ids = {name: new_id() for name in ("prize_id", "contest_id", "entry_id")}
    facts = {
        "member_id": member_id,
        "rank": 1,
        "title": "一等奖",
        "reward": reward,
        "value": value,
        "won_at": clock.now(),
    }
    return PrizeWon.model_validate(ids | facts)


async def segments(api: Api, headers: dict[str, str]) -> list[dict[str, Any]]:
    answer = await api.client.get("/v1/me/membership/segments", headers=headers)
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def points(api: Api, headers: dict[str, str]) -> tuple[int, list[str]]:
    answer = (await api.client.get("/v1/me/points", headers=headers)).json()
    return answer["balance"], [item["reason"] for item in answer["items"]]


async def test_days_and_points_are_given_once_and_a_coupon_not_here(api: Api) -> None:
    member_id, headers = await a_member(api)
    days, prize, coupon = (
        won(member_id, "membership_days", 30),
        won(member_id, "points", 100),
        won(member_id, "coupon", 500),
    )
    for event in (days, prize, coupon):
        # Told twice, and once more under another id: a prize is known by its own.
        await api.handle(event, event, event.model_copy(update={"id": new_id()}))
    [segment] = await segments(api, headers)
    assert (segment["source"], segment["source_id"], segment["days"], segment["state"]) == (
        "reward", str(days.prize_id), 30, "active",
    )  # fmt: skip
    # By now the card doubles points; a prize stays what was announced.
    assert await points(api, headers) == (100, ["contest_prize"])
    assert [type(event) for event in await api.emitted()] == [MembershipChanged, PointsChanged]
    assert await api.run_due() == 1, "the member's tag, and nothing of a prize"
    assert await api.emitted() == []


async def test_who_was_merged_wins_for_the_one_they_are_now_and_who_left_wins_nothing(api: Api) -> None:
    kept, headers = await a_member(api)
    merged, theirs = await a_member(api, "+8613800138001")
    await api.sql(
        "UPDATE member SET merged_into = :kept, erased_at = now() WHERE id = :merged", kept=kept, merged=merged
    )
    await api.handle(won(merged, "membership_days", 7), won(merged, "points", 5))
    assert [segment["days"] for segment in await segments(api, headers)] == [7]
    assert (await points(api, headers))[0] == 5
    assert (await api.client.delete("/v1/me", headers=headers)).status_code == 204
    await api.emitted()
    await api.handle(won(kept, "membership_days", 7), won(kept, "points", 5), won(new_id(), "points", 5))
    assert len(await api.sql("SELECT 1 FROM segment")) == 1
    assert (
        await api.sql("SELECT 1 FROM point_entry WHERE reason = 'contest_prize' AND member_id <> :kept", kept=kept)
        == []
    )
    assert await api.emitted() == []
    assert theirs
