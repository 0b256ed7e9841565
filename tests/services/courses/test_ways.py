"""Ways into a live lesson: the answer that explains itself, arrivals, points, purchases, grants, switches."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from contracts.courses import CourseChanged, PointsReturned, PointsWanted
from contracts.members import MemberErased, MemberMerged, MemberRegistered, PointsAnswered, PointsChanged
from kit import clock
from kit.ids import new_id
from tests.harness import Api
from tests.services.courses.live_world import ADMIN, PLAN, bought, move
from tests.services.courses.room_world import LIVE, ask, give_card, plan_at

SOON = timedelta(days=3)


async def access(api: Api, lesson_id: str, member_id: UUID, **params: str) -> dict[str, Any]:
    answer = await api.client.get(f"{LIVE}/{lesson_id}/access", params=params, headers=api.member(member_id))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def link(api: Api, lesson_id: str, member_id: UUID) -> str:
    answer = await ask(api, "POST", f"{LIVE}/{lesson_id}/invite-links", member_id)
    assert answer.status_code == 201, answer.text
    assert answer.json()["url"].endswith(answer.json()["token"])
    return str(answer.json()["token"])


async def arrive(api: Api, token: str, member_id: UUID) -> tuple[int, Any]:
    answer = await ask(api, "POST", "/v1/arrivals", member_id, {"token": token})
    return answer.status_code, answer.json().get("counted", answer.json().get("code"))


async def test_the_answer_lists_every_way_and_what_it_takes(api: Api) -> None:
    ways = [
        {"kind": "membership"},
        {"kind": "invites", "needed": 2},
        {"kind": "points", "needed": 100},
        {"kind": "purchase", "amount": 2990},
    ]
    lesson_id, member_id = await plan_at(api, SOON, access=ways), new_id()
    assert await access(api, lesson_id, member_id) == {
        "granted": False,
        "by": None,
        "options": [
            {"kind": "membership", "needed": None, "have": None, "amount": None},
            {"kind": "invites", "needed": 2, "have": 0, "amount": None},
            {"kind": "points", "needed": 100, "have": 0, "amount": None},
            {"kind": "purchase", "needed": None, "have": None, "amount": 2990},
        ],
    }
    await give_card(api, member_id)
    answer = await access(api, lesson_id, member_id)
    assert (answer["granted"], answer["by"], len(answer["options"])) == (True, "membership", 4)
    api.clock.advance(timedelta(days=40))
    assert (await access(api, lesson_id, member_id))["granted"] is False
    free = await plan_at(api, SOON, access=[{"kind": "free"}])
    assert (await access(api, free, new_id()))["by"] == "free"


async def test_access_is_asked_by_members_of_lessons_they_see(api: Api) -> None:
    lesson_id = await plan_at(api, SOON)
    assert (await api.client.get(f"{LIVE}/{lesson_id}/access")).status_code == 401
    assert (await api.client.get(f"{LIVE}/{lesson_id}/access", headers=api.admin())).status_code == 403
    created = await api.client.post(ADMIN, json=PLAN, headers=api.admin())
    for path in ("access", "points-payment", "replay"):
        assert (await ask(api, "GET", f"{LIVE}/{created.json()['id']}/{path}", new_id())).status_code == 404
    assert (await ask(api, "GET", f"{LIVE}/{new_id()}/access", new_id())).status_code == 404


async def test_who_registers_through_the_link_counts_once_and_never_the_inviter(api: Api) -> None:
    lesson_id, inviter = await plan_at(api, SOON), new_id()
    old = new_id()
    await asyncio.sleep(0.01)
    token = await link(api, lesson_id, inviter)
    assert await link(api, lesson_id, inviter) == token
    assert await arrive(api, token, inviter) == (403, "own_link")
    assert await arrive(api, token, old) == (200, False)
    assert await arrive(api, "nonsense", new_id()) == (404, "link_unknown")
    assert (await api.client.post("/v1/arrivals", json={"token": token})).status_code == 401
    guests = [new_id() for _ in range(3)]
    for guest in guests[:2]:
        assert await arrive(api, token, guest) == (201, True)
        assert await arrive(api, token, guest) == (201, True)
    assert (await access(api, lesson_id, inviter))["options"][1] == {
        "kind": "invites", "needed": 3, "have": 2, "amount": None,
    }  # fmt: skip
    other = await link(api, lesson_id, new_id())
    assert await arrive(api, other, guests[0]) == (200, False)
    assert await asyncio.gather(*(arrive(api, token, guests[2]) for _ in range(5))) == [(201, True)] * 5
    answer = await access(api, lesson_id, inviter)
    assert (answer["granted"], answer["by"], answer["options"][1]["have"]) == (True, "invites", 3)


async def test_a_link_s_token_given_as_invite_code_counts_too(api: Api) -> None:
    lesson_id, inviter, guest = await plan_at(api, SOON), new_id(), new_id()
    token = await link(api, lesson_id, inviter)
    assert await arrive(api, token, guest) == (200, False)
    event = MemberRegistered(member_id=guest, nickname="小新", registered_at=clock.now(), invite_code=token)
    await api.handle(event, event, MemberRegistered(member_id=new_id(), nickname="别人", registered_at=clock.now()))
    assert (await access(api, lesson_id, inviter))["options"][1]["have"] == 1
    assert await arrive(api, token, guest) == (201, True)
    assert (await access(api, lesson_id, inviter))["options"][1]["have"] == 1


async def test_sharing_is_switched_off_by_channel_and_what_was_earned_stays(api: Api) -> None:
    lesson_id, inviter = (
        await plan_at(api, SOON, access=[{"kind": "membership"}, {"kind": "invites", "needed": 1}]),
        new_id(),
    )
    token = await link(api, lesson_id, inviter)
    path, off = f"{ADMIN}/share-switches", {"mini_program": False, "h5": True, "app": True}
    assert (await api.client.put(path, json=off)).status_code == 401
    assert (await api.client.put(path, json=off, headers=api.admin("courses:read"))).status_code == 403
    assert (await api.client.put(path, json=off, headers=api.admin())).json() == off
    assert (await api.client.get(path, headers=api.admin("courses:read"))).json() == off
    [act] = [act for act in await api.acted() if act.action == "live_lesson.share_switches"]
    assert (act.before, act.after) == ({"mini_program": True}, {"mini_program": False})

    async def kinds(**params: str) -> list[str]:
        return [way["kind"] for way in (await access(api, lesson_id, inviter, **params))["options"]]

    assert await kinds(channel="mini_program") == ["membership"]
    assert await kinds(channel="h5") == await kinds() == ["membership", "invites"]
    nowhere = dict.fromkeys(off, False)
    assert (await api.client.put(path, json=nowhere, headers=api.admin())).json() == nowhere
    assert await kinds() == await kinds(channel="app") == ["membership"]
    assert (await ask(api, "POST", f"{LIVE}/{lesson_id}/invite-links", inviter)).json()["code"] == "sharing_off"
    await api.client.put(path, json=off, headers=api.admin())
    refused = await ask(api, "POST", f"{LIVE}/{lesson_id}/invite-links?channel=mini_program", inviter)
    assert (refused.status_code, refused.json()["code"]) == (409, "sharing_off")
    assert await arrive(api, token, new_id()) == (201, True)
    assert (await access(api, lesson_id, inviter, channel="mini_program"))["by"] == "invites"


async def test_who_earned_it_by_invitations_comes_in_also_when_they_open_it_no_more(api: Api) -> None:
    ways = [{"kind": "membership"}, {"kind": "invites", "needed": 2}]
    lesson_id, earned, almost = await plan_at(api, SOON, access=ways), new_id(), new_id()
    for inviter, arrivals in ((earned, 2), (almost, 1)):
        token = await link(api, lesson_id, inviter)
        for _ in range(arrivals):
            assert await arrive(api, token, new_id()) == (201, True)

    async def stand() -> list[str | None]:
        return [(await access(api, lesson_id, member_id))["by"] for member_id in (earned, almost)]

    assert await stand() == ["invites", None]
    member = {"kind": "membership"}
    for access_now, expected in (
        ([member, {"kind": "invites", "needed": 3}], ["grant", None]),
        ([member], ["grant", None]),
        ([member, {"kind": "invites", "needed": 1}], ["grant", "invites"]),
        ([member], ["grant", "grant"]),
    ):
        changed = await api.client.patch(f"{ADMIN}/{lesson_id}", json={"access": access_now}, headers=api.admin())
        assert changed.status_code == 200, changed.text
        assert await stand() == expected
    assert await api.sql("SELECT count(*) FROM live_grant") == [(2,)]


async def test_what_was_paid_opens_a_lesson_that_is_not_sold_any_more(api: Api) -> None:
    ways = [{"kind": "points", "needed": 100}, {"kind": "purchase"}]
    lesson_id, by_points, by_purchase = await plan_at(api, SOON, access=ways), new_id(), new_id()
    await api.emitted()
    await ask(api, "POST", f"{LIVE}/{lesson_id}/points-payment", by_points)
    [wanted] = await api.emitted()
    assert isinstance(wanted, PointsWanted)
    await api.handle(PointsAnswered(request_id=wanted.request_id, member_id=by_points, taken=True, balance=0))
    await api.handle(bought(lesson_id, by_purchase))
    only = {"access": [{"kind": "membership"}]}
    assert (await api.client.patch(f"{ADMIN}/{lesson_id}", json=only, headers=api.admin())).status_code == 200
    for who, way in ((by_points, "points"), (by_purchase, "purchase"), (new_id(), None)):
        answer = await access(api, lesson_id, who)
        assert (answer["by"], [option["kind"] for option in answer["options"]]) == (way, ["membership"])


async def test_a_live_lesson_is_sold_as_a_course_with_its_id(api: Api) -> None:
    await api.emitted()
    lesson_id, member_id = await plan_at(api, SOON, access=[{"kind": "purchase"}]), new_id()
    [told] = await api.emitted()
    assert isinstance(told, CourseChanged)
    assert (told.course_id, told.access, told.amount, told.published) == (UUID(lesson_id), "paid", 990, True)
    await api.handle(bought(lesson_id, member_id))
    assert (await access(api, lesson_id, member_id))["by"] == "purchase"
    await move(api, lesson_id, "canceled")
    [told] = [event for event in await api.emitted() if isinstance(event, CourseChanged)]
    assert told.published is False
    for wrong in ({"kind": "purchase", "amount": 0}, {"kind": "free", "amount": 9}):
        assert (await api.client.post(ADMIN, json=PLAN | {"access": [wrong]}, headers=api.admin())).status_code == 422
    twice = PLAN | {"access": [{"kind": "free"}, {"kind": "free"}]}
    assert (await api.client.post(ADMIN, json=twice, headers=api.admin())).status_code == 422


async def test_an_admin_lets_a_member_in(api: Api) -> None:
    lesson_id, member_id = await plan_at(api, SOON), new_id()
    path, body = f"{ADMIN}/{lesson_id}/grants", {"member_id": str(member_id), "reason": "嘉宾"}
    assert (await api.client.post(path, json=body, headers=api.admin("courses:read"))).status_code == 403
    for _ in range(2):
        assert (await api.client.post(path, json=body, headers=api.admin())).status_code == 201
    assert (await api.client.post(f"{ADMIN}/{new_id()}/grants", json=body, headers=api.admin())).status_code == 404
    answer = await access(api, lesson_id, member_id)
    assert (answer["granted"], answer["by"]) == (True, "grant")


async def test_what_one_person_did_with_two_accounts_counts_once(api: Api) -> None:
    lesson_id = await plan_at(api, SOON, access=[{"kind": "points", "needed": 5}, {"kind": "invites", "needed": 2}])
    kept, merged = new_id(), new_id()
    tokens = [await link(api, lesson_id, who) for who in (kept, merged)]
    guest, newcomer = new_id(), new_id()
    assert await arrive(api, tokens[0], guest) == (201, True)
    assert await arrive(api, tokens[1], newcomer) == (201, True)
    await api.emitted()
    for who in (kept, merged):
        await ask(api, "POST", f"{LIVE}/{lesson_id}/points-payment", who)
        [wanted] = await api.emitted()
        assert isinstance(wanted, PointsWanted)
        await api.handle(PointsAnswered(request_id=wanted.request_id, member_id=who, taken=True, balance=0))
    await api.handle(PointsChanged(member_id=merged, version=1, balance=1))
    await api.handle(MemberMerged(kept_id=kept, merged_id=merged), MemberMerged(kept_id=kept, merged_id=merged))
    await api.handle(PointsChanged(member_id=merged, version=2, balance=2))
    assert await api.sql("SELECT count(*) FROM points_balance") == [(0,)]
    [back] = await api.emitted()
    assert isinstance(back, PointsReturned)
    assert back.points == 5
    answer = await access(api, lesson_id, kept)
    assert (answer["by"], answer["options"][1]["have"]) == ("points", 2)
    # Whom I invited turns out to be me.
    await api.handle(MemberMerged(kept_id=kept, merged_id=guest))
    assert (await access(api, lesson_id, kept))["options"][1]["have"] == 1
    await api.handle(MemberErased(member_id=newcomer))
    assert (await access(api, lesson_id, kept))["options"][1]["have"] == 1
    await api.handle(MemberErased(member_id=kept))
    assert (await access(api, lesson_id, kept))["granted"] is False
