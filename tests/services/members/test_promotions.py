"""Tiers and roles by evidence: what proves which, what an admin changed, and the history of it."""

from typing import Any
from uuid import UUID

from contracts.courses import LessonCompleted, WorkFiled
from contracts.members import MemberChanged
from contracts.showcase import EntryPlaced
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.members.steps import a_member
from tests.services.members.test_evidence import approved, finished
from tests.services.members.test_merging import a_wechat_member, bind


def lessons(member_id: UUID, count: int, category: str | None = "cake") -> list[LessonCompleted]:
    return [finished(member_id, category=category) for _ in range(count)]


def placed(member_id: UUID, rank: int) -> EntryPlaced:
    return EntryPlaced(entry_id=new_id(), contest_id=new_id(), member_id=member_id, rank=rank, settled_at=clock.now())


async def shown(api: Api, member_id: UUID) -> Any:
    return (await api.client.get(f"/v1/admin/members/{member_id}", headers=api.admin())).json()


async def history(api: Api, member_id: UUID) -> list[tuple[str, str, str]]:
    path = f"/v1/admin/members/{member_id}/tier-changes"
    items = (await api.client.get(path, headers=api.admin())).json()["items"]
    return [(item["before"], item["after"], item["cause"]) for item in items]


async def test_ten_lessons_and_three_works_of_one_category_make_an_enthusiast(api: Api) -> None:
    member_id, _ = await a_member(api)
    learned = lessons(member_id, 9)
    other = lessons(member_id, 5, "bread")
    works = [approved(member_id).model_copy(update={"lesson_id": learned[0].lesson_id}) for _ in range(3)]
    await api.handle(*learned, *other, *works)
    assert (await shown(api, member_id))["tier"] == "beginner"
    await api.emitted()
    await api.handle(*lessons(member_id, 1))
    [_, told] = await api.emitted()
    assert isinstance(told, MemberChanged)
    assert told.tier == "enthusiast"
    assert (await shown(api, member_id))["evidence"] == {"lesson_finished": 15, "work_approved": 3}
    assert await history(api, member_id) == [
        ("beginner", "enthusiast", "evidence"),
        ("potential", "beginner", "evidence"),
    ]


async def test_a_work_counts_in_its_category_though_nobody_finished_that_lesson(api: Api) -> None:
    def filed(lesson_id: UUID) -> WorkFiled:
        return WorkFiled(entry_id=new_id(), member_id=member_id, lesson_id=lesson_id, category="cake")

    member_id, _ = await a_member(api)
    untaught = [new_id() for _ in range(3)]
    works = [approved(member_id).model_copy(update={"lesson_id": lesson}) for lesson in untaught]
    await api.handle(*lessons(member_id, 10), filed(untaught[0]), *works, filed(untaught[1]))
    assert (await shown(api, member_id))["tier"] == "beginner"
    last = filed(untaught[2])
    await api.handle(last, last, last.model_copy(update={"id": new_id(), "member_id": new_id()}))
    body = await shown(api, member_id)
    assert (body["tier"], body["points"]) == ("enthusiast", 10 * 5 + 3 * 10)


async def test_works_of_another_category_do_not_count(api: Api) -> None:
    member_id, _ = await a_member(api)
    bread = finished(member_id, category="bread")
    works = [approved(member_id).model_copy(update={"lesson_id": bread.lesson_id}) for _ in range(3)]
    await api.handle(*lessons(member_id, 10), bread, *works, approved(member_id))
    assert (await shown(api, member_id))["tier"] == "beginner"


async def test_an_expert_has_thirty_lessons_ten_works_and_a_top_place(api: Api) -> None:
    member_id, _ = await a_member(api)
    await api.handle(*lessons(member_id, 30, None), *(approved(member_id) for _ in range(10)))
    await api.handle(placed(member_id, 11))
    assert (await shown(api, member_id))["tier"] == "beginner"
    place = placed(member_id, 10)
    await api.handle(place, place.model_copy(update={"id": new_id()}))
    body = await shown(api, member_id)
    assert (body["tier"], body["evidence"]["top_place"]) == ("expert", 1)
    assert body["points"] == 30 * 5 + 10 * 10


async def test_what_an_admin_lowered_rises_only_by_more_evidence(api: Api) -> None:
    member_id, _ = await a_member(api)
    await api.handle(finished(member_id))
    await api.client.patch(f"/v1/admin/members/{member_id}", json={"tier": "potential"}, headers=api.admin())
    await api.handle(finished(member_id))
    assert (await shown(api, member_id))["tier"] == "potential"
    learned = lessons(member_id, 10)
    works = [approved(member_id).model_copy(update={"lesson_id": learned[0].lesson_id}) for _ in range(3)]
    await api.handle(*learned, *works)
    assert (await shown(api, member_id))["tier"] == "enthusiast"
    assert [cause for *_, cause in await history(api, member_id)] == ["evidence", "admin", "evidence"]


async def test_the_evidence_of_both_accounts_counts_together(api: Api) -> None:
    kept_id, _ = await a_member(api)
    merged_id, merged = await a_wechat_member(api)
    mine, theirs = lessons(kept_id, 6), lessons(merged_id, 4)
    works = [approved(merged_id).model_copy(update={"lesson_id": theirs[0].lesson_id}) for _ in range(3)]
    both = finished(merged_id, lesson_id=mine[0].lesson_id, category="cake")
    await api.handle(*mine, *theirs, *works, both)
    assert (await bind(api, merged)).status_code == 200
    body = await shown(api, kept_id)
    assert (body["tier"], body["evidence"]) == ("enthusiast", {"lesson_finished": 10, "work_approved": 3})
    assert (await history(api, kept_id))[0] == ("beginner", "enthusiast", "merge")


async def test_an_erased_member_leaves_no_evidence(api: Api) -> None:
    member_id, headers = await a_member(api)
    await api.handle(finished(member_id))
    await api.client.delete("/v1/me", headers=headers)
    for table in ("evidence", "tier_change"):
        assert await api.sql(f"SELECT 1 FROM {table}") == []  # noqa: S608 - two names of ours
