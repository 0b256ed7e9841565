"""Entries: works come in with their own pictures, are shown when approved, and are told of once."""

import asyncio
from datetime import timedelta
from typing import Any

from PIL.PngImagePlugin import PngInfo

from contracts.members import MemberChanged, MemberErased
from contracts.showcase import CommentPosted, EntryApproved, EntryChanged
from kit import clock
from kit.ids import new_id
from tests.services.showcase.conftest import picture


async def test_a_work_is_shown_with_its_author_pictures_and_votes(showcase: Any, api: Any, author: Any) -> None:
    await showcase.registered(author, "小麦")
    contest = await showcase.contest()
    first = (await showcase.upload(api.member(author))).json()
    second = (await showcase.upload(api.member(author))).json()
    lesson = str(new_id())
    answer = await showcase.client.post(
        f"/v1/contests/{contest}/entries",
        json={
            "title": " 草莓蛋糕 ",
            "story": "第一次做。",
            "upload_ids": [second["id"], first["id"]],
            "lesson_id": lesson,
        },
        headers=api.member(author),
    )
    assert answer.status_code == 201
    entry = answer.json()
    assert entry == {
        "id": entry["id"],
        "contest_id": contest,
        "member": {"id": str(author), "nickname": "小麦"},
        "title": "草莓蛋糕",
        "story": "第一次做。",
        "images": [{k: image[k] for k in ("url", "width", "height", "thumbnails")} for image in (second, first)],
        "lesson_id": lesson,
        "status": "approved",
        "reason": None,
        "votes": 0,
        "submitted_at": entry["submitted_at"],
    }
    await showcase.vote(entry["id"])
    assert (await showcase.client.get(f"/v1/entries/{entry['id']}")).json() == entry | {"votes": 1}
    told, shown = await api.emitted()
    assert isinstance(told, EntryApproved)
    assert (str(told.entry_id), told.member_id, str(told.lesson_id)) == (entry["id"], author, lesson)
    assert isinstance(shown, EntryChanged)
    assert (shown.on_show, shown.thumbnail_url) == (True, entry["images"][0]["thumbnails"]["medium"])
    assert (await showcase.client.get(f"/v1/contests/{contest}")).json()["entries"] == 1


async def test_text_that_is_too_long_or_no_pictures_are_refused(showcase: Any, api: Any) -> None:
    contest, member = await showcase.contest(), api.member()
    refusals: list[dict[str, Any]] = [
        {"title": "好" * 81},
        {"title": "  "},
        {"story": "好" * 5001},
        {"upload_ids": []},
        {"upload_ids": [str(new_id())] * 10},
        {"upload_ids": ["x"]},
        {"title": "a\u0000b"},
    ]
    for changes in refusals:
        refused = await showcase.enter(contest, member, **changes)
        assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed"), changes
    assert await api.sql("SELECT 1 FROM entry") == []


async def test_somebody_elses_picture_is_unknown(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    others = (await showcase.upload(api.member())).json()["id"]
    for upload in (others, str(new_id())):
        refused = await showcase.enter(contest, api.member(), upload_ids=[upload])
        assert (refused.status_code, refused.json()["code"]) == (422, "upload_unknown")
        assert refused.json()["errors"][0]["loc"] == ["body", "upload_ids"]
        assert refused.json()["upload_ids"] == [upload]
    assert await api.sql("SELECT 1 FROM entry") == []
    assert await api.emitted() == []


async def test_a_picture_stands_once_in_a_contest_until_its_work_is_withdrawn(showcase: Any, api: Any) -> None:
    contest, member = await showcase.contest(), api.member()
    upload = (await showcase.upload(member)).json()["id"]
    twice = await showcase.enter(contest, member, upload_ids=[upload, upload])
    assert (twice.status_code, twice.json()["code"]) == (409, "upload_used")
    answers = await asyncio.gather(*(showcase.enter(contest, member, upload_ids=[upload]) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert len(await api.sql("SELECT 1 FROM entry")) == 1
    assert (await showcase.enter(await showcase.contest(), member, upload_ids=[upload])).status_code == 201
    entry = next(answer.json()["id"] for answer in answers if answer.status_code == 201)
    assert (await showcase.client.delete(f"/v1/entries/{entry}", headers=member)).status_code == 204
    assert (await showcase.enter(contest, member, upload_ids=[upload])).status_code == 201


async def test_works_come_in_only_while_the_contest_is_open(showcase: Any, api: Any) -> None:
    starts_at, ends_at = clock.now() + timedelta(hours=1), clock.now() + timedelta(days=1)
    contest = await showcase.contest(starts_at=starts_at, ends_at=ends_at)
    early = await showcase.enter(contest, api.member())
    assert (early.status_code, early.json()["code"]) == (409, "contest_closed")
    api.clock.set(starts_at)
    assert (await showcase.enter(contest, api.member())).status_code == 201
    api.clock.set(ends_at)
    late = await showcase.enter(contest, api.member())
    assert (late.status_code, late.json()["code"]) == (409, "contest_closed")
    unknown = await showcase.enter(str(new_id()), api.member())
    assert (unknown.status_code, unknown.json()["code"]) == (404, "contest_not_found")


async def test_a_withdrawn_work_is_there_for_its_author_only(showcase: Any, api: Any, author: Any) -> None:
    contest = await showcase.contest()
    entry = await showcase.entry(contest, api.member(author))
    url = f"/v1/entries/{entry}"
    other = await showcase.client.delete(url, headers=api.member())
    assert (other.status_code, other.json()["code"]) == (403, "not_your_entry")
    assert (await showcase.client.delete(url)).status_code == 401
    for _ in range(2):
        assert (await showcase.client.delete(url, headers=api.member(author))).status_code == 204
    assert (await showcase.client.get(url)).status_code == 404
    assert (await showcase.client.get(url, headers=api.member())).status_code == 404
    assert (await showcase.client.delete(url, headers=api.member())).status_code == 404
    assert (await showcase.vote(entry)).status_code == 404
    own = await showcase.client.get(url, headers=api.member(author))
    assert (own.status_code, own.json()["status"]) == (200, "withdrawn")
    assert (await showcase.client.get(f"/v1/contests/{contest}/entries")).json()["items"] == []
    assert (await showcase.client.get(f"/v1/contests/{contest}/leaderboard")).json()["items"] == []


async def test_a_moderated_work_waits_and_its_approval_is_told_once(showcase: Any, api: Any, author: Any) -> None:
    contest = await showcase.contest(moderation="pre")
    entry = await showcase.entry(contest, api.member(author))
    url, decide = f"/v1/entries/{entry}", f"/v1/admin/entries/{entry}/moderation"
    assert (await showcase.client.get(url)).status_code == 404
    assert (await showcase.client.get(url, headers=api.member(author))).json()["status"] == "pending"
    assert await api.emitted() == []
    waiting = await showcase.client.get("/v1/admin/entries", headers=api.admin("contests:read"))
    assert [item["id"] for item in waiting.json()["items"]] == [entry]

    unexplained = await showcase.client.post(decide, json={"decision": "reject"}, headers=api.admin())
    assert unexplained.status_code == 422
    rejection = {"decision": "reject", "reason": "图片不是本人拍摄"}
    rejected = await showcase.client.post(decide, json=rejection, headers=api.admin("contests:write"))
    assert (rejected.json()["status"], rejected.json()["reason"]) == ("rejected", "图片不是本人拍摄")
    assert (await showcase.client.get(url)).status_code == 404
    assert (await showcase.client.get(url, headers=api.member(author))).json()["reason"] == "图片不是本人拍摄"

    answers = await asyncio.gather(
        *(showcase.client.post(decide, json={"decision": "approve"}, headers=api.admin()) for _ in range(5))
    )
    assert {(answer.status_code, answer.json()["status"], answer.json()["reason"]) for answer in answers} == {
        (200, "approved", None)
    }
    await showcase.client.post(decide, json=rejection, headers=api.admin())
    await showcase.client.post(decide, json={"decision": "approve"}, headers=api.admin())
    assert [type(event) for event in await api.emitted()] == [EntryApproved]


async def test_only_admins_with_the_scope_moderate(showcase: Any, api: Any) -> None:
    entry = await showcase.entry(await showcase.contest())
    url, body = f"/v1/admin/entries/{entry}/moderation", {"decision": "approve"}
    assert (await showcase.client.post(url, json=body)).status_code == 401
    assert (await showcase.client.post(url, json=body, headers=api.member())).status_code == 403
    assert (await showcase.client.post(url, json=body, headers=api.admin("contests:read"))).status_code == 403
    unknown = await showcase.client.post(f"/v1/admin/entries/{new_id()}/moderation", json=body, headers=api.admin())
    assert unknown.status_code == 404


async def test_a_withdrawn_work_cannot_be_approved(showcase: Any, api: Any) -> None:
    member = api.member()
    entry = await showcase.entry(await showcase.contest(), member)
    await showcase.client.delete(f"/v1/entries/{entry}", headers=member)
    url = f"/v1/admin/entries/{entry}/moderation"
    refused = await showcase.client.post(url, json={"decision": "approve"}, headers=api.admin())
    assert (refused.status_code, refused.json()["code"]) == (409, "entry_withdrawn")


async def read_all(showcase: Any, url: str, headers: dict[str, str] | None = None) -> list[str]:
    """The ids of all pages of a list, two at a time."""
    ids: list[str] = []
    cursor = ""
    while True:
        answer = await showcase.client.get(f"{url}&limit=2{cursor}", headers=headers)
        assert answer.status_code == 200
        ids += [item["id"] for item in answer.json()["items"]]
        if answer.json()["next_cursor"] is None:
            return ids
        cursor = f"&cursor={answer.json()['next_cursor']}"


async def test_works_are_listed_new_top_or_shuffled_each_once(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    entries = [await showcase.entry(contest) for _ in range(7)]
    for votes, entry in enumerate(entries[:4]):
        for _ in range(votes):
            await showcase.vote(entry)
    url = f"/v1/contests/{contest}/entries?sort="
    assert await read_all(showcase, url + "new") == entries[::-1]
    assert await read_all(showcase, url + "top") == [entries[3], entries[2], entries[1], entries[0], *entries[4:]]
    orders = set()
    for _ in range(6):
        viewer = api.member()
        order = await read_all(showcase, url + "random", viewer)
        assert sorted(order) == sorted(entries)
        assert order == await read_all(showcase, url + "random", viewer)
        orders.add(tuple(order))
    assert len(orders) > 1
    assert sorted(await read_all(showcase, url + "random")) == sorted(entries)


async def test_hidden_totals_do_not_show_through_the_order(showcase: Any, api: Any) -> None:
    contest = await showcase.contest(hide_totals=True)
    entries = [await showcase.entry(contest) for _ in range(3)]
    await showcase.vote(entries[0])
    assert await read_all(showcase, f"/v1/contests/{contest}/entries?sort=top") == entries[::-1]


async def test_cursors_of_others_and_bad_values_are_refused(showcase: Any, api: Any) -> None:
    contest = await showcase.contest()
    for _ in range(2):
        await showcase.entry(contest)
    url = f"/v1/contests/{contest}/entries"
    cursor = (await showcase.client.get(f"{url}?sort=new&limit=1")).json()["next_cursor"]
    for query in (f"sort=random&cursor={cursor}", f"sort=top&cursor={cursor}", "cursor=xx", "sort=best", "limit=0"):
        assert (await showcase.client.get(f"{url}?{query}")).status_code == 422, query
    assert (await showcase.client.get(f"/v1/contests/{new_id()}/entries")).status_code == 404
    assert (await showcase.client.get("/v1/contests/x/entries")).status_code == 422


async def test_a_member_sees_all_their_own_works(showcase: Any, api: Any, author: Any) -> None:
    contest = await showcase.contest(moderation="pre")
    first = await showcase.entry(contest, api.member(author))
    second = await showcase.entry(await showcase.contest(), api.member(author))
    await showcase.entry(contest)
    answer = await showcase.client.get("/v1/entries", headers=api.member(author))
    assert [(item["id"], item["status"]) for item in answer.json()["items"]] == [
        (second, "approved"),
        (first, "pending"),
    ]
    assert (await showcase.client.get("/v1/entries")).status_code == 401


async def test_nicknames_follow_events_in_any_order_and_end_with_erasure(showcase: Any, api: Any, author: Any) -> None:
    contest = await showcase.contest(ends_at=clock.now() + timedelta(seconds=10))
    entry = await showcase.entry(contest, api.member(author))

    async def nickname() -> str:
        return str((await showcase.client.get(f"/v1/entries/{entry}")).json()["member"]["nickname"])

    assert await nickname() == ""
    now = clock.now()
    later = MemberChanged(member_id=author, nickname="小麦二号", tier="beginner", at=now + timedelta(seconds=2))
    await api.handle(later, MemberChanged(member_id=author, nickname="迟到", tier="beginner", at=now))
    assert await nickname() == "小麦二号"
    await showcase.registered(author, "小麦", registered_at=now)
    assert await nickname() == "小麦二号"
    (card,) = await api.sql("SELECT registered_at FROM member_card WHERE member_id = :id", id=author)
    assert card.registered_at == now
    api.clock.advance(timedelta(minutes=1))
    settled = await showcase.client.post(f"/v1/admin/contests/{contest}/settle", headers=api.admin())
    assert settled.status_code == 200
    await api.handle(MemberErased(member_id=author))
    await api.handle(MemberChanged(member_id=author, nickname="又来了", tier="beginner"))
    assert await nickname() == ""


async def test_members_comment_on_works_on_show(showcase: Any, api: Any, author: Any) -> None:
    await showcase.registered(author, "小麦")
    entry = await showcase.entry(await showcase.contest())
    url = f"/v1/entries/{entry}/comments"
    await api.emitted()
    written = await showcase.client.post(url, json={"text": " 好看！ "}, headers=api.member(author))
    assert written.status_code == 201
    assert written.json()["member"] == {"id": str(author), "nickname": "小麦"}
    assert written.json()["text"] == "好看！"
    [told] = await api.emitted()
    assert isinstance(told, CommentPosted)
    assert (str(told.comment_id), told.member_id, str(told.entry_id)) == (written.json()["id"], author, str(entry))
    assert (await showcase.client.get(url)).json() == {"items": [written.json()], "next_cursor": None}
    for text in ("", "好" * 2001, None, 5):
        assert (await showcase.client.post(url, json={"text": text}, headers=api.member())).status_code == 422
    assert (await showcase.client.post(url, json={"text": "好" * 2000}, headers=api.member())).status_code == 201
    assert (await showcase.client.post(url, json={"text": "好"})).status_code == 401
    own = f"{url}/{written.json()['id']}"
    for headers, status, code in (({}, 401, "not_authenticated"), (api.member(), 403, "not_your_comment")):
        refused = await showcase.client.delete(own, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert [(await showcase.client.delete(own, headers=api.member(author))).status_code for _ in range(2)] == [204, 404]
    assert written.json()["id"] not in (await showcase.client.get(url)).text
    hidden = f"/v1/entries/{new_id()}/comments"
    assert (await showcase.client.post(hidden, json={"text": "好"}, headers=api.member())).status_code == 404
    assert (await showcase.client.get(hidden)).status_code == 404
    assert [type(event) for event in await api.emitted()] == [CommentPosted]


async def test_the_same_picture_in_one_contest_is_shown_to_moderators_and_refused_to_nobody(
    showcase: Any, api: Any
) -> None:
    contest, elsewhere = await showcase.contest(moderation="pre"), await showcase.contest(moderation="pre")
    note = PngInfo()
    note.add_text("Comment", "mine")
    brought, stolen = picture((50, 40), "PNG"), picture((50, 40), "PNG", pnginfo=note)
    assert brought != stolen

    async def enter(place: str, *pictures: bytes | None) -> str:
        member = api.member()
        ids = [(await showcase.upload(member, picture)).json()["id"] for picture in pictures]
        return str((await showcase.enter(place, member, upload_ids=ids)).json()["id"])

    first = await enter(contest, brought, picture((60, 40)))
    second = await enter(contest, picture((70, 40)), stolen)
    alone = await enter(contest, picture((80, 40)))
    other_contest = await enter(elsewhere, stolen)

    async def listed(**params: Any) -> dict[str, list[str]]:
        answer = await api.client.get("/v1/admin/entries", headers=api.admin("contests:read"), params=params)
        return {item["id"]: item["same_picture"] for item in answer.json()["items"]}

    assert await listed() == {first: [second], second: [first], alone: [], other_contest: []}
    assert await listed(same_picture=True) == {first: [second], second: [first]}
    # One that was withdrawn stands no more.
    await api.sql("UPDATE entry SET status = 'withdrawn' WHERE id = :id", id=second)
    await api.sql("UPDATE entry_image SET standing = false WHERE entry_id = :id", id=second)
    assert await listed(same_picture=True) == {}
