"""Channels: sixteen from the start, and what each of them brought."""

import json
import re
from datetime import datetime, time, timedelta
from typing import Any

import pytest

from contracts.billing import OrderRefunded
from kit import clock
from kit.ids import new_id
from services.referrals import touch_upkeep
from tests.harness import Api
from tests.services.referrals.test_partners import disputed
from tests.services.referrals.world import lesson, member, paid

CHANNELS = "/v1/admin/channels"


async def test_sixteen_channels_exist_from_the_start_and_admins_change_them(api: Api) -> None:
    admin = api.admin()
    listed = (await api.client.get(CHANNELS, headers=admin, params={"limit": 100})).json()["items"]
    assert len(listed) == 16
    assert {"douyin", "xiaohongshu", "mini_program", "h5", "app"} <= {item["code"] for item in listed}

    made = await api.client.post(CHANNELS, headers=admin, json={"code": "offline-2026", "name": "线下沙龙"})
    assert (made.status_code, made.headers["ETag"]) == (201, '"1"')
    assert made.json()["url"] == "http://127.0.0.1:8000/c/offline-2026"
    assert {item["url"] for item in listed} == {f"http://127.0.0.1:8000/c/{item['code']}" for item in listed}
    taken = await api.client.post(CHANNELS, headers=admin, json={"code": "offline-2026", "name": "又"})
    assert (taken.status_code, taken.json()["code"]) == (409, "channel_exists")
    path = f"{CHANNELS}/offline-2026"
    renamed = await api.client.patch(path, headers=admin | {"If-Match": '"1"'}, json={"name": "烘焙沙龙"})
    assert (renamed.json()["name"], renamed.headers["ETag"]) == ("烘焙沙龙", '"2"')
    assert (await api.client.patch(path, headers=admin | {"If-Match": '"1"'}, json={"name": "旧"})).status_code == 412
    gone = await api.client.delete(path, headers=admin)
    assert (gone.status_code, gone.headers.get("content-type"), gone.content) == (204, None, b"")
    assert (await api.client.delete(path, headers=admin)).status_code == 404
    retired = await api.client.post("/v1/touches", json={"channel": "offline-2026", "visitor_id": "v"})
    assert (retired.status_code, retired.json()["code"]) == (404, "channel_unknown")


async def test_figures_of_channels_count_what_happened_in_the_period(api: Api) -> None:
    for visitor in ("a", "b", "c"):
        await api.client.post("/v1/touches", json={"channel": "douyin", "visitor_id": visitor})
    # The app names the channel once more at registration: that is no other link that was opened.
    buyer, reader = await member(api, visitor_id="a", channel="douyin"), await member(api, visitor_id="b")
    await member(api, channel="weibo")
    order = paid(buyer, total=4900, paid_at=clock.now() + timedelta(days=2))
    unheard = OrderRefunded(
        order_id=new_id(),
        refund_id=new_id(),
        member_id=reader,
        amount=100,
        currency="CNY",
        full=False,
        removes_time=False,
        refunded_at=clock.now(),
    )
    refund = OrderRefunded(
        order_id=order.order_id,
        refund_id=new_id(),
        member_id=buyer,
        amount=900,
        currency="CNY",
        full=False,
        removes_time=False,
        refunded_at=clock.now(),
    )
    taken_back = paid(buyer, paid_at=order.paid_at)
    await api.handle(refund, order, lesson(reader), unheard, taken_back, disputed(taken_back, "lost"))
    today = clock.today()
    later = {"from": str(today + timedelta(days=2)), "to": str(today + timedelta(days=3))}

    now = await api.client.get(f"{CHANNELS}/stats", headers=api.admin(), params={"from": str(today), "to": str(today)})
    then = await api.client.get(f"{CHANNELS}/stats", headers=api.admin(), params=later)

    rows = {item["code"]: item for item in now.json()["items"]}
    assert len(rows) == 16
    nothing = {
        "touches": 0,
        "registrations": 0,
        "first_lessons": 0,
        "payers": 0,
        "revenue": 0,
        "median_days_to_pay": None,
    }
    assert rows["weibo"] == {"code": "weibo"} | nothing | {"registrations": 1}
    assert rows["douyin"] == {"code": "douyin"} | nothing | {"touches": 3, "registrations": 2, "first_lessons": 1}
    sales = {"payers": 1, "revenue": 4000, "median_days_to_pay": 2.0}
    assert {item["code"]: item for item in then.json()["items"]}["douyin"] == {"code": "douyin"} | nothing | sales


async def test_links_opened_long_ago_are_forgotten_and_still_counted_on_their_day(api: Api, monkeypatch: Any) -> None:
    monkeypatch.setattr(touch_upkeep, "AT_ONCE", 2)
    api.clock.set(datetime.combine(clock.today() + timedelta(days=1), time(23, 59), tzinfo=clock.ZONE))
    first = clock.today()
    for visitor in "abc":
        await api.client.post("/v1/touches", json={"channel": "douyin", "visitor_id": visitor})
    await member(api, visitor_id="a")
    looking = await api.client.post(
        "/v1/touches", json={"channel": "weibo", "visitor_id": "d"}, headers=api.member(new_id())
    )
    assert looking.status_code == 201
    api.clock.advance(timedelta(minutes=2))
    await api.client.post("/v1/touches", json={"channel": "douyin", "visitor_id": "c"})

    async def opened() -> list[tuple[int, int]]:
        admin, told = api.admin(), []
        for day in (first, first + timedelta(days=1)):
            period = {"from": str(day), "to": str(day)}
            items = (await api.client.get(f"{CHANNELS}/stats", headers=admin, params=period)).json()["items"]
            rows = {item["code"]: item["touches"] for item in items}
            told.append((rows["douyin"], rows["weibo"]))
        return told

    assert await opened() == [(3, 1), (1, 0)]
    api.clock.advance(timedelta(days=400) - timedelta(minutes=1))
    await api.run_due()
    assert await opened() == [(3, 1), (1, 0)]
    assert await api.sql("SELECT visitor_id FROM touch WHERE newcomer_id IS NULL") == [("c",)]
    api.clock.advance(timedelta(minutes=1))
    assert await api.run_due() == 1
    assert await api.run_due() == 0
    assert await opened() == [(3, 1), (1, 0)]
    # Where a member came from stays.
    assert await api.sql("SELECT visitor_id, outcome FROM touch") == [("a", "won")]


@pytest.mark.parametrize(
    "period",
    [
        {"from": "2026-11-21", "to": "2026-11-20"},
        {"from": "2001-01-01", "to": "2026-01-01"},
        {"to": "0001-01-01"},
        {"from": "9999-12-31", "to": "9999-12-31"},
    ],
)
async def test_a_period_that_cannot_be_is_refused(api: Api, period: dict[str, str]) -> None:
    answer = await api.client.get(f"{CHANNELS}/stats", headers=api.admin(), params=period)

    assert (answer.status_code, answer.json()["code"]) == (422, "bad_period")


async def test_a_link_opens_a_page_that_runs_only_its_own_script_and_notes_nothing_by_being_looked_at(api: Api) -> None:
    pages = {
        "/i/ABCD2345": {"invite_code": "ABCD2345"},
        "/i/ABCD2345?channel=douyin": {"invite_code": "ABCD2345", "channel": "douyin"},
        "/c/douyin": {"channel": "douyin"},
    }
    for path, opened in pages.items():
        answer = await api.client.get(path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        [nonce] = set(re.findall(r'nonce="([^"]+)"', answer.text))
        assert f"script-src 'nonce-{nonce}'" in answer.headers["Content-Security-Policy"]
        assert f"var opened = {json.dumps(opened)};" in answer.text
        assert "{{" not in answer.text
    for path in ("/i/<script>", "/i/A", "/c/%22x", "/i/ABCD2345?channel=<x"):
        assert (await api.client.get(path)).status_code == 422
    assert await api.sql("SELECT * FROM touch") == []
