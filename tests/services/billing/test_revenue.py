"""Revenue by day: figures of a small world, each computed by hand."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from kit.ids import new_id
from tests.services.billing.test_recognition import told
from tests.services.billing.till import Till

ZONE = ZoneInfo("Asia/Shanghai")
PATH = "/v1/admin/metrics/revenue"


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2031, 3, day, hour, minute, tzinfo=ZONE)


async def revenue(till: Till, first: str, last: str) -> list[dict[str, Any]]:
    answer = await till.client.get(PATH, params={"from": first, "to": last}, headers=till.api.admin("orders:read"))
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def day(date: str, *figures: int) -> dict[str, Any]:
    names = ("gross", "refunds", "net", "payers", "arpu", "deferred_revenue", "renewals_due", "renewals_paid")
    return {"day": date, **dict(zip(names, figures, strict=True))}


async def test_the_figures_of_four_days(till: Till) -> None:
    clock = till.api.clock
    # The 1st, a minute before midnight: a month of 31 days, 44640 minutes.
    clock.set(at(1, 23, 59))
    first = new_id()
    month = await till.buy(first)
    await told(till, first, 1, (month, at(1, 23, 59), at(1, 23, 59) + timedelta(days=31)))
    # The 2nd: three months of 92 days with a coupon of 500; one payer buys twice, and pays one order twice.
    clock.set(at(2, 0, 1))
    second = new_id()
    season = await till.buy(second, plan_code="black-card-3m", coupon_token=till.coupon(second))
    await told(till, second, 1, (season, at(2, 0), at(2, 0) + timedelta(days=92)))
    again = (await till.order(second, plan_code="black-card-12m")).json()
    await till.pay(again, duplicate=True)
    await told(
        till,
        second,
        2,
        (season, at(2, 0), at(2, 0) + timedelta(days=92)),
        (again, at(2, 0) + timedelta(days=92), at(2, 0) + timedelta(days=457)),
    )
    # A payment of a wrong amount is nobody's revenue.
    wrong = (await till.order(new_id())).json()
    await till.tell(
        "payment_intent.succeeded",
        {"id": "pi_wrong", "amount_received": 7, "currency": "cny", "metadata": {"order_id": wrong["id"]}},
    )
    # The 4th: the month goes back in full, and a renewal that was due is paid; another one is not.
    clock.set(at(4, 10))
    assert (await till.refund(first, month["id"])).status_code == 201
    renewed = await till.buy(first)
    await till.api.sql(
        """UPDATE "order" SET renews_from = :at WHERE id IN (:paid, :unpaid)""",
        at=at(4, 9),
        paid=renewed["id"],
        unpaid=wrong["id"],
    )
    clock.set(at(5, 6))
    await till.api.run_due()
    # Deferred: the 1st has earned 1 of 44640 minutes of 1990: nothing. The 2nd and 3rd each a day of both:
    # 1990 x 1441 / 44640 = 64.2, 1990 x 2881 / 44640 = 128.4; 4400 / 92 = 47.8, 95.6; the 4th 143.4.
    expected = [
        day("2031-02-28", 0, 0, 0, 0, 0, 0, 0, 0),
        day("2031-03-01", 1990, 0, 1990, 1, 1990, 1990, 0, 0),
        day("2031-03-02", 4400 + 18900, 0, 23300, 1, 23300, 1990 - 64 + 23300 - 47, 0, 0),
        day("2031-03-03", 0, 0, 0, 0, 0, 1990 - 128 + 23300 - 95, 0, 0),
        day("2031-03-04", 1990, 1990, 0, 1, 0, 1990 + 23300 - 143, 2, 1),
    ]
    assert await revenue(till, "2031-02-28", "2031-03-04") == expected
    # The same whatever period is asked for.
    assert await revenue(till, "2031-03-02", "2031-03-03") == expected[2:4]
    balance = await till.balanced()
    assert balance["deferred_revenue"] == -expected[-1]["deferred_revenue"]
    assert (balance["refunds"], balance["unapplied_payments"], balance["refunds_payable"]) == (128, -7, 0)


async def test_a_day_of_refunds_alone_has_nobody_to_divide_by(till: Till) -> None:
    till.api.clock.set(at(1, 12))
    member = new_id()
    order = await till.buy(member)
    till.api.clock.set(at(2, 12))
    await till.refund(member, order["id"])
    assert await revenue(till, "2031-03-02", "2031-03-02") == [day("2031-03-02", 0, 1990, -1990, 0, 0, 0, 0, 0)]


async def test_a_period_has_bounds_and_a_reader(till: Till) -> None:
    till.api.clock.set(at(1, 12))
    admin = till.api.admin("orders:read")
    for period, status in (
        ({"from": "2031-01-01", "to": "2032-01-01"}, 200),
        ({"from": "2031-01-01", "to": "2032-01-02"}, 422),
        ({"from": "2031-01-02", "to": "2031-01-01"}, 422),
        ({"from": "1999-12-31", "to": "2000-01-01"}, 422),
        ({"from": "9999-12-31"}, 422),
        ({"to": "0001-01-01"}, 422),
        ({"from": "yesterday"}, 422),
    ):
        assert (await till.client.get(PATH, params=period, headers=admin)).status_code == status, period
    latest = (await till.client.get(PATH, headers=admin)).json()["items"]
    assert (len(latest), latest[0]["day"], latest[-1]["day"]) == (30, "2031-01-31", "2031-03-01")
    assert (await till.client.get(PATH, headers=till.api.member())).status_code == 403
    assert (await till.client.get(PATH)).status_code == 401
