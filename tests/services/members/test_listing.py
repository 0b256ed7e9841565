"""The member list as CSV, and the plans by which members are found among very many."""

import csv
import io
from typing import Any

import pytest
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement, Executable
from sqlmodel import col

from kit.vault import open_vault
from services.members import listing
from services.members.finding import MemberFilter
from services.members.models import Member
from tests.harness import Api
from tests.services.members.steps import a_member
from tests.services.members.test_directory import change, three_members


async def download(api: Api, **params: Any) -> list[dict[str, str]]:
    answer = await api.client.get("/v1/admin/members.csv", params=params, headers=api.admin("members:read"))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith('attachment; filename="members-')
    assert answer.text.startswith(listing.BOM)
    return list(csv.DictReader(io.StringIO(answer.text.removeprefix(listing.BOM), newline="")))


async def test_the_list_holds_everybody_who_meets_the_filters(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PORTION", 2)
    ada, bo, cy = await three_members(api)
    rows = await download(api)
    assert [row["id"] for row in rows] == [cy, bo, ada]
    assert {name: rows[1][name] for name in ("nickname", "phone", "tier", "roles", "labels", "frozen")} == {
        "nickname": "Bo_面包",
        "phone": "+8613800138001",
        "tier": "expert",
        "roles": "organizer",
        "labels": "vip;north",
        "frozen": "false",
    }
    assert [row["membership"] for row in rows] == ["none", "expired", "active"]
    assert [row["ends_at"].endswith("Z") for row in rows] == [False, True, True]
    assert [row["id"] for row in await download(api, label="vip")] == [bo]
    assert [row["id"] for row in await download(api, membership="active")] == [ada]
    assert await download(api, q="nobody") == []


async def test_a_nickname_is_no_formula(api: Api) -> None:
    member_id, headers = await a_member(api)
    await api.client.patch("/v1/me", json={"nickname": '=HYPERLINK("x")'}, headers=headers)
    await change(api, member_id, labels=["+1", 'a "b", c'])
    [row] = await download(api)
    assert (row["nickname"], row["labels"]) == ('\'=HYPERLINK("x")', '\'+1;a "b", c')


async def test_a_download_is_for_readers_and_noted(api: Api) -> None:
    assert (await api.client.get("/v1/admin/members.csv", headers=api.admin("plans:read"))).status_code == 403
    assert (await api.client.get("/v1/admin/members.csv")).status_code == 401
    await download(api, tier="expert")
    [noted] = (await api.client.get("/v1/admin/audit", headers=api.admin())).json()["items"]
    assert (noted["action"], noted["after"]) == ("members.exported", {"tier": "expert"})


class Explain(Executable, ClauseElement):
    """PostgreSQL's plan of a statement, as rows of text."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(Explain)
def _explained(element: Explain, compiler: Any, **options: Any) -> str:
    return "EXPLAIN " + str(compiler.process(element.statement, **options))


MANY = """
INSERT INTO member (id, nickname, tier, roles, labels, frozen, note, version, created_at)
SELECT gen_random_uuid(), '烘焙友' || n || md5(n::text), CASE WHEN n % 997 = 0 THEN 'instructor' ELSE 'potential' END,
    CASE WHEN n % 991 = 0 THEN '{organizer}'::text[] ELSE '{}' END,
    CASE WHEN n % 983 = 0 THEN '{vip}'::text[] ELSE '{}' END, false, '', 1, now() - n * interval '1 second'
FROM generate_series(1, 30000) n
"""
BOUGHT = """
INSERT INTO segment (id, member_id, source, source_id, plan_code, months, days, added_at, starts_at, ends_at)
SELECT gen_random_uuid(), id, 'comp', gen_random_uuid(), 'black-card-1m', 1, 0, created_at, now() - age, now() - age + interval '30 days'
FROM (SELECT *, CASE WHEN row_number() OVER () % 100 = 0 THEN interval '1 day' ELSE interval '90 days' END AS age
    FROM (SELECT * FROM member ORDER BY id LIMIT 10000) m) n
"""


class Explaining:
    """A session that keeps the plan of everything it is asked."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.plans: list[str] = []

    async def execute(self, statement: Any) -> Any:
        self.plans += (await self.session.execute(Explain(statement))).scalars()
        return await self.session.execute(statement)


SEARCHES: list[tuple[dict[str, Any], str]] = [
    ({"q": "c4ca4238"}, "member_nickname_trgm_idx"),
    ({"q": "13800138999"}, "member_nickname_trgm_idx"),
    ({"q": "01990d3f-6c9e-7cc5-8f0e-1f6a3e1b2c3d"}, "member_pkey"),
    ({"tier": "instructor"}, "member_tier_idx"),
    ({"role": "organizer"}, "member_roles_idx"),
    ({"label": "vip"}, "member_labels_idx"),
    ({"label": "nobody has it"}, "member_labels_idx"),
    ({"q": "无人"}, "member_nickname_grams_idx"),
    ({"q": "猫"}, "member_nickname_grams_idx"),
    ({"membership": "active"}, "segment_ends_at_idx"),
    ({}, "member_created_at_id_idx"),
]


async def test_every_search_uses_an_index(api: Api) -> None:
    await api.sql(MANY)
    await api.sql(BOUGHT)
    # As autovacuum leaves them: rows still in an index' waiting list make it look dear.
    for name in ("nickname_trgm", "nickname_grams", "labels", "roles"):
        await api.sql(f"SELECT gin_clean_pending_list('member_{name}_idx')")
    await api.sql("ANALYZE member, segment")
    for params, index in SEARCHES:
        async with api.rt.db.session() as session:
            explaining: Any = Explaining(session)
            statement = await MemberFilter(**params).apply(explaining, open_vault(api.rt.settings.key), select(Member))
            newest = statement.order_by(col(Member.created_at).desc(), col(Member.id).desc()).limit(21)
            await explaining.execute(newest)
        plan = "\n".join(explaining.plans)
        assert index in plan, (params, plan)
        assert "Seq Scan on member" not in plan, (params, plan)
