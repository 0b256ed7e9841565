"""Invitations: codes, touches, where a newcomer came from."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from contracts.members import MemberChanged, MemberErased, MemberMerged
from contracts.referrals import CouponIssued, MemberInvited
from contracts.showcase import EntryShared
from kit import clock
from kit.ids import new_id
from services.referrals.invites import ALPHABET
from tests.harness import Api
from tests.services.referrals.world import claim, code_of, coupons, invited, lesson, member, paid, registered


async def touch(api: Api, headers: dict[str, str] | None = None, **body: Any) -> Any:
    return await api.client.post("/v1/touches", headers=headers, json=body)


async def outcomes(api: Api) -> Sequence[Any]:
    return await api.sql("SELECT outcome, reason FROM touch ORDER BY at, id")


async def origin_of(api: Api, member_id: Any) -> Any:
    found = await api.sql("SELECT inviter_id, channel_code FROM attribution WHERE member_id = :id", id=member_id)
    return tuple(found[0]) if found else None


async def test_an_invitation_is_one_readable_code_however_often_it_is_asked_for(api: Api) -> None:
    asker = new_id()

    codes = await asyncio.gather(*(code_of(api, asker) for _ in range(8)))

    assert len(set(codes)) == 1
    assert len(codes[0]) == 8
    assert set(codes[0]) <= set(ALPHABET)
    answer = await api.client.get("/v1/me/invite", headers=api.member(asker))
    assert answer.json()["url"] == f"http://127.0.0.1:8000/i/{codes[0]}"
    assert (await api.client.get("/v1/me/invite")).status_code == 401


async def test_an_invited_newcomer_gets_the_newcomer_coupon_once(api: Api) -> None:
    inviter = await member(api)
    event = registered(invite_code=(await code_of(api, inviter)).lower(), nickname="小麦")
    await api.emitted()

    await api.handle(event, event)

    (coupon,) = await coupons(api, event.member_id)
    assert (coupon["kind"], coupon["value"], coupon["status"]) == ("amount", 500, "issued")
    invitation, told = await api.emitted()
    assert isinstance(invitation, MemberInvited)
    assert (invitation.member_id, invitation.inviter_id) == (event.member_id, inviter)
    assert isinstance(told, CouponIssued)
    assert told.member_id == event.member_id
    assert await coupons(api, inviter) == []
    invitees = (await api.client.get("/v1/me/invitees", headers=api.member(inviter))).json()["items"]
    assert [(item["member_id"], item["nickname"], item["stage"]) for item in invitees] == [
        (str(event.member_id), "小麦", "registered")
    ]
    assert (await api.client.get("/v1/me/invitees", headers=api.member(event.member_id))).json()["items"] == []


async def test_somebody_who_came_alone_gets_nothing_and_has_no_origin(api: Api) -> None:
    alone = await member(api)

    assert await coupons(api, alone) == []
    assert await origin_of(api, alone) is None


async def test_the_first_touch_wins_over_a_later_one_and_over_the_code_at_registration(api: Api) -> None:
    first, second = await member(api), await member(api)
    visitor = "phone-1"
    assert (await touch(api, invite_code=await code_of(api, first), visitor_id=visitor)).status_code == 201
    api.clock.advance(timedelta(days=1))
    assert (
        await touch(api, invite_code=await code_of(api, second), channel="douyin", visitor_id=visitor)
    ).status_code == 201
    api.clock.advance(timedelta(days=1))

    newcomer = await member(api, visitor_id=visitor, invite_code=await code_of(api, second))

    assert await origin_of(api, newcomer) == (first, None)
    assert [tuple(row) for row in await outcomes(api)] == [("won", None), ("lost", "later"), ("lost", "later")]
    path = f"/v1/admin/attributions/{newcomer}"
    told = (await api.client.get(path, headers=api.admin("coupons:read"))).json()
    assert (told["inviter_id"], told["channel"], told["rule_version"], told["fixed_at"]) == (str(first), None, 1, None)
    assert [(one["inviter_id"], one["channel"], one["outcome"], one["at_registration"]) for one in told["touches"]] == [
        (str(first), None, "won", False),
        (str(second), "douyin", "lost", False),
        (str(second), None, "lost", True),
    ]
    for headers, status in (({}, 401), (api.member(newcomer), 403), (api.admin("plans:read"), 403)):
        assert (await api.client.get(path, headers=headers)).status_code == status
    alone = (await api.client.get(f"/v1/admin/attributions/{first}", headers=api.admin())).json()
    assert (alone["inviter_id"], alone["bound_at"], alone["touches"]) == (None, None, [])
    unknown = await api.client.get(f"/v1/admin/attributions/{new_id()}", headers=api.admin())
    assert (unknown.status_code, unknown.json()["code"]) == (404, "member_unknown")


async def test_a_touch_counts_for_thirty_days_and_not_for_thirty_one(api: Api) -> None:
    inviter = await member(api)
    code = await code_of(api, inviter)
    for visitor in ("kept", "late"):
        answer = await touch(api, invite_code=code, visitor_id=visitor)
        assert answer.json()["invite_code"] == code
    api.clock.advance(timedelta(days=29, hours=23))
    kept = await member(api, visitor_id="kept")
    api.clock.advance(timedelta(hours=2))
    late = await member(api, visitor_id="late")

    assert await origin_of(api, kept) == (inviter, None)
    assert await origin_of(api, late) is None
    assert [tuple(row) for row in await outcomes(api)] == [("won", None), ("lost", "expired")]


async def test_a_touch_names_something_that_exists(api: Api) -> None:
    unknown = await touch(api, invite_code="NOTACODE", visitor_id="v")
    nowhere = await touch(api, channel="nowhere", visitor_id="v")
    empty = await touch(api, visitor_id="v")
    anonymous = await touch(api, channel="xiaohongshu", visitor_id="")

    assert (unknown.status_code, unknown.json()["code"]) == (404, "invite_code_unknown")
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "channel_unknown")
    assert (empty.status_code, empty.json()["code"]) == (422, "touch_empty")
    assert anonymous.status_code == 422
    assert await outcomes(api) == []


async def test_a_touch_by_a_member_never_rebinds_nor_counts_for_somebody_else(api: Api) -> None:
    inviter, other = await member(api), await member(api)
    newcomer = await invited(api, inviter)
    code = await code_of(api, other)

    assert (await touch(api, api.member(newcomer), invite_code=code, visitor_id="tablet")).status_code == 201
    sibling = await member(api, visitor_id="tablet")

    assert await origin_of(api, newcomer) == (inviter, None)
    assert await origin_of(api, sibling) is None


async def test_nobody_invites_themselves(api: Api) -> None:
    inviter = await member(api, visitor_id="own-phone", phone_hash="p1")
    code = await code_of(api, inviter)

    by_device = await member(api, invite_code=code, visitor_id="own-phone", phone_hash="p2")
    by_phone = await member(api, invite_code=code, visitor_id="other-phone", phone_hash="p1")
    early = new_id()
    by_code = await member(api, member_id=early, invite_code=await code_of(api, early))

    for newcomer in (by_device, by_phone, by_code):
        assert await origin_of(api, newcomer) is None
        assert await coupons(api, newcomer) == []
    reasons = [row.reason for row in await outcomes(api)]
    assert reasons == ["same_device", "existing_customer", "self"]


async def test_who_leaves_and_comes_back_is_no_newcomer_for_half_a_year(api: Api) -> None:
    inviter = await member(api)
    first = await invited(api, inviter, phone_hash="p1")
    # A registration told after its own erasure is one of a former member, too.
    late = registered(phone_hash="p2", invite_code=await code_of(api, inviter))
    await api.handle(MemberErased(member_id=first), MemberErased(member_id=late.member_id), late)
    [listed] = (await api.client.get("/v1/coupon-campaigns")).json()["items"]

    for phone in ("p1", "p2"):
        back = await invited(api, inviter, phone_hash=phone)
        assert await origin_of(api, back) is None
        assert await coupons(api, back) == []
        assert (await claim(api, listed["id"], back)).json()["code"] == "audience_mismatch"
        await api.handle(lesson(back), paid(back), MemberErased(member_id=back))
    assert await coupons(api, inviter) == []

    api.clock.advance(timedelta(days=181))
    assert await api.run_due() >= 2
    assert await api.sql("SELECT * FROM former_phone") == []
    assert await api.run_due() == 0
    again = await invited(api, inviter, phone_hash="p1")
    assert await origin_of(api, again) == (inviter, None)


async def test_two_people_do_not_invite_each_other(api: Api) -> None:
    first, second = new_id(), new_id()
    codes = {one: await code_of(api, one) for one in (first, second)}

    await member(api, member_id=second, invite_code=codes[first])
    await member(api, member_id=first, invite_code=codes[second])

    assert await origin_of(api, second) == (first, None)
    assert await origin_of(api, first) is None
    assert [row.reason for row in await outcomes(api)] == [None, "loop"]


async def test_an_unknown_code_at_registration_is_kept_but_binds_nobody(api: Api) -> None:
    newcomer = await member(api, invite_code="NOTACODE", channel="no such channel")

    assert await origin_of(api, newcomer) is None
    assert [tuple(row) for row in await outcomes(api)] == [("lost", "unknown_code")]


async def test_the_first_payment_fixes_the_origin_even_against_our_own_code(api: Api) -> None:
    newcomer = await invited(api, await member(api))
    await api.handle(paid(newcomer))

    with pytest.raises(DBAPIError, match="is fixed"):
        await api.sql("UPDATE attribution SET inviter_id = :other WHERE member_id = :id", other=new_id(), id=newcomer)


async def test_an_invitee_moves_from_registered_to_tried_to_purchased(api: Api) -> None:
    inviter = await member(api)
    newcomer = await invited(api, inviter)
    stages = []

    for event in (None, lesson(newcomer), paid(newcomer)):
        if event is not None:
            await api.handle(event)
        (item,) = (await api.client.get("/v1/me/invitees", headers=api.member(inviter))).json()["items"]
        stages.append(item["stage"])

    assert stages == ["registered", "tried", "purchased"]


async def test_a_stage_is_dated_by_the_first_lesson_and_the_first_payment_heard_in_any_order(api: Api) -> None:
    inviter = await member(api)
    newcomer = await invited(api, inviter)
    first, second = clock.now() + timedelta(hours=1), clock.now() + timedelta(hours=2)
    path, headers = "/v1/me/invitees", api.member(inviter)

    await api.handle(lesson(newcomer, completed_at=second), lesson(newcomer, completed_at=first))
    tried = (await api.client.get(path, headers=headers)).json()["items"][0]
    await api.handle(paid(newcomer, paid_at=second), paid(newcomer, paid_at=first))
    purchased = (await api.client.get(path, headers=headers)).json()["items"][0]

    expected = first.isoformat().replace("+00:00", "Z")
    assert (tried["stage"], tried["at"]) == ("tried", expected)
    assert (purchased["stage"], purchased["at"]) == ("purchased", expected)


async def test_invitees_come_in_pages(api: Api) -> None:
    inviter = await member(api)
    brought = [await invited(api, inviter) for _ in range(5)]
    seen, cursor = [], None

    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await api.client.get("/v1/me/invitees", headers=api.member(inviter), params=params)).json()
        seen += [item["member_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == [str(one) for one in reversed(brought)]


async def test_a_name_follows_the_newest_picture_and_an_erased_member_has_none(api: Api) -> None:
    inviter = await member(api)
    newcomer = await invited(api, inviter, nickname="旧名", visitor_id="v9", phone_hash="p9")
    older = MemberChanged(member_id=newcomer, nickname="更旧的名字", tier="potential")
    newer = MemberChanged(member_id=newcomer, nickname="新名", tier="beginner")
    await api.handle(newer, older)
    names = [(await api.client.get("/v1/me/invitees", headers=api.member(inviter))).json()["items"][0]["nickname"]]
    await api.handle(MemberErased(member_id=newcomer))
    late = MemberChanged(member_id=newcomer, nickname="还在", tier="beginner")
    await api.handle(late)
    names.append((await api.client.get("/v1/me/invitees", headers=api.member(inviter))).json()["items"][0]["nickname"])

    assert names == ["新名", "已注销会员"]
    card = (await api.sql("SELECT phone_hash, visitor_id FROM member_card WHERE member_id = :id", id=newcomer))[0]
    assert tuple(card) == (None, None)
    assert await api.sql("SELECT * FROM device WHERE member_id = :id", id=newcomer) == []


async def test_a_link_to_a_work_credits_whoever_shared_it(api: Api) -> None:
    canvasser, other = await member(api), await member(api)
    shared = EntryShared(token="23456789ABCD", entry_id=new_id(), member_id=canvasser)
    await api.handle(shared, shared, shared.model_copy(update={"id": new_id()}))
    opened = await touch(api, invite_code="23456789abcd", visitor_id="phone-7")
    assert (opened.status_code, opened.json()["invite_code"]) == (201, "23456789ABCD")
    assert (await touch(api, invite_code="ZZZZZZZZZZZZ", visitor_id="phone-7")).json()["code"] == "invite_code_unknown"
    newcomer = await member(api, visitor_id="phone-7")
    assert await origin_of(api, newcomer) == (canvasser, None)
    assert [row.outcome for row in await outcomes(api)] == ["won"]
    # Given at registration it counts as well; after a merge it leads to whoever the account became.
    await api.handle(MemberMerged(kept_id=other, merged_id=canvasser))
    assert await origin_of(api, await member(api, invite_code="23456789ABCD")) == (other, None)
    await api.handle(MemberErased(member_id=other))
    assert (await touch(api, invite_code="23456789ABCD", visitor_id="phone-8")).status_code == 404
