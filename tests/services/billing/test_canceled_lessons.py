"""Canceled live lessons: whoever paid gets it all back once, whatever happens at the same moment; courses stay sold."""

from collections import Counter
from datetime import timedelta
from uuid import UUID

from contracts.billing import OrderClosed, OrderRefunded
from contracts.courses import LiveLessonCanceled
from kit import clock
from kit.ids import new_id
from tests.services.billing.test_course_orders import bought, order, sold
from tests.services.billing.till import Till


async def cancel(till: Till, lesson: UUID) -> None:
    """What courses tells, also a second time."""
    event = LiveLessonCanceled(lesson_id=lesson, canceled_at=clock.now())
    await till.api.handle(event, event, LiveLessonCanceled(lesson_id=lesson, canceled_at=clock.now()))


async def refunds(till: Till) -> Counter[tuple[int, str, str]]:
    return Counter(map(tuple, await till.api.sql("SELECT amount, cause, status FROM refund")))


async def test_a_canceled_lesson_is_given_back_once_and_a_course_is_not_touched(till: Till) -> None:
    lesson, course = await sold(till, amount=990), await sold(till)
    member, part, disputed, waiting = (new_id() for _ in range(4))
    kept = await bought(till, member, course)
    first = await bought(till, member, lesson)
    second = await bought(till, part, lesson)
    third = await bought(till, disputed, lesson)
    card = await till.buy(member)
    assert (await till.admin_refund(second["id"], amount=90)).status_code == 201
    await till.client.post("/v1/sandbox/disputes", json={"order_id": third["id"], "outcome": "opened"})
    await till.api.run_due()
    # Long after the window in which members take their money back.
    till.api.clock.advance(timedelta(days=20))
    open_order = (await order(till, waiting, lesson)).json()
    await till.api.emitted()
    await cancel(till, lesson)
    await till.api.run_due()
    told = await till.api.emitted()
    back = {str(event.order_id): event for event in told if isinstance(event, OrderRefunded)}
    assert back.keys() == {first["id"], second["id"]}
    assert [(back[one["id"]].amount, back[one["id"]].full) for one in (first, second)] == [(990, True), (900, True)]
    assert [str(event.order_id) for event in told if isinstance(event, OrderClosed)] == [open_order["id"]]
    for holder, one, status in (
        (member, first, "refunded"), (part, second, "refunded"), (disputed, third, "disputed"), (member, kept, "paid"),
        (member, card, "paid"), (waiting, open_order, "canceled"),
    ):  # fmt: skip
        assert (await till.read(holder, one["id"]))["status"] == status
    assert await till.api.run_due() == 0
    # The house wins the dispute: the money is here, and goes back after all.
    await till.client.post("/v1/sandbox/disputes", json={"order_id": third["id"], "outcome": "won"})
    await till.api.run_due()
    assert (await till.read(disputed, third["id"]))["status"] == "refunded"
    canceled = (990, "lesson_canceled", "succeeded")
    assert await refunds(till) == {canceled: 2, (900, *canceled[1:]): 1, (90, "admin", "succeeded"): 1}
    assert await till.api.run_due() == 0
    dispute_fee = 1500
    assert (await till.balanced())["provider_receivable"] == 9900 + 1990 - dispute_fee


async def test_money_that_comes_after_the_cancellation_goes_straight_back(till: Till) -> None:
    lesson, late, asking = await sold(till, amount=990), new_id(), new_id()
    open_order = (await order(till, late, lesson)).json()
    bought_before = await bought(till, asking, lesson)
    await till.lose_webhooks()
    await till.pay(open_order)
    await till.api.emitted()
    # Its owner asks for the money back while the provider is away, and then the lesson is canceled.
    await till.break_calls("error")
    assert (await till.refund(asking, bought_before["id"])).status_code == 503
    await cancel(till, lesson)
    await till.api.run_due()
    assert await refunds(till) == {(990, "member", "pending"): 1}
    await till.break_calls("error", times=0)
    till.api.clock.advance(timedelta(hours=2))
    await till.api.run_due()
    assert await refunds(till) == {(990, "member", "succeeded"): 1, (990, "surplus", "succeeded"): 1}
    assert (await till.read(late, open_order["id"]))["status"] == "canceled"
    assert [event.order_id for event in await till.api.emitted() if isinstance(event, OrderRefunded)] == [
        UUID(bought_before["id"])
    ]
    again = await order(till, late, await sold(till, course_id=lesson, amount=990, version=9))
    assert again.status_code == 201
    assert set((await till.balanced()).values()) == {0}
    assert await till.api.run_due() >= 1
    assert (await till.read(late, again.json()["id"]))["status"] == "canceled"
    assert await till.api.run_due() == 0


async def test_a_provider_that_is_away_is_asked_until_it_gave_the_money_back(till: Till) -> None:
    lesson, members = await sold(till, amount=990), [new_id() for _ in range(3)]
    for member in members:
        await bought(till, member, lesson, payment_method="alipay")
    # Its answers are lost: the money may have gone back already.
    await till.break_calls("drop")
    await cancel(till, lesson)
    await till.api.run_due()
    assert await refunds(till) == {(990, "lesson_canceled", "pending"): 3}
    await till.break_calls("drop", times=0)
    till.api.clock.advance(timedelta(hours=2))
    await till.api.run_due()
    assert await refunds(till) == {(990, "lesson_canceled", "succeeded"): 3}
    assert await till.api.sql("SELECT count(*), sum(amount) FROM sandbox_refund") == [(3, 2970)]
    assert await till.api.run_due() == 0
    assert set((await till.balanced()).values()) == {0}
