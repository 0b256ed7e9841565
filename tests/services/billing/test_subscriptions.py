"""Auto-renewal in its member's hands and in an admin's: stopped, resumed, refused, merged, forgotten."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.billing import OrderPaid, OrderRefunded, SubscriptionChanged
from contracts.members import MemberChanged, MemberErased, MemberMerged, MembershipChanged, SegmentPicture
from kit import clock
from kit.ids import new_id
from kit.revocations import revocations
from services.billing import renewals
from tests.services.billing.renewing import MONTH, World, local, wall

PATH = "/v1/me/subscription"
QUARTER = "black-card-3m"


async def subscribed(world: World) -> UUID:
    """A member who bought on 10 March and renews on 10 April at 09:30."""
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    await world.subscribe(member)
    return member


async def test_canceling_is_one_call_and_keeps_what_is_paid(world: World) -> None:
    member = await subscribed(world)
    answer = await world.act(member, "cancel")
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["status"], shown["renews_at"], wall(shown["cancel_at"])) == ("canceling", None, "2027-04-10 09:30")
    assert (await world.act(member, "cancel")).json() == shown
    membership = await world.membership(member)
    assert (membership["status"], membership["auto_renew"]) == ("active", False)
    await world.walk(local("2027-04-10 09:29"))
    assert (await world.membership(member))["status"] == "active"
    await world.walk(local("2027-04-10 09:31"))
    assert (await world.subscription(member))["status"] == "none"
    assert (await world.membership(member))["status"] == "expired"
    assert (await world.act(member, "cancel")).json()["status"] == "none"
    assert [notice.kind for notice in world.notices()] == ["renewal_canceled"]
    assert [event.status for event in world.told if isinstance(event, SubscriptionChanged)] == [
        "active",
        "canceling",
        "none",
    ]
    assert await world.charges(member) == []
    await world.at_rest()


async def test_its_end_is_judged_by_the_instant_and_not_by_a_job(world: World) -> None:
    member = await subscribed(world)
    await world.act(member, "cancel")
    world.api.clock.set(local("2027-04-10 09:31"))
    assert (await world.subscription(member))["status"] == "none"
    over = await world.till.client.post(f"{PATH}/resume", headers=world.api.member(member))
    assert (over.status_code, over.json()["code"]) == (409, "subscription_over")


async def test_resuming_undoes_canceling_while_the_time_lasts(world: World) -> None:
    member = await subscribed(world)
    before = await world.subscription(member)
    await world.act(member, "cancel")
    assert (await world.act(member, "resume")).json() == before
    assert (await world.act(member, "resume")).json() == before
    assert (await world.membership(member))["auto_renew"] is True
    await world.walk(local("2027-04-11 09:30"))
    assert [row[1:] for row in await world.renewals(member)] == [("paid", 1990)]
    await world.act(member, "cancel")
    await world.walk(local("2027-05-11 09:30"))
    refused = await world.act(member, "resume")
    assert (refused.status_code, refused.json()["code"]) == (409, "subscription_over")


async def test_whoever_resumes_at_the_last_minute_is_told_before_they_are_charged(world: World) -> None:
    member = await subscribed(world)
    await world.act(member, "cancel")
    await world.walk(local("2027-04-10 09:00"))
    assert (await world.act(member, "resume")).json()["status"] == "active"
    assert "2027年4月15日 09:0" in world.notices("renewal_upcoming")[0].body_zh
    await world.walk(local("2027-04-15 08:59"))
    assert await world.charges(member) == []
    assert (await world.membership(member))["status"] == "grace"
    await world.walk(local("2027-04-15 09:05"))
    assert [wall(end) for _, end in await world.spans(member)] == ["2027-04-10 09:30", "2027-05-10 09:30"]


async def test_giving_up_while_past_due_ends_it_now(world: World) -> None:
    member = await subscribed(world)
    await world.bank(member, *["fail"] * 5)
    await world.walk(local("2027-04-10 10:00"))
    page = (await world.act(member, "pay")).json()
    assert (await world.act(member, "cancel")).json()["status"] == "none"
    assert (await world.membership(member))["status"] == "expired"
    assert [row[1] for row in await world.renewals(member)] == ["canceled"]
    # Who pays on the old page all the same gets the money back, and it is not renewed.
    paid = await world.press(page)
    await world.pass_by(days=20)
    assert len(await world.charges(member)) == 1
    if paid.status_code == 200:
        assert await world.api.sql("SELECT cause, status FROM refund") == [("surplus", "succeeded")]
    await world.till.balanced()
    assert not [event for event in world.told if isinstance(event, OrderRefunded)]


async def test_a_charge_under_way_when_its_member_cancels_goes_back(world: World) -> None:
    member = await subscribed(world)
    await world.walk(local("2027-04-10 09:29"))
    faults = [
        {"target": "calls", "kind": "drop", "times": 3, "seconds": 1.0, "match": "/v1/payment_intents"},
        {"target": "deliveries", "kind": "delay", "times": 100, "seconds": 86_000.0},
    ]
    assert (await world.till.client.put("/v1/sandbox/faults", json={"faults": faults})).status_code == 200
    world.api.clock.set(local("2027-04-10 09:30") + timedelta(seconds=30))
    await world.settle()
    assert await world.charges(member) == ["succeeded"]
    assert (await world.act(member, "cancel")).json()["status"] == "none"
    await world.pass_by(minutes=10)
    assert await world.api.sql("SELECT status, reason FROM payment WHERE status <> 'applied'") == [
        ("surplus", "renewal_canceled")
    ]
    assert await world.api.sql("SELECT cause, status FROM refund") == [("surplus", "succeeded")]
    assert [wall(end) for _, end in await world.spans(member)] == ["2027-04-10 09:30"]
    await world.till.balanced()
    await world.at_rest()


@pytest.mark.parametrize("first", ["cancel", "job"])
async def test_canceling_races_with_the_charge_and_one_of_them_wins(world: World, first: str) -> None:
    member = await subscribed(world)
    await world.walk(local("2027-04-10 09:29"))
    world.api.clock.set(local("2027-04-10 09:30") + timedelta(seconds=30))
    cancel = world.till.client.post(f"{PATH}/cancel", headers=world.api.member(member))
    work = [cancel, renewals.run(world.api.rt)] if first == "cancel" else [renewals.run(world.api.rt), cancel]
    await asyncio.gather(*work)
    await world.settle()
    await world.pass_by(minutes=30)
    shown = await world.subscription(member)
    kept = await world.api.sql(
        "SELECT coalesce(sum(amount), 0) - (SELECT coalesce(sum(amount), 0) FROM refund) FROM payment"
    )
    spans = [wall(end) for _, end in await world.spans(member)]
    # Charged and renewed until May, or not charged, or charged and given back: never anything in between.
    assert (shown["status"], int(kept[0][0]), len(spans)) in [("canceling", 3980, 2), ("none", 1990, 1)]
    await world.till.balanced()
    await world.at_rest()


async def test_cancel_and_resume_at_once_leave_one_of_the_two(world: World) -> None:
    member = await subscribed(world)
    calls = [
        world.till.client.post(f"{PATH}/{what}", headers=world.api.member(member)) for what in ["cancel", "resume"] * 5
    ]
    answers = await asyncio.gather(*calls)
    assert {answer.status_code for answer in answers} == {200}
    await world.settle()
    versions = [event.version for event in world.told if isinstance(event, SubscriptionChanged)]
    assert versions == sorted(set(versions))
    shown = await world.subscription(member)
    assert shown["status"] in ("active", "canceling")
    assert (await world.membership(member))["auto_renew"] is (shown["status"] == "active")


async def test_who_has_none_is_told_so(world: World) -> None:
    member = new_id()
    for what, body in (("cancel", None), ("resume", None), ("pay", None), ("card", None), ("card", {})):
        answer = await world.till.client.post(f"{PATH}/{what}", json=body, headers=world.api.member(member))
        assert (answer.status_code, answer.json()["code"], answer.json()["action"]) == (
            404,
            "no_subscription",
            "buy_membership",
        )


async def test_only_members_may_ask(world: World) -> None:
    for method, path in (("GET", ""), *(("POST", f"/{what}") for what in ("cancel", "resume", "pay", "card"))):
        assert (await world.till.client.request(method, PATH + path)).status_code == 401
        admin = await world.till.client.request(method, PATH + path, headers=world.api.admin())
        assert admin.status_code == 403


async def test_a_card_s_page_leads_only_to_our_own(world: World) -> None:
    member = await subscribed(world)
    refused = await world.act(member, "card", success_url="https://evil.test/thanks")
    assert (refused.status_code, refused.json()["code"]) == (422, "url_not_allowed")
    more = await world.act(member, "card", color="red")
    assert more.status_code == 422
    page = await world.act(member, "card", success_url="https://h5.heika.test/me")
    assert page.status_code == 201
    await world.press(page.json())
    assert [notice.kind for notice in world.notices()] == ["card_updated"]
    await world.at_rest()


async def test_a_page_for_a_card_waits_for_the_provider(world: World) -> None:
    member = await subscribed(world)
    await world.till.break_calls("error")
    away = await world.till.client.post(f"{PATH}/card", json={}, headers=world.api.member(member))
    assert (away.status_code, away.json()["code"]) == (503, "payment_provider_unavailable")
    await world.till.break_calls("error", times=0)
    world.api.clock.advance(timedelta(seconds=30))
    assert (await world.act(member, "card")).status_code == 201
    assert await world.api.sql("SELECT count(*) FROM subscription_page") == [(1,)]


async def test_a_renewal_order_is_not_canceled_as_others_are(world: World) -> None:
    member = await subscribed(world)
    await world.bank(member, "fail")
    await world.walk(local("2027-04-10 10:00"))
    order_id = (await world.subscription(member))["order_id"]
    refused = await world.till.cancel(member, order_id)
    assert (refused.status_code, refused.json()["code"]) == (409, "order_is_renewal")
    assert (await world.till.read(member, order_id, refresh=True))["status"] == "pending"
    # A renewal that waits does not keep its member from buying.
    assert (await world.till.order(member)).status_code == 201


async def test_a_second_order_that_renews_goes_on_with_the_one_there_is(world: World) -> None:
    member = await subscribed(world)
    await world.act(member, "cancel")
    await world.subscribe(member, "black-card-3m")
    shown = await world.subscription(member)
    assert (shown["status"], shown["plan_code"], wall(shown["renews_at"])) == (
        "active",
        "black-card-3m",
        "2027-07-10 09:30",
    )
    assert await world.api.sql("SELECT count(*) FROM subscription") == [(1,)]


async def test_two_orders_paid_at_once_make_one_subscription(world: World) -> None:
    member = new_id()
    orders = [
        (await world.till.order(member, plan_code=plan, auto_renew=True)).json() for plan in (MONTH, "black-card-3m")
    ]
    await asyncio.gather(*(world.till.pay(order) for order in orders))
    await world.settle()
    assert await world.api.sql("SELECT count(*) FROM subscription") == [(1,)]
    assert (await world.subscription(member))["renews_at"] == (await world.spans(member))[-1][1]
    await world.at_rest()


async def test_an_erased_member_is_charged_no_more_and_their_card_is_forgotten(world: World) -> None:
    member = await subscribed(world)
    await world.api.handle(MemberErased(member_id=member))
    await world.carry()
    assert await world.api.sql(
        "SELECT status, end_reason, customer_ref, payment_method_ref, card_last4 FROM subscription"
    ) == [("none", "erased", None, None, None)]
    await world.pass_by(days=60)
    assert (await world.charges(member), world.notices()) == ([], [])


async def test_who_leaves_while_they_stand_at_the_cashier_s_is_charged_once_and_no_more(world: World) -> None:
    early, late = new_id(), new_id()
    open_orders = [(await world.till.order(early, auto_renew=True)).json()]
    await world.api.handle(MemberErased(member_id=early), MemberErased(member_id=late))
    # Asked for with a token that was not known to be revoked yet.
    open_orders.append((await world.till.order(late, auto_renew=True)).json())
    for order in open_orders:
        assert (await world.till.pay(order)).status_code == 200
    await world.settle()
    assert await world.api.sql('SELECT status FROM "order"') == [("paid",), ("paid",)]
    assert await world.api.sql("SELECT status, end_reason, customer_ref FROM subscription") == [
        ("none", "erased", None)
    ]
    assert await world.api.sql("SELECT segments FROM member_time") == [([],), ([],)]
    await world.pass_by(days=60)
    assert [await world.charges(member) for member in (early, late)] == [[], []]


async def test_a_merged_account_brings_its_subscription_along(world: World) -> None:
    merged, kept = await subscribed(world), new_id()
    await world.api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    assert (await world.subscription(kept))["status"] == "active"
    assert (await world.subscription(merged))["status"] == "none"
    changed = [event for event in await world.api.emitted() if isinstance(event, SubscriptionChanged)]
    assert [(event.member_id, event.status) for event in changed] == [(kept, "active")]


async def test_of_two_subscriptions_the_younger_goes_on(world: World) -> None:
    merged = await subscribed(world)
    await world.pass_by(days=3)
    kept = new_id()
    await world.subscribe(kept, "black-card-3m")
    await world.api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    shown = await world.subscription(kept)
    assert (shown["status"], shown["plan_code"]) == ("active", "black-card-3m")
    assert await world.api.sql("SELECT status, end_reason FROM subscription ORDER BY created_at") == [
        ("none", "accounts_merged"),
        ("active", None),
    ]
    await world.api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    await world.settle()
    await world.walk(local("2027-04-12 09:30"))
    assert await world.charges(merged) == await world.charges(kept) == []


async def _admin(world: World, path: str = "", scope: str = "orders:read", **params: Any) -> Any:
    headers = world.api.admin(scope)
    return await world.till.client.get(f"/v1/admin/subscriptions{path}", params=params, headers=headers)


async def test_admins_see_who_renews_and_what_was_tried(world: World) -> None:
    member = await subscribed(world)
    await world.bank(member, "fail")
    await world.walk(local("2027-04-10 10:00"))
    (row,) = (await _admin(world, status="past_due")).json()["items"]
    assert (row["member_id"], row["status"], row["held_reason"]) == (str(member), "past_due", None)
    assert (await _admin(world, status="active")).json()["items"] == []
    assert (await _admin(world, held="true")).json()["items"] == []
    (attempt,) = (await _admin(world, f"/{row['id']}")).json()["attempts"]
    assert (attempt["number"], attempt["status"], attempt["failure"]) == (1, "failed", "card_declined")
    assert (await _admin(world, f"/{new_id()}")).json()["code"] == "subscription_not_found"
    for headers in (world.api.member(), {}, world.api.admin("plans:read")):
        refused = await world.till.client.get("/v1/admin/subscriptions", headers=headers)
        assert refused.status_code in (401, 403)


async def test_a_frozen_member_who_could_not_cancel_is_not_charged(world: World) -> None:
    member = await subscribed(world)
    picture = MemberChanged(member_id=member, nickname="小麦", tier="beginner")
    await world.api.handle(picture)
    assert (await world.subscription(member))["status"] == "active"
    frozen = {"frozen": True}
    await world.api.handle(*(picture.model_copy(update=frozen | {"id": new_id()}) for _ in range(2)))
    await world.settle()
    assert (await world.subscription(member))["status"] == "canceling"
    assert (await world.membership(member))["status"] == "active"
    assert [notice.kind for notice in world.notices()] == ["renewal_stopped"]
    assert (await world.act(member, "resume")).json()["status"] == "active"
    await world.bank(member, "fail")
    await world.walk(local("2027-04-10 09:31"))
    assert (await world.subscription(member))["status"] == "past_due"
    await world.api.handle(picture.model_copy(update=frozen | {"id": new_id()}))
    await world.walk(local("2027-04-20 09:30"))
    assert (await world.subscription(member))["status"] == "none"
    assert await world.charges(member) == ["requires_payment_method"]
    await world.at_rest()


async def test_who_pays_while_frozen_is_charged_no_second_time_and_may_resume(world: World) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    placed = (await world.till.order(member, plan_code=MONTH, auto_renew=True)).json()
    revocations.frozen = frozenset({str(member)})
    assert (await world.till.pay(placed)).status_code == 200
    await world.settle()
    assert [notice.kind for notice in world.notices()] == ["renewal_stopped"]
    revocations.frozen = frozenset()
    held = await world.subscription(member)
    assert (held["status"], wall(held["cancel_at"])) == ("canceling", "2027-04-10 09:30")
    assert (await world.membership(member))["status"] == "active"
    resumed = (await world.act(member, "resume")).json()
    assert (resumed["status"], wall(resumed["renews_at"])) == ("active", "2027-04-10 09:30")
    await world.act(member, "cancel")
    await world.walk(local("2027-04-20 09:30"))
    assert (await world.subscription(member))["status"] == "none"
    assert await world.charges(member) == []
    await world.at_rest()


async def test_an_admin_s_cancel_is_audited_and_told(world: World) -> None:
    member = await subscribed(world)
    (row,) = (await _admin(world)).json()["items"]
    path = f"/v1/admin/subscriptions/{row['id']}/cancel"
    body = {"reason": "会员来电"}
    for headers in (world.api.member(member), world.api.admin("orders:read")):
        assert (await world.till.client.post(path, json=body, headers=headers)).status_code == 403
    assert (await world.subscription(member))["status"] == "active"
    await world.api.acted()
    answer = await world.till.client.post(path, json=body, headers=world.api.admin("orders:write"))
    assert (answer.status_code, answer.json()["status"]) == (200, "canceling")
    (act,) = await world.api.acted()
    assert (act.action, act.target, act.before, act.after) == (
        "subscription.canceled",
        row["id"],
        {"status": "active", "reason": None},
        {"status": "canceling", "reason": "会员来电"},
    )
    at_once = body | {"at_once": True}
    answer = await world.till.client.post(path, json=at_once, headers=world.api.admin("orders:write"))
    assert answer.json()["status"] == "none"
    await world.settle()
    assert {notice.kind for notice in world.notices()} == {"renewal_stopped"}


async def test_a_period_that_was_charged_before_is_held_for_a_person(world: World) -> None:
    member = await subscribed(world)
    await world.walk(local("2027-04-11 09:30"))
    assert [row[1] for row in await world.renewals(member)] == ["paid"]
    # The renewed month was taken away without its money, and some days from elsewhere are all that is left.
    now = clock.now()
    days = SegmentPicture(
        id=new_id(),
        source="reward",
        source_id=new_id(),
        plan_code=MONTH,
        months=0,
        days=7,
        starts_at=now,
        ends_at=now + timedelta(days=7),
        benefits=(),
        added_at=now,
    )
    await world.api.handle(MembershipChanged(member_id=member, version=1000, segments=(days,)))
    await world.walk(now + timedelta(days=8))
    assert await world.charges(member) == ["succeeded"]
    assert [row[1] for row in await world.renewals(member)] == ["paid"]
    (row,) = (await _admin(world, held="true")).json()["items"]
    assert row["held_reason"] == "charged_before"
    assert [notice.kind for notice in world.notices()][-1] == "renewal_stopped"
    await world.pass_by(days=30)
    assert (await world.subscription(member))["status"] == "none"
    assert len([event for event in world.told if isinstance(event, OrderPaid)]) == 2
    await world.at_rest()


@pytest.mark.parametrize("taken_by", ["refund", "dispute"])
async def test_a_renewal_that_was_taken_back_bars_no_later_one(world: World, taken_by: str) -> None:
    member = new_id()
    world.api.clock.set(local("2027-03-10 09:30"))
    await world.subscribe(member, QUARTER)
    await world.walk(local("2027-06-19 09:30"))
    (renewed,) = await world.api.sql('SELECT id FROM "order" WHERE renews_from IS NOT NULL')
    if taken_by == "refund":
        answer = await world.till.admin_refund(str(renewed[0]))
        # 82 of 92 days are unused: less than the price, and yet all of the time.
        assert (answer.status_code, answer.json()["amount"]) == (201, 4900 * 82 // 92)
    else:
        body = {"order_id": str(renewed[0]), "outcome": "opened"}
        assert (await world.till.client.post("/v1/sandbox/disputes", json=body)).status_code == 200
    await world.settle()
    assert (await world.membership(member))["status"] == "expired"
    assert (await world.subscription(member))["status"] == "none"
    await world.subscribe(member)
    await world.walk(local("2027-07-19 09:31"))
    # Before the end of the quarter that was taken back, and charged all the same.
    assert [row[2] for row in await world.renewals(member)] == [4900, 1990]
    assert (await _admin(world, held="true")).json()["items"] == []
    membership = await world.membership(member)
    assert (membership["status"], wall(membership["ends_at"])) == ("active", "2027-08-19 09:30")
    await world.at_rest()


async def test_the_database_itself_renews_a_period_once(world: World) -> None:
    member = await subscribed(world)
    await world.walk(local("2027-04-11 09:30"))
    with pytest.raises(Exception, match="order_one_renewal"):
        await world.api.sql(
            'INSERT INTO "order" SELECT (json_populate_record(o, :change)).* FROM "order" o WHERE renews_from IS NOT NULL',
            change=f'{{"id": "{new_id()}", "number": "HK-again"}}',
        )
    assert len(await world.renewals(member)) == 1
