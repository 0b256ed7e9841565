"""Who may watch: judged by the instant, from the newest picture that members sent."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from contracts.billing import OrderPaid, OrderRefunded
from contracts.erasing import PASSES_AFTER
from contracts.members import MemberChanged, MemberErased, MemberRegistered
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.courses.world import add_course, membership, segment


@pytest.fixture
async def lesson_id(api: Api) -> str:
    return str((await add_course(api, access="member"))["lessons"][0]["id"])


async def watch(api: Api, lesson_id: str, member_id: UUID | None) -> httpx.Response:
    headers = api.member(member_id) if member_id else {}
    return await api.client.get(f"/v1/lessons/{lesson_id}", headers=headers)


def refused(answer: httpx.Response, code: str, action: str) -> bool:
    assert (answer.status_code, answer.json()["code"], answer.json()["action"]) == (403, code, action)
    assert "playback" not in answer.text
    return True


async def test_a_free_lesson_is_for_everybody(api: Api) -> None:
    lesson = (await add_course(api))["lessons"][0]
    answer = await watch(api, lesson["id"], None)
    assert answer.status_code == 200
    assert answer.json()["title"] == "第 1 步"
    assert answer.json()["progress"] is None
    assert answer.headers["cache-control"] == "private, no-store"


async def test_a_member_lesson_needs_a_membership(api: Api, lesson_id: str) -> None:
    assert refused(await watch(api, lesson_id, new_id()), "membership_required", "buy_membership")
    assert refused(await watch(api, lesson_id, None), "membership_required", "buy_membership")
    chinese = await api.client.get(f"/v1/lessons/{lesson_id}", headers=api.member())
    assert chinese.json()["detail"] == "这节课为黑卡会员专享，开通或续费会员后即可观看。"


async def test_access_opens_and_closes_with_the_clock_alone(api: Api, lesson_id: str) -> None:
    member_id, now = new_id(), clock.now()
    await api.handle(membership(member_id, segment(now + timedelta(hours=1), 2), segment(now + timedelta(days=10), 1)))
    statuses = []
    for hours in (0, 2, 60, 245, 300):
        api.clock.set(now + timedelta(hours=hours))
        statuses.append((await watch(api, lesson_id, member_id)).status_code)
    assert statuses == [403, 200, 403, 200, 403]


async def test_grace_keeps_access_past_the_last_segment(api: Api, lesson_id: str) -> None:
    member_id, now = new_id(), clock.now()
    await api.handle(membership(member_id, segment(now, 1), grace_days=7))
    api.clock.set(now + timedelta(days=7, hours=23))
    assert (await watch(api, lesson_id, member_id)).status_code == 200
    api.clock.set(now + timedelta(days=8, seconds=1))
    assert (await watch(api, lesson_id, member_id)).status_code == 403


async def test_time_without_the_lessons_benefit_opens_no_lessons(api: Api, lesson_id: str) -> None:
    member_id = new_id()
    await api.handle(membership(member_id, segment(clock.now(), 30, "double_points"), grace_days=7))
    assert (await watch(api, lesson_id, member_id)).status_code == 403


async def test_an_older_picture_that_comes_late_changes_nothing(api: Api, lesson_id: str) -> None:
    member_id, now = new_id(), clock.now()
    revoked = membership(member_id, version=3)
    bought = membership(member_id, segment(now, 30), version=2)
    await api.handle(revoked, bought, bought)
    assert (await watch(api, lesson_id, member_id)).status_code == 403
    await api.handle(membership(member_id, segment(now, 30), version=4))
    assert (await watch(api, lesson_id, member_id)).status_code == 200


async def test_nobody_elses_membership_counts(api: Api, lesson_id: str) -> None:
    await api.handle(membership(new_id(), segment(clock.now(), 30)))
    assert (await watch(api, lesson_id, new_id())).status_code == 403


def paid(member_id: UUID, course_id: str, order_id: UUID) -> OrderPaid:
    return OrderPaid(
        order_id=order_id,
        number="H1",
        member_id=member_id,
        kind="course",
        course_id=UUID(course_id),
        subtotal=9900,
        discount=0,
        total=9900,
        currency="CNY",
        payment_method="card",
        paid_at=clock.now(),
    )


def refunded(member_id: UUID, order_id: UUID, **fields: Any) -> OrderRefunded:
    usual: dict[str, Any] = {
        "full": True,
        "removes_time": True,
        "amount": 9900,
        "currency": "CNY",
        "refunded_at": clock.now(),
    }
    return OrderRefunded.model_validate(
        {"order_id": order_id, "refund_id": new_id(), "member_id": member_id} | usual | fields
    )


async def test_a_paid_course_is_open_to_its_buyer_until_the_money_goes_back(api: Api) -> None:
    course = await add_course(api, access="paid", amount=9900)
    lesson, member_id, order_id = course["lessons"][0]["id"], new_id(), new_id()
    await api.handle(membership(member_id, segment(clock.now(), 30)))
    assert refused(await watch(api, lesson, member_id), "purchase_required", "buy_course")
    await api.handle(paid(member_id, course["id"], order_id))
    assert (await watch(api, lesson, member_id)).status_code == 200
    assert refused(await watch(api, lesson, new_id()), "purchase_required", "buy_course")
    await api.handle(refunded(member_id, order_id, full=False, amount=100))
    assert (await watch(api, lesson, member_id)).status_code == 200
    await api.handle(refunded(member_id, order_id))
    assert refused(await watch(api, lesson, member_id), "purchase_required", "buy_course")


async def test_a_course_that_is_sold_is_not_deleted(api: Api) -> None:
    course = await add_course(api, access="paid", amount=9900)
    address, lesson = f"/v1/admin/courses/{course['id']}", course["lessons"][0]["id"]
    first, second, order_id = new_id(), new_id(), new_id()
    await api.handle(paid(first, course["id"], order_id))
    sold = await api.client.delete(address, headers=api.admin())
    assert (sold.status_code, sold.json()["code"]) == (409, "course_sold")
    assert (await watch(api, lesson, first)).status_code == 200
    await api.handle(refunded(first, order_id))
    assert (await api.client.delete(address, headers=api.admin())).status_code == 204
    assert (await watch(api, lesson, first)).status_code == 404
    # Whoever stood at the cashier's meanwhile has what they paid for.
    await api.handle(paid(second, course["id"], new_id()))
    assert [(await watch(api, lesson, who)).status_code for who in (first, second, None)] == [404, 200, 404]
    brought_back = (await api.client.get(address, headers=api.admin())).json()
    assert (brought_back["published"], brought_back["version"]) == (False, course["version"] + 2)


async def test_a_course_paid_while_it_is_being_deleted_comes_back(api: Api) -> None:
    course = await add_course(api, access="paid", amount=9900)
    member_id = new_id()
    async with api.rt.db.session() as session, session.begin():
        # As far as the deleting request can see, nobody has bought it.
        await session.execute(text("SELECT FROM course WHERE id = :id FOR UPDATE"), {"id": course["id"]})
        payment = asyncio.create_task(api.handle(paid(member_id, course["id"], new_id())))
        await asyncio.sleep(0.2)
        await session.execute(text("UPDATE course SET deleted_at = now() WHERE id = :id"), {"id": course["id"]})
    await payment
    assert (await watch(api, course["lessons"][0]["id"], member_id)).status_code == 200


async def test_a_refund_heard_before_its_payment_still_closes_the_course(api: Api) -> None:
    course = await add_course(api, access="paid", amount=9900)
    member_id, order_id = new_id(), new_id()
    await api.handle(refunded(member_id, order_id), paid(member_id, course["id"], order_id))
    assert (await watch(api, course["lessons"][0]["id"], member_id)).status_code == 403


async def test_what_is_not_shown_is_not_found(api: Api) -> None:
    draft = await add_course(api, published=False)
    assert (await watch(api, draft["lessons"][0]["id"], new_id())).status_code == 404
    assert (await api.client.get(f"/v1/courses/{draft['id']}")).status_code == 404
    missing = await watch(api, str(new_id()), new_id())
    assert (missing.status_code, missing.json()["code"]) == (404, "lesson_not_found")
    assert (await api.client.get("/v1/lessons/not-an-id")).status_code == 422


async def test_an_erased_member_leaves_a_score_and_nothing_else(api: Api, lesson_id: str) -> None:
    member_id = new_id()
    picture = membership(member_id, segment(clock.now(), 30))
    await api.handle(picture)
    headers = api.member(member_id)
    await api.client.put(
        f"/v1/lessons/{lesson_id}/progress", json={"position_s": 90, "watched": [[0, 100]]}, headers=headers
    )
    await api.client.put(f"/v1/lessons/{lesson_id}/rating", json={"score": 2, "comment": "太快"}, headers=headers)
    await api.handle(MemberErased(member_id=member_id), membership(member_id, segment(clock.now(), 30), version=9))
    assert (await watch(api, lesson_id, member_id)).status_code == 403
    assert await api.sql("SELECT count(*) FROM progress UNION ALL SELECT count(*) FROM completion") == [(0,), (0,)]
    assert await api.sql("SELECT score, comment FROM rating WHERE member_id <> :id", id=member_id) == [(2, None)]
    # What a request on its way, or another process, writes meanwhile is forgotten in a while.
    await api.client.put(f"/v1/lessons/{lesson_id}/progress", json={"position_s": 9, "watched": []}, headers=headers)
    passes = 0
    for wait in (10, 50, 20 * 60, 3600, 7 * 24 * 3600, 24 * 3600):
        api.clock.advance(timedelta(seconds=wait))
        passes += await api.run_due()
        assert await api.run_due() == 0
        assert await api.sql("SELECT count(*) FROM progress") == [(0,)]
    assert passes == len(PASSES_AFTER)
    # And for ever what is heard late, also of one of whom nothing was heard before.
    unheard = new_id()
    for late in (member_id, unheard):
        await api.handle(
            MemberErased(member_id=late),
            MemberRegistered(member_id=late, nickname="Ada", registered_at=clock.now()),
            membership(late, segment(clock.now(), 30), version=10),
            MemberChanged(member_id=late, nickname="Ada", tier="beginner"),
            MemberErased(member_id=late),
        )
        assert (await watch(api, lesson_id, late)).status_code == 403
    for table in ("access", "person", "progress"):
        assert await api.sql(f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608 - constants
    assert await api.sql("SELECT erased_id FROM erased_member ORDER BY erased_id") == [(unheard,), (None,)]
