"""Privacy: what each service tells its members of themselves, and what is left after they are forgotten."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy
from sqlalchemy.dialects import postgresql

from contracts.members import MemberErased, MemberRegistered
from kit import clock
from kit.export import PATH, rows_about
from kit.ids import new_id
from kit.text import dump_json
from services.billing.app import service as billing
from services.courses.app import service as courses
from services.referrals.app import service as referrals
from services.showcase.app import service as showcase
from tests.harness import Api, Run
from tests.services.courses.world import membership, segment

DIALECT: Any = postgresql.dialect()  # type: ignore[no-untyped-call]
KEYS = ("a coupon key of thirty-two letters or more",)


async def export(api: Api, member_id: UUID) -> dict[str, list[dict[str, Any]]]:
    answer = await api.client.get(PATH, headers=api.member(member_id))
    assert answer.status_code == 200, answer.text
    return {table: rows for table, rows in answer.json().items() if rows}


async def insert(api: Api, table: str, **values: Any) -> UUID:
    row_id = values.setdefault("id", new_id())
    names = ", ".join(values)
    await api.sql(
        f'INSERT INTO "{table}" ({names}) VALUES ({", ".join(f":{name}" for name in values)})',  # noqa: S608
        **values,
    )
    return UUID(str(row_id))


async def erase(api: Api, member_id: UUID) -> None:
    """Heard twice, and once more by another event: nothing more happens."""
    event = MemberErased(member_id=member_id)
    await api.handle(event, event, MemberErased(member_id=member_id))


async def test_a_part_is_only_its_owner_s(run: Run) -> None:
    async with run(showcase) as api:
        assert (await api.client.get(PATH)).status_code == 401
        assert (await api.client.get(PATH, headers=api.admin())).status_code == 403
        assert await export(api, new_id()) == {}


async def test_billing_tells_orders_and_keeps_their_amounts(run: Run) -> None:
    async with run(billing, seed=True, coupon_keys=KEYS) as api:
        mine, other = new_id(), new_id()
        for member_id in (mine, other):
            body = {"plan_code": "black-card-1m", "payment_method": "card"}
            headers = api.member(member_id) | {"Idempotency-Key": str(new_id())}
            assert (await api.client.post("/v1/orders", json=body, headers=headers)).status_code == 201
        [order] = (await export(api, mine))["order"]
        assert (order["member_id"], order["total"]) == (str(mine), 1990)
        await insert(
            api,
            "payment",
            order_id=UUID(order["id"]),
            provider_ref="p",
            amount=1990,
            currency="CNY",
            method="card",
            fingerprint="card of mine",
            status="parked",
            reason="late",
            received_at=clock.now(),
        )
        held = await export(api, mine)
        assert held.keys() == {"order", "payment"}
        assert held["payment"][0]["fingerprint"] == "card of mine"
        assert "payment" not in await export(api, other)
        await erase(api, mine)
        held = await export(api, mine)
        assert (held["payment"][0]["fingerprint"], held["payment"][0]["amount"]) == (None, 1990)
        assert (held["order"][0]["total"], held["order"][0]["address_prefix"]) == (1990, None)


SAMPLES = {
    "BIGINT": "1",
    "BOOLEAN": "true",
    "BYTEA": "'\\x00ff'",
    "DATE": "'2028-02-29'",
    "FLOAT": "1.5",
    "INTEGER": "1",
    "SMALLINT": "1",
    "INT4MULTIRANGE": "'{[0,30),[40,50)}'",
    "JSONB": """'{"a": [1]}'""",
    "TEXT": "'x'",
    "TIMESTAMP WITH TIME ZONE": "'2028-02-29T00:00:00Z'",
    "TSTZMULTIRANGE": "'{[2028-01-01T00:00:00Z,2028-02-01T00:00:00Z),[2028-03-01T00:00:00Z,)}'",
    "UUID": "'01990d3f-6c00-7000-8000-00000000cafe'",
    "VARCHAR": "'x'",
    "VARCHAR[]": "'{x,y}'",
}
"""What a column of each type may hold."""
TOLD = {
    "BYTEA": "00ff",
    "INT4MULTIRANGE": [[0, 30], [40, 50]],
    "TSTZMULTIRANGE": [["2028-01-01T00:00:00Z", "2028-02-01T00:00:00Z"], ["2028-03-01T00:00:00Z", None]],
}


async def test_whatever_a_column_holds_can_be_told(run: Run) -> None:
    types: set[str] = set()
    for service in (billing, courses, referrals, showcase):
        for name, table in service.metadata.tables.items():
            if "member_id" in table.c or name in service.personal:
                types |= {column.type.compile(dialect=DIALECT) for column in table.c}
    assert types <= SAMPLES.keys()
    async with run(showcase) as api:
        held = [f"CAST({SAMPLES[kind]} AS {kind}) AS c{number}" for number, kind in enumerate(SAMPLES)]
        await api.sql(f"CREATE TABLE sample AS SELECT gen_random_uuid() AS member_id, {', '.join(held)}")
        columns = [sqlalchemy.Column(f"c{number}", sqlalchemy.Text) for number in range(len(SAMPLES))]
        tables = sqlalchemy.MetaData()
        sqlalchemy.Table("sample", tables, *columns)
        async with api.rt.db.session() as session:
            found = await rows_about(session, tables, new_id(), {"sample": "member_id <> :member_id"})
        [row] = orjson.loads(dump_json(found))["sample"]
        told = dict(zip(SAMPLES, row.values(), strict=True))
        assert {kind: told[kind] for kind in TOLD} == TOLD


async def test_courses_tells_what_was_watched_and_until_when(run: Run) -> None:
    async with run(courses, seed=True) as api:
        member_id, [[lesson_id]] = new_id(), await api.sql("SELECT lesson.id FROM lesson LIMIT 1")
        await api.handle(membership(member_id, segment(clock.now(), 30)))
        watched = {"position_s": 20, "watched": [[0, 10], [15, 20]]}
        headers = api.member(member_id)
        answer = await api.client.put(f"/v1/lessons/{lesson_id}/progress", json=watched, headers=headers)
        assert answer.status_code == 200, answer.text
        held = await export(api, member_id)
        assert held["progress"][0]["watched"] == [[0, 10], [15, 20]]
        assert len(held["access"][0]["member_lessons"]) == 1


async def test_courses_forgets_what_was_learned(run: Run) -> None:
    async with run(courses, seed=True) as api:
        member_id, [[lesson_id]] = new_id(), await api.sql("SELECT id FROM lesson LIMIT 1")
        await api.sql(
            "INSERT INTO completion (member_id, lesson_id, completed_at) VALUES (:member, :lesson, :now)",
            member=member_id,
            lesson=lesson_id,
            now=clock.now(),
        )
        assert [row["lesson_id"] for row in (await export(api, member_id))["completion"]] == [str(lesson_id)]
        await erase(api, member_id)
        assert await export(api, member_id) == {}


async def test_courses_forgets_who_taught(run: Run) -> None:
    async with run(courses) as api:
        member_id, now = new_id(), clock.now()
        body = {"title": "可颂", "starts_at": now + timedelta(days=1), "ends_at": now + timedelta(days=1, hours=1)}
        body = {name: str(value) for name, value in body.items()} | {"access": [{"kind": "free"}]}
        taught = body | {"instructor": "王老师", "instructor_id": str(member_id)}
        answer = await api.client.post("/v1/admin/live-lessons", json=taught, headers=api.admin())
        assert answer.status_code == 201, answer.text
        assert [row["instructor"] for row in (await export(api, member_id))["live_lesson"]] == ["王老师"]
        await erase(api, member_id)
        assert await export(api, member_id) == {}
        [[instructor, instructor_id]] = await api.sql("SELECT instructor, instructor_id FROM live_lesson")
        assert (instructor, instructor_id) == ("已注销用户", None)


async def test_referrals_forgets_phone_devices_and_touches_but_no_other_member_s(run: Run) -> None:
    async with run(referrals, seed=True, coupon_keys=KEYS, limits_mode="relaxed") as api:
        mine, other = new_id(), new_id()
        for visitor in ("my phone", "the family's tablet"):
            body = {"visitor_id": visitor, "channel": "weibo"}
            await api.client.post("/v1/touches", json=body)
        for member_id, visitor in ((mine, "my phone"), (other, "the family's tablet"), (mine, "the family's tablet")):
            await api.handle(
                MemberRegistered(
                    member_id=member_id,
                    nickname="Ada",
                    registered_at=clock.now(),
                    phone_hash=f"hash of {member_id}",
                    visitor_id=visitor,
                    address_prefix="prefix",
                )
            )
        held = await export(api, mine)
        assert held["member_card"][0]["phone_hash"] == f"hash of {mine}"
        assert {row["visitor_id"] for row in held["device"]} == {"my phone", "the family's tablet"}
        await erase(api, mine)
        held = await export(api, mine)
        [card] = held["member_card"]
        assert (card["nickname"], card["phone_hash"], card["visitor_id"]) == ("已注销会员", None, None)
        assert card["address_prefix"] is None
        assert "device" not in held
        assert [row["visitor_id"] for row in held.get("touch", [])] == [None] * len(held.get("touch", []))
        assert await api.sql("SELECT 1 FROM touch WHERE visitor_id = 'my phone'") == []
        assert [row["visitor_id"] for row in (await export(api, other))["device"]] == ["the family's tablet"]


async def test_showcase_forgets_stories_and_comments_and_keeps_works(run: Run) -> None:
    async with run(showcase) as api:
        mine, other, now = new_id(), new_id(), clock.now()
        await api.handle(MemberRegistered(member_id=mine, nickname="Ada", registered_at=now))
        body = {"title": "x", "starts_at": now.isoformat(), "ends_at": (now + timedelta(days=1)).isoformat()}
        contest = (await api.client.post("/v1/admin/contests", json=body, headers=api.admin())).json()["id"]
        entries = [
            await insert(
                api,
                "entry",
                contest_id=UUID(contest),
                member_id=member_id,
                title="蛋糕",
                story="我家的厨房",
                status="approved",
                submitted_at=now,
            )
            for member_id in (mine, other)
        ]
        for member_id in (mine, other):
            await insert(api, "comment", entry_id=entries[1], member_id=member_id, text="好看", created_at=now)
        held = await export(api, mine)
        assert held.keys() == {"member_card", "entry", "comment"}
        assert (held["entry"][0]["story"], held["comment"][0]["text"]) == ("我家的厨房", "好看")
        await erase(api, mine)
        held = await export(api, mine)
        assert held.keys() == {"member_card", "entry"}
        assert (held["member_card"][0]["nickname"], held["entry"][0]["story"]) == ("", "")
        assert held["entry"][0]["title"] == "蛋糕"
        assert (await export(api, other)).keys() == {"entry", "comment"}
