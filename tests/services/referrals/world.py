"""People and campaigns that the referrals tests are about."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from contracts.billing import OrderPaid
from contracts.courses import LessonCompleted
from contracts.members import MemberRegistered
from kit import clock
from kit.ids import new_id
from tests.harness import Api


def registered(member_id: UUID | None = None, **fields: Any) -> MemberRegistered:
    """Somebody registered just now."""
    member_id = member_id or new_id()
    usual: dict[str, Any] = {
        "member_id": member_id,
        "nickname": f"烘焙{str(member_id)[-4:]}",
        "registered_at": clock.now(),
    }
    return MemberRegistered(**usual | fields)


def lesson(member_id: UUID, **fields: Any) -> LessonCompleted:
    """They finished a lesson just now."""
    usual: dict[str, Any] = {
        "member_id": member_id,
        "lesson_id": new_id(),
        "course_id": new_id(),
        "completed_at": clock.now(),
    }
    return LessonCompleted(**usual | fields)


def paid(member_id: UUID, **fields: Any) -> OrderPaid:
    """They paid for a month of the black card just now."""
    usual: dict[str, Any] = {
        "order_id": new_id(),
        "number": f"HK{new_id().hex[-8:]}",
        "member_id": member_id,
        "kind": "membership",
        "plan_code": "black-card-1m",
        "months": 1,
        "subtotal": 1990,
        "discount": 0,
        "total": 1990,
        "currency": "CNY",
        "payment_method": "card",
        "paid_at": clock.now(),
    }
    return OrderPaid(**usual | fields)


async def member(api: Api, **fields: Any) -> UUID:
    """A member whose registration referrals has heard of."""
    event = registered(**fields)
    await api.handle(event)
    return event.member_id


async def code_of(api: Api, member_id: UUID) -> str:
    """Their invitation code."""
    answer = await api.client.get("/v1/me/invite", headers=api.member(member_id))
    assert answer.status_code == 200, answer.text
    code: str = answer.json()["code"]
    return code


async def invited(api: Api, inviter: UUID, **fields: Any) -> UUID:
    """A newcomer who registered with the inviter's code."""
    return await member(api, invite_code=await code_of(api, inviter), **fields)


async def coupons(api: Api, member_id: UUID, **params: str) -> list[dict[str, Any]]:
    """The coupons a member sees."""
    answer = await api.client.get("/v1/me/coupons", headers=api.member(member_id), params=params)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def campaign(api: Api, **fields: Any) -> dict[str, Any]:
    """A campaign that runs now, of ten coupons of 300 fen for everyone."""
    now = clock.now()
    usual: dict[str, Any] = {
        "title": "周年庆",
        "kind": "amount",
        "value": 300,
        "min_amount": 0,
        "plan_codes": [],
        "total": 10,
        "per_member": 1,
        "starts_at": (now - timedelta(minutes=1)).isoformat(),
        "ends_at": (now + timedelta(days=7)).isoformat(),
        "valid_days": 30,
        "audience": "everyone",
    }
    answer = await api.client.post("/v1/admin/coupon-campaigns", headers=api.admin(), json=usual | fields)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def claim(api: Api, campaign_id: str, member_id: UUID, **headers: str) -> Any:
    """The answer to a member's claim."""
    return await api.client.post(f"/v1/coupon-campaigns/{campaign_id}/claims", headers=api.member(member_id) | headers)
