"""Announcements: billing hears what a course is, of those of before, too; buyers see what they have; disputes close it."""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from contracts.billing import OrderDisputed, OrderPaid, OrderRefunded
from contracts.courses import CourseChanged
from kit import clock
from kit.ids import new_id
from kit.migrations import upgrade
from tests.harness import Api, Stores
from tests.services.courses.world import COURSE, add_course

HEADER = "course,category,level,access,amount,description,lesson,lesson_description,duration_s"


async def test_a_paid_course_is_told_with_its_price_and_again_when_that_changes(api: Api) -> None:
    admin = api.admin()
    body = COURSE | {"access": "paid", "amount": 9900}
    course = (await api.client.post("/v1/admin/courses", json=body, headers=admin)).json()
    path = f"/v1/admin/courses/{course['id']}"
    await api.client.patch(path, json={"amount": 8800}, headers=admin)
    await api.client.patch(path, json={"access": "free"}, headers=admin)
    refused = await api.client.patch(path, json={"access": "paid"}, headers=admin)
    assert refused.status_code == 422
    told = await api.emitted()
    assert [event.model_dump(exclude={"id", "at"}) for event in told] == [
        {
            "course_id": UUID(course["id"]),
            "version": version,
            "title": "戚风蛋糕",
            "access": access,
            "amount": amount,
            "currency": "CNY",
            "published": True,
        }
        for version, access, amount in ((1, "paid", 9900), (2, "paid", 8800), (3, "free", None))
    ]


async def test_an_import_tells_of_what_is_new_or_changed_and_a_dry_run_of_nothing(api: Api) -> None:
    async def send(amount: int, *, dry_run: bool = False) -> list[tuple[str, int, int | None]]:
        rows = [HEADER, f"千层,cake,beginner,paid,{amount},,一,,60", "司康,bread,beginner,free,,,一,,60"]
        answer = await api.client.post(
            "/v1/admin/courses/import",
            params={"dry_run": dry_run},
            files={"file": ("c.csv", "\n".join(rows).encode(), "text/csv")},
            headers=api.admin(),
        )
        assert answer.status_code == 201, answer.text
        told = await api.emitted()
        assert {type(event) for event in told} <= {CourseChanged}
        return sorted((event.title, event.version, event.amount) for event in told)  # type: ignore[attr-defined]

    assert await send(500, dry_run=True) == []
    assert await send(500) == [("千层", 1, 500), ("司康", 1, None)]
    assert await send(500) == []
    assert await send(700) == [("千层", 2, 700)]


async def test_courses_from_before_are_told_once_by_the_migration(stores: Stores) -> None:
    name = "courses_of_before"
    stores.postgres.ensure_database(name)
    url = stores.postgres.url(name)
    await upgrade("courses", url, "0002")
    engine = create_async_engine(url)
    ids = {title: new_id() for title in ("paid", "draft", "gone")}
    try:
        async with engine.begin() as connection:
            for title, course_id in ids.items():
                values = {"id": course_id, "title": title, "published": title != "draft", "now": clock.now()}
                deleted = ":now" if title == "gone" else "NULL"
                await connection.execute(
                    text(
                        "INSERT INTO course (id, title, description, category, level, access, amount, currency, published, "  # noqa: S608 - constants
                        "version, rating_count, rating_sum, rating_negative, rating_mean, created_at, updated_at, deleted_at) "
                        "VALUES (:id, :title, '', 'cake', 'beginner', 'paid', 100, 'CNY', :published, 7, 0, 0, 0, 0, "
                        f":now, :now, {deleted})"
                    ),
                    values,
                )
        await upgrade("courses", url)
        await upgrade("courses", url)
        async with engine.connect() as connection:
            rows = (await connection.execute(text("SELECT event_id, type, body::text AS body FROM outbox"))).all()
    finally:
        await engine.dispose()
    stores.postgres.drop_database(name)
    told = [CourseChanged.model_validate_json(row.body) for row in rows]
    assert [(event.id, "courses.course.changed") for event in told] == [(row.event_id, row.type) for row in rows]
    assert {event.course_id: (event.version, event.title, event.amount, event.published) for event in told} == {
        ids[title]: (7, title, 100, title == "paid") for title in ids
    }
    assert all(json.loads(row.body)["access"] == "paid" for row in rows)


def bought(member_id: UUID, course_id: str, order_id: UUID) -> OrderPaid:
    return OrderPaid(
        order_id=order_id,
        number="HK1",
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


async def test_a_course_says_whether_the_caller_has_bought_it(api: Api) -> None:
    course, member_id = await add_course(api, access="paid", amount=9900), new_id()
    path = f"/v1/courses/{course['id']}"

    async def told(headers: dict[str, str]) -> tuple[Any, str]:
        answer = await api.client.get(path, headers=headers)
        assert answer.status_code == 200
        return answer.json()["bought"], answer.headers["cache-control"]

    assert await told({}) == (None, "public, max-age=10")
    assert await told(api.member(member_id)) == (False, "private, no-store")
    await api.handle(bought(member_id, course["id"], new_id()))
    assert await told(api.member(member_id)) == (True, "private, no-store")
    assert await told(api.member()) == (False, "private, no-store")
    free = await add_course(api)
    assert (await api.client.get(f"/v1/courses/{free['id']}", headers=api.member(member_id))).json()["bought"] is None


async def test_a_buyer_keeps_a_course_that_is_not_sold_or_shown_any_more(api: Api) -> None:
    course, member_id = await add_course(api, access="paid", amount=9900), new_id()
    await api.handle(bought(member_id, course["id"], new_id()))
    path, lesson = f"/v1/courses/{course['id']}", f"/v1/lessons/{course['lessons'][0]['id']}"

    async def statuses() -> list[int]:
        """Of the course and its lesson: for the buyer, for another member, for nobody."""
        return [
            (await api.client.get(place, headers=headers)).status_code
            for headers in (api.member(member_id), api.member(), {})
            for place in (path, lesson)
        ]

    changes: list[tuple[dict[str, Any], list[int]]] = [
        ({"published": False}, [200, 200, 404, 404, 404, 404]),
        ({"published": True, "access": "member"}, [200, 200, 200, 403, 200, 403]),
        ({"published": True, "access": "free"}, [200, 200, 200, 200, 200, 200]),
    ]
    for change, expected in changes:
        changed = await api.client.patch(f"/v1/admin{path[3:]}", json=change, headers=api.admin())
        assert changed.status_code == 200, changed.text
        assert await statuses() == expected
    refused = await api.client.delete(f"/v1/admin{path[3:]}", headers=api.admin())
    assert (refused.status_code, refused.json()["code"]) == (409, "course_sold")
    assert await statuses() == [200] * 6


@pytest.mark.parametrize(
    ("outcomes", "statuses"),
    [
        (("opened",), [403]),
        (("opened", "won"), [403, 200]),
        (("opened", "lost"), [403, 403]),
    ],
)
async def test_a_disputed_course_is_closed_until_the_dispute_is_won(
    api: Api, outcomes: tuple[str, ...], statuses: list[int]
) -> None:
    course, member_id, order_id = await add_course(api, access="paid", amount=9900), new_id(), new_id()
    await api.handle(bought(member_id, course["id"], order_id))
    events = [
        OrderDisputed.model_validate(
            {
                "at": clock.now() + timedelta(seconds=number),
                "order_id": order_id,
                "member_id": member_id,
                "kind": "course",
                "outcome": outcome,
                "amount": 9900,
                "currency": "CNY",
                "removes_time": True,
                "disputed_at": clock.now(),
            }
        )
        for number, outcome in enumerate(outcomes)
    ]
    path = f"/v1/lessons/{course['lessons'][0]['id']}"
    seen = []
    for event in events:
        await api.handle(event, event)
        seen.append((await api.client.get(path, headers=api.member(member_id))).status_code)
    assert seen == statuses
    # An earlier word that comes late changes nothing.
    await api.handle(*(event.model_copy(update={"id": new_id()}) for event in events))
    assert (await api.client.get(path, headers=api.member(member_id))).status_code == statuses[-1]


async def test_a_dispute_of_a_membership_and_one_heard_before_its_payment_do_no_harm(api: Api) -> None:
    course, member_id, order_id = await add_course(api, access="paid", amount=9900), new_id(), new_id()
    path = f"/v1/lessons/{course['lessons'][0]['id']}"
    fields: dict[str, Any] = {
        "order_id": order_id,
        "member_id": member_id,
        "amount": 9900,
        "currency": "CNY",
        "removes_time": True,
    }
    await api.handle(OrderDisputed(**fields, kind="membership", outcome="opened", disputed_at=clock.now()))
    assert await api.sql("SELECT 1 FROM purchase") == []
    await api.handle(OrderDisputed(**fields, kind="course", outcome="opened", disputed_at=clock.now()))
    await api.handle(bought(member_id, course["id"], order_id))
    assert (await api.client.get(path, headers=api.member(member_id))).status_code == 403
    won = OrderDisputed(**fields, kind="course", outcome="won", disputed_at=clock.now())
    await api.handle(won)
    assert (await api.client.get(path, headers=api.member(member_id))).status_code == 200
    refund = OrderRefunded(
        order_id=order_id,
        refund_id=new_id(),
        member_id=member_id,
        amount=9900,
        currency="CNY",
        full=True,
        removes_time=True,
        refunded_at=clock.now(),
        kind="course",
    )
    await api.handle(refund)
    assert (await api.client.get(path, headers=api.member(member_id))).status_code == 403
