"""Lesson works: a lesson's page shows what was made from it, whatever order the news comes in."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from contracts.courses import WorkFiled
from contracts.members import MemberErased, MemberMerged, MemberRegistered
from contracts.showcase import EntryChanged, EntryFeatured, EntryPlaced
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.courses.world import add_course


def changed(lesson_id: str, member_id: UUID, entry_id: UUID | None = None, **fields: Any) -> EntryChanged:
    usual: dict[str, Any] = {
        "entry_id": entry_id or new_id(),
        "contest_id": new_id(),
        "member_id": member_id,
        "lesson_id": lesson_id,
        "title": "第一次的戚风",
        "thumbnail_url": "http://127.0.0.1:8000/v1/uploads/files/x-medium.jpg",
        "on_show": True,
    }
    return EntryChanged(**usual | fields)


async def works(api: Api, lesson_id: str, **params: Any) -> Any:
    answer = await api.client.get(f"/v1/lessons/{lesson_id}/works", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_lesson_shows_the_works_made_from_it_the_honoured_ones_first(api: Api) -> None:
    lesson = (await add_course(api, 100))["lessons"][0]["id"]
    baker = new_id()
    await api.handle(MemberRegistered(member_id=baker, nickname="小麦", registered_at=clock.now()))
    entries = [new_id() for _ in range(8)]
    # Of the first, the honours are heard before the work itself.
    fact: dict[str, Any] = {"entry_id": entries[0], "member_id": baker}
    await api.handle(
        EntryFeatured(**fact, feature_id=new_id(), featured_at=clock.now()),
        EntryPlaced(**{**fact, "entry_id": entries[1]}, contest_id=new_id(), rank=3, settled_at=clock.now()),
    )
    assert (await works(api, lesson))["items"] == []
    for entry in entries:
        event = changed(lesson, baker, entry)
        await api.handle(event, event)
    await api.handle(changed(str(new_id()), baker))

    page = (await api.client.get(f"/v1/lessons/{lesson}")).json()["works"]

    assert [work["entry_id"] for work in page] == [str(entry) for entry in (*entries[:2], *entries[:3:-1])]
    assert (page[0]["featured"], page[0]["rank"], page[1]["featured"], page[1]["rank"]) == (True, None, False, 3)
    assert page[0]["member"] == {"id": str(baker), "nickname": "小麦"}
    assert page[0]["thumbnail_url"].endswith("x-medium.jpg")
    assert page[0]["shown_at"].endswith("Z")
    first = await works(api, lesson, limit=5)
    rest = await works(api, lesson, limit=5, cursor=first["next_cursor"])
    assert [item["entry_id"] for item in first["items"] + rest["items"]] == [str(entry) for entry in entries[::-1]]
    assert rest["next_cursor"] is None
    unknown = await api.client.get(f"/v1/lessons/{new_id()}/works")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "lesson_not_found")


async def test_a_work_that_leaves_is_gone_even_if_older_news_comes_later(api: Api) -> None:
    lesson = (await add_course(api, 100))["lessons"][0]["id"]
    baker, other = new_id(), new_id()
    came = changed(lesson, baker)
    left = changed(lesson, baker, came.entry_id, on_show=False, title="", at=came.at + timedelta(seconds=1))
    await api.handle(left, came)
    assert (await works(api, lesson))["items"] == []
    again = changed(lesson, baker, came.entry_id, title="又来了", at=came.at + timedelta(seconds=2))
    await api.handle(again)
    assert [item["title"] for item in (await works(api, lesson))["items"]] == ["又来了"]
    # Merged accounts and who leaves for good.
    await api.handle(MemberMerged(kept_id=other, merged_id=baker))
    assert [item["member"]["id"] for item in (await works(api, lesson))["items"]] == [str(other)]
    await api.handle(MemberErased(member_id=other))
    assert (await works(api, lesson))["items"] == []


async def test_the_category_of_a_work_is_told_when_it_comes_on_show(api: Api) -> None:
    course = await add_course(api, 100, category="bread")
    lesson, baker = course["lessons"][0]["id"], new_id()
    await api.emitted()
    await api.client.delete(f"/v1/admin/lessons/{lesson}", headers=api.admin())
    event = changed(lesson, baker)
    later = {"at": event.at + timedelta(seconds=1), "id": new_id(), "on_show": False}
    await api.handle(event, event, event.model_copy(update=later), changed(str(new_id()), baker))
    [told] = [fact for fact in await api.emitted() if isinstance(fact, WorkFiled)]
    fact = {"entry_id": event.entry_id, "member_id": baker, "lesson_id": UUID(lesson), "category": "bread"}
    assert told.model_dump(exclude={"id", "at"}) == fact
