"""Make-ups: twenty points buy one missed day a month back, exactly, and the streak goes on from there."""

import asyncio
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import httpx

from kit import clock
from tests.harness import Api
from tests.services.members.steps import a_member
from tests.services.members.test_check_ins import balance, check_in
from tests.services.members.test_evidence import approved

PATH = "/v1/me/check-ins/make-ups"


async def make_up(api: Api, member_id: UUID, day: date | str, **headers: str) -> httpx.Response:
    return await api.client.post(PATH, json={"day": str(day)}, headers=api.member(member_id) | headers)


async def missed_yesterday(api: Api, works: int = 3) -> tuple[UUID, date]:
    """A member with points who was here two days ago and today, in the middle of a month."""
    member_id, _ = await a_member(api)
    now = clock.now()
    api.clock.set((now.replace(day=1) + timedelta(days=40)).replace(day=15))
    await api.handle(*(approved(member_id) for _ in range(works)))
    await check_in(api, member_id)
    api.clock.advance(timedelta(days=2))
    await check_in(api, member_id)
    return member_id, clock.today() - timedelta(days=1)


async def test_a_bought_day_joins_the_streak_and_earns_nothing(api: Api) -> None:
    member_id, day = await missed_yesterday(api)
    before = await balance(api, member_id)
    made = await make_up(api, member_id, day)
    assert (made.status_code, made.json()) == (201, {"day": str(day), "streak": 2, "points": 0})
    assert await balance(api, member_id) == before - 20
    month: Any = (await api.client.get("/v1/me/check-ins", headers=api.member(member_id))).json()
    assert [item["streak"] for item in month["items"]] == [1, 2, 3]
    api.clock.advance(timedelta(days=1))
    assert (await check_in(api, member_id))[1]["streak"] == 4


async def test_one_a_month(api: Api) -> None:
    member_id, day = await missed_yesterday(api, works=9)
    assert (await make_up(api, member_id, day)).status_code == 201
    refused = await make_up(api, member_id, day - timedelta(days=2))
    assert (refused.status_code, refused.json()["code"]) == (409, "make_up_used")
    assert await balance(api, member_id) == 90 + 1 + 1 - 20
    api.clock.advance(timedelta(days=31))
    assert (await make_up(api, member_id, clock.today() - timedelta(days=1))).status_code == 201


async def test_of_ten_at_once_one_is_bought(api: Api) -> None:
    member_id, day = await missed_yesterday(api)
    days = [day - timedelta(days=back) for back in (0, 2, 3, 4, 5)] * 2
    answers = await asyncio.gather(*(make_up(api, member_id, each) for each in days))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    assert await balance(api, member_id) == 30 + 1 + 1 - 20


async def test_what_cannot_be_bought_is_refused_and_costs_nothing(api: Api) -> None:
    member_id, day = await missed_yesterday(api, works=1)
    refused = await make_up(api, member_id, day)
    assert (refused.status_code, refused.json()["code"]) == (409, "not_enough_points")
    assert "20" in refused.json()["detail"]
    taken = await make_up(api, member_id, day - timedelta(days=1))
    assert (taken.status_code, taken.json()["code"]) == (409, "already_checked_in")
    for other in (
        day + timedelta(days=1),
        day + timedelta(days=2),
        day - timedelta(days=40),
        "0001-01-01",
        "9999-12-31",
    ):
        refused = await make_up(api, member_id, other)
        assert (refused.status_code, refused.json()["code"]) == (422, "day_not_open"), other
    for other in ("", "2026-02-30", "yesterday"):
        assert (await make_up(api, member_id, other)).json()["code"] == "validation_failed"
    assert (await api.client.post(PATH, json={"day": str(day)})).status_code == 401
    assert await balance(api, member_id) == 12
