"""Two accounts of one person: orders and spent coupons become one's, and one open order a plan stays the rule."""

from datetime import timedelta

from contracts.billing import OrderPaid
from contracts.members import MemberMerged
from kit.ids import new_id
from tests.services.billing.till import Till


async def test_orders_follow_and_can_be_paid_and_refunded(till: Till) -> None:
    kept, merged = new_id(), new_id()
    coupon = till.coupon(merged)
    order = (await till.order(merged, coupon_token=coupon)).json()
    merge = MemberMerged(kept_id=kept, merged_id=merged)
    await till.api.handle(merge, merge.model_copy(update={"id": new_id()}))
    assert (await till.read(kept, order["id"]))["status"] == "pending"
    hidden = await till.client.get(f"/v1/orders/{order['id']}", headers=till.api.member(merged))
    assert hidden.status_code == 404
    again = await till.order(kept)
    assert (again.status_code, again.json()["id"]) == (200, order["id"])
    owners = await till.api.sql("SELECT member_id FROM coupon_use")
    assert [row.member_id for row in owners] == [kept]


async def test_of_two_open_orders_for_a_plan_the_other_follows_once_it_is_paid(till: Till) -> None:
    kept, merged = new_id(), new_id()
    mine, theirs = (await till.order(kept)).json(), (await till.order(merged)).json()
    await till.api.handle(MemberMerged(kept_id=kept, merged_id=merged))
    assert (await till.read(merged, theirs["id"]))["status"] == "pending"
    assert (
        await till.client.post(f"/v1/sandbox/checkout/{theirs['checkout']['url'].rsplit('/', 1)[1]}/pay", json={})
    ).status_code < 300
    till.api.clock.advance(timedelta(seconds=10))
    await till.api.run_due()
    assert [event.member_id for event in await till.api.emitted() if isinstance(event, OrderPaid)] == [merged]
    assert (await till.read(kept, mine["id"]))["status"] == "pending"
    till.api.clock.advance(timedelta(minutes=1))
    await till.api.run_due()
    assert (await till.read(kept, theirs["id"]))["status"] == "paid"


async def test_a_coupon_token_from_before_the_merge_is_the_kept_member_s(till: Till) -> None:
    kept, merged, other = new_id(), new_id(), new_id()
    coupon = till.coupon(merged)
    refused = await till.order(kept, coupon_token=coupon)
    assert (refused.status_code, refused.json()["code"]) == (422, "coupon_foreign")
    middle = new_id()
    await till.api.handle(MemberMerged(kept_id=middle, merged_id=merged), MemberMerged(kept_id=kept, merged_id=middle))
    refused = await till.order(other, coupon_token=coupon)
    assert (refused.status_code, refused.json()["code"]) == (422, "coupon_foreign")
    order = await till.order(kept, coupon_token=coupon)
    assert (order.status_code, order.json()["discount"]) == (201, 500)
    owners = await till.api.sql("SELECT member_id FROM coupon_use")
    assert [row.member_id for row in owners] == [kept]
