"""Check-ins and points: once a business day, streaks, and what the black card doubles."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from kit import clock
from tests.harness import Api
from tests.services.members.steps import a_member
from tests.services.members.test_membership import paid

EVENING = datetime(2031, 3, 30, 15, 59, tzinfo=UTC)
"""23:59 on the 30th of March in Shanghai."""


async def check_in(api: Api, member_id: UUID) -> tuple[int, dict[str, object]]:
    answer = await api.client.post("/v1/me/check-ins", headers=api.member(member_id))
    return answer.status_code, answer.json()


async def balance(api: Api, member_id: UUID) -> int:
    return int((await api.client.get("/v1/me/points", headers=api.member(member_id))).json()["balance"])


async def test_a_streak_grows_by_the_business_day_and_crosses_months(api: Api) -> None:
    member_id, _ = await a_member(api)
    api.clock.set(EVENING)
    assert await check_in(api, member_id) == (201, {"day": "2031-03-30", "streak": 1, "points": 1})
    status, refused = await check_in(api, member_id)
    assert (status, refused["code"]) == (409, "already_checked_in")
    api.clock.advance(timedelta(minutes=2))
    assert await check_in(api, member_id) == (201, {"day": "2031-03-31", "streak": 2, "points": 2})
    for day in range(1, 9):
        api.clock.advance(timedelta(days=1))
        made = {"day": f"2031-04-{day:02}", "streak": day + 2, "points": min(day + 2, 7)}
        assert await check_in(api, member_id) == (201, made)
    assert await balance(api, member_id) == 1 + 2 + 3 + 4 + 5 + 6 + 7 * 4

    march = await api.client.get("/v1/me/check-ins?month=2031-03", headers=api.member(member_id))
    assert [item["day"] for item in march.json()["items"]] == ["2031-03-30", "2031-03-31"]
    assert march.json()["streak"] == 10
    april = await api.client.get("/v1/me/check-ins", headers=api.member(member_id))
    assert len(april.json()["items"]) == 8


async def test_a_day_left_out_ends_the_streak(api: Api) -> None:
    member_id, _ = await a_member(api)
    api.clock.set(EVENING)
    await check_in(api, member_id)
    api.clock.advance(timedelta(days=1))
    shown = await api.client.get("/v1/me/check-ins", headers=api.member(member_id))
    assert shown.json()["streak"] == 1
    api.clock.advance(timedelta(days=1))
    shown = await api.client.get("/v1/me/check-ins", headers=api.member(member_id))
    assert shown.json() == {"items": [], "streak": 0}
    assert (await check_in(api, member_id))[1] == {"day": "2031-04-01", "streak": 1, "points": 1}


async def test_of_twenty_check_ins_at_once_one_counts(api: Api) -> None:
    member_id, _ = await a_member(api)
    answers = await asyncio.gather(*(check_in(api, member_id) for _ in range(20)))
    assert sorted(status for status, _ in answers) == [201] + [409] * 19
    assert await balance(api, member_id) == 1


async def test_the_black_card_doubles_points_while_it_is_active(api: Api) -> None:
    member_id, _ = await a_member(api)
    await api.handle(paid(member_id))
    assert (await check_in(api, member_id))[1]["points"] == 2
    api.clock.advance(timedelta(days=40))
    assert (await check_in(api, member_id))[1]["points"] == 1
    await api.handle(paid(member_id, benefits=("live_replay",)))
    api.clock.advance(timedelta(days=1))
    assert (await check_in(api, member_id))[1] == {"day": clock.today().isoformat(), "streak": 2, "points": 2}
    points = (await api.client.get("/v1/me/points", headers=api.member(member_id))).json()
    assert points["balance"] == 5
    assert [(item["delta"], item["reason"]) for item in points["items"]] == [
        (2, "check_in"),
        (1, "check_in"),
        (2, "check_in"),
    ]
    assert set(points["items"][0]) == {"delta", "reason", "at"}


async def test_months_that_are_none_are_refused(api: Api) -> None:
    for month in ("2031-13", "2031-00", "31-01", "2031-1", "2031-01-01", "", "٢٠٣١-٠١", "0000-01", "9999-12"):
        answer = await api.client.get("/v1/me/check-ins", params={"month": month}, headers=api.member())
        assert answer.status_code == 422, month


async def test_somebody_nobody_registered_cannot_check_in(api: Api) -> None:
    answer = await api.client.post("/v1/me/check-ins", headers=api.member())
    assert (answer.status_code, answer.json()["code"]) == (404, "member_not_found")
