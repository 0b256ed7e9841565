"""Reports: once a member and thing, decided by admins, and what was right counts for whoever said it."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from contracts.members import MemberErased, MemberMerged
from contracts.showcase import EntryChanged, ReportUpheld
from kit import clock
from kit.ids import new_id
from services.showcase.recount import recount
from tests.harness import Api
from tests.services.showcase.conftest import Showcase

ADMIN = "/v1/admin/reports"


async def report(api: Api, path: str, member: dict[str, str], **body: Any) -> Any:
    return await api.client.post(f"/v1/entries/{path}/reports", json={"reason": "stolen"} | body, headers=member)


async def resolve(api: Api, report_id: str, decision: str, headers: dict[str, str] | None = None) -> Any:
    body = {"decision": decision, "reason": "图片来自他人的微博"}
    return await api.client.post(
        f"{ADMIN}/{report_id}/resolution", json=body, headers=headers or api.admin("contests:write")
    )


async def test_an_upheld_report_takes_the_work_down_and_counts_for_all_who_reported_it(
    api: Api, showcase: Showcase
) -> None:
    author, lesson = api.member(author_id := new_id()), new_id()
    entry = (await showcase.enter(await showcase.contest(), author, lesson_id=str(lesson))).json()["id"]
    [_, came] = await api.emitted()
    assert isinstance(came, EntryChanged)
    assert (came.on_show, came.lesson_id, came.title) == (True, lesson, "草莓蛋糕")
    assert came.thumbnail_url is not None
    assert came.thumbnail_url.endswith("-medium.jpg")
    members = [new_id(), new_id()]
    made = [await report(api, entry, api.member(member), text="这是我的照片") for member in members]
    assert [answer.status_code for answer in made] == [201, 201]
    again = await report(api, entry, api.member(members[0]), reason="spam")
    assert (again.status_code, again.json()) == (200, made[0].json())
    refused = await report(api, entry, author)
    assert (refused.status_code, refused.json()["code"]) == (403, "own_content")
    [first, second] = (await api.client.get(ADMIN, headers=api.admin("contests:read"))).json()["items"]
    assert (first["member_id"], first["author_id"], first["quote"]) == (str(members[0]), str(author_id), "草莓蛋糕")
    assert await api.emitted() == []

    done = await resolve(api, second["id"], "uphold")

    assert (done.status_code, done.json()["status"]) == (200, "upheld"), done.text
    gone, *upheld = await api.emitted()
    assert isinstance(gone, EntryChanged)
    assert (gone.on_show, gone.title, gone.thumbnail_url) == (False, "", None)
    assert {event.member_id for event in upheld if isinstance(event, ReportUpheld)} == set(members)
    assert len(upheld) == 2
    act = (await api.acted())[-1]
    assert (act.action, act.target) == ("report.upheld", second["id"])
    assert (await api.client.get(f"/v1/entries/{entry}")).status_code == 404
    mine = (await api.client.get(f"/v1/entries/{entry}", headers=author)).json()
    assert (mine["status"], mine["reason"]) == ("rejected", "图片来自他人的微博")
    # Deciding the same again, or the other report of it, tells nothing twice; the opposite is refused.
    for decided in (first["id"], second["id"]):
        assert (await resolve(api, decided, "uphold")).json()["status"] == "upheld"
        assert (await resolve(api, decided, "dismiss")).json()["code"] == "report_decided"
    assert await api.emitted() == []
    assert (await api.client.get(ADMIN, headers=api.admin())).json()["items"] == []
    assert (await report(api, entry, api.member())).json()["code"] == "entry_not_found"


async def test_a_comment_that_is_rightly_reported_goes_and_a_dismissed_one_stays(api: Api, showcase: Showcase) -> None:
    entry, other = await showcase.entry(contest := await showcase.contest()), await showcase.entry(contest)
    path = f"/v1/entries/{entry}/comments"
    said = [
        (await api.client.post(path, json={"text": text}, headers=api.member())).json()["id"]
        for text in ("加微信", "好")
    ]
    rude, kind = [
        (await report(api, f"{entry}/comments/{comment}", api.member(), reason="spam")).json()["id"] for comment in said
    ]
    await api.emitted()
    assert (await resolve(api, kind, "dismiss")).json()["status"] == "dismissed"
    assert await api.emitted() == []
    assert (await resolve(api, rude, "uphold")).json()["status"] == "upheld"
    [upheld] = await api.emitted()
    assert isinstance(upheld, ReportUpheld)
    assert [item["id"] for item in (await api.client.get(path)).json()["items"]] == [said[1]]
    assert (await api.client.get(f"/v1/entries/{entry}")).status_code == 200
    # Under another work, or gone, there is no such comment.
    for place in (f"{other}/comments/{said[1]}", f"{entry}/comments/{said[0]}", f"{entry}/comments/{new_id()}"):
        missing = await report(api, place, api.member())
        assert (missing.status_code, missing.json()["code"]) == (404, "comment_not_found")


async def test_who_may_report_and_who_decides(api: Api, showcase: Showcase) -> None:
    entry = await showcase.entry(await showcase.contest())
    made = (await report(api, entry, api.member())).json()["id"]
    assert (await report(api, entry, {})).status_code == 401
    for headers, status in (({}, 401), (api.member(), 403)):
        assert (await api.client.get(ADMIN, headers=headers)).status_code == status
    for headers, status in ((api.member(), 403), (api.admin("contests:read"), 403)):
        assert (await resolve(api, made, "uphold", headers)).status_code == status
    assert (await resolve(api, str(new_id()), "uphold")).json()["code"] == "report_not_found"
    for body in ({"reason": "other"}, {"reason": "ugly"}, {}):
        answer = await api.client.post(f"/v1/entries/{entry}/reports", json=body, headers=api.member())
        assert answer.status_code == 422
    assert await api.sql("SELECT 1 FROM report WHERE status <> 'open'") == []


async def test_reports_follow_merges_and_forget_who_leaves(api: Api, showcase: Showcase) -> None:
    author, kept, merged = new_id(), new_id(), new_id()
    entry = await showcase.entry(await showcase.contest(), api.member(author))
    for member in (kept, merged):
        assert (await report(api, entry, api.member(member), text="我的照片")).status_code == 201
    await api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    [held] = await api.sql("SELECT member_id, text FROM report")
    assert (held.member_id, held.text) == (kept, "我的照片")
    await api.handle(MemberErased(member_id=kept), MemberErased(member_id=author))
    [held] = await api.sql("SELECT * FROM report")
    assert (held.text, held.quote, held.status) == ("", "", "open")
    assert {held.member_id, held.author_id}.isdisjoint({kept, merged, author})


async def test_what_must_not_be_seen_goes_even_after_the_end_and_its_place_stays_published(
    api: Api, showcase: Showcase
) -> None:
    contest = await showcase.contest(ends_at=clock.now() + timedelta(days=1))
    entries = [await showcase.entry(contest) for _ in range(2)]
    for entry in entries:
        await showcase.vote(entry)
    reported = (await report(api, entries[0], api.member())).json()["id"]
    api.clock.advance(timedelta(days=2))
    settle = f"/v1/admin/contests/{contest}/settle"
    settled = (await api.client.post(settle, headers=api.admin())).json()
    assert len(settled["items"]) == 2

    assert (await resolve(api, reported, "uphold")).status_code == 200
    paths = [f"/v1/admin/entries/{entry}/moderation" for entry in entries]
    reject = {"decision": "reject", "reason": "盗图"}
    assert (await api.client.post(paths[1], json=reject, headers=api.admin())).json()["status"] == "rejected"

    assert [(await api.client.get(f"/v1/entries/{entry}")).status_code for entry in entries] == [404, 404]
    assert (await api.client.get(f"/v1/contests/{contest}/results")).json() == settled
    assert (await api.client.post(settle, headers=api.admin())).json() == settled
    assert (await recount(api.rt, UUID(contest))).differences == []
    approve = {"decision": "approve", "reason": ""}
    back = await api.client.post(paths[1], json=approve, headers=api.admin())
    assert (back.status_code, back.json()["code"]) == (409, "contest_settled")
