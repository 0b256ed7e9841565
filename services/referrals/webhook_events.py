"""What partners are told: each type of event with its data, as it is sent, signed and documented."""

from typing import Any, ClassVar, Final, Generic, Literal, TypeVar
from uuid import UUID

from kit.shapes import Instant, Out

_MEMBER: Final = "01990d3f-6c00-7000-8000-000000000001"
_LINK: Final = "01990d3f-6c00-7000-8000-000000000002"
_ORDER: Final = "01990d3f-6c00-7000-8000-000000000003"
_SALE: Final = "01990d3f-6c00-7000-8000-000000000004"
_BROUGHT: Final = {"member_id": _MEMBER, "link_id": _LINK}
_COMMISSION: Final = {
    "commission_id": _SALE,
    "kind": "sale",
    "member_id": _MEMBER,
    "order_id": _ORDER,
    "reverses_id": None,
    "amount": 980,
    "currency": "CNY",
    "status": "pending",
    "due_at": "2026-03-15T02:00:00Z",
}


class BroughtNews(Out):
    """A member and the link that brought them."""

    member_id: UUID
    link_id: UUID


class RegisteredNews(BroughtNews):
    """Who registered."""

    registered_at: Instant


class TriedNews(BroughtNews):
    """Who finished a first lesson."""

    tried_at: Instant


class PaidNews(BroughtNews):
    """Who paid, and what, in fen after discounts."""

    order_id: UUID
    total: int
    currency: str
    paid_at: Instant


class RefundedNews(Out):
    """Whose money went back, and how much of it."""

    member_id: UUID
    order_id: UUID
    amount: int
    currency: str
    refunded_at: Instant


class CommissionNews(Out):
    """A commission as it stands; one that takes back is negative and names what it reverses."""

    commission_id: UUID
    kind: Literal["trial", "sale", "reversal"]
    member_id: UUID
    order_id: UUID | None = None
    reverses_id: UUID | None = None
    amount: int
    currency: str
    status: Literal["pending", "due", "paid", "held", "voided"]
    due_at: Instant


class PayoutNews(Out):
    """Your part of a payout run."""

    payout_id: UUID
    amount: int
    currency: str
    paid_at: Instant


class EndpointTestNews(Out):
    """Which endpoint is tested."""

    endpoint_id: UUID


Kind = TypeVar("Kind", bound=str)
Data = TypeVar("Data", bound=Out)


class Told(Out, Generic[Kind, Data]):
    """The body of a webhook: what happened, when it was told, and its data."""

    type: Kind
    timestamp: Instant
    data: Data

    words: ClassVar[str]
    example: ClassVar[dict[str, Any]]


class MemberRegisteredTold(Told[Literal["member.registered"], RegisteredNews]):
    """Somebody registered by one of your links."""

    words = "有人通过你的链接注册 / somebody registered by one of your links"
    example = _BROUGHT | {"registered_at": "2026-03-01T02:00:00Z"}


class MemberTriedTold(Told[Literal["member.tried"], TriedNews]):
    """A member you brought finished a first lesson."""

    words = "你带来的会员学完了第一节课 / a member you brought finished a first lesson"
    example = _BROUGHT | {"tried_at": "2026-03-01T02:20:00Z"}


class OrderPaidTold(Told[Literal["order.paid"], PaidNews]):
    """A member you brought paid."""

    words = "你带来的会员付款了 / a member you brought paid"
    example = _BROUGHT | {"order_id": _ORDER, "total": 4900, "currency": "CNY", "paid_at": "2026-03-01T02:30:00Z"}


class OrderRefundedTold(Told[Literal["order.refunded"], RefundedNews]):
    """Money of a member you brought went back."""

    words = "你带来的会员的付款退回了 / money of a member you brought went back"
    example: ClassVar[dict[str, Any]] = {
        "member_id": _MEMBER,
        "order_id": _ORDER,
        "amount": 4900,
        "currency": "CNY",
        "refunded_at": "2026-03-02T02:00:00Z",
    }


class CommissionCreatedTold(Told[Literal["commission.created"], CommissionNews]):
    """A commission was earned; it is due when its holding time is over."""

    words = "有一笔佣金计提 / a commission was earned"
    example = _COMMISSION


class CommissionDueTold(Told[Literal["commission.due"], CommissionNews]):
    """A commission is due; the next payout run takes it."""

    words = "一笔佣金到期应付 / a commission is due"
    example = _COMMISSION | {"status": "due"}


class CommissionVoidedTold(Told[Literal["commission.voided"], CommissionNews]):
    """A commission that was not paid yet is not owed after all."""

    words = "一笔佣金作废 / a commission is not owed after all"
    example = _COMMISSION | {"status": "voided"}


class CommissionReversedTold(Told[Literal["commission.reversed"], CommissionNews]):
    """A commission, or a part of it, is taken back by a new negative one."""

    words = "一笔佣金被追回 / a commission is taken back"
    example = _COMMISSION | {
        "commission_id": "01990d3f-6c00-7000-8000-000000000005",
        "kind": "reversal",
        "reverses_id": _SALE,
        "amount": -980,
        "status": "due",
    }


class PayoutPaidTold(Told[Literal["payout.paid"], PayoutNews]):
    """You were paid."""

    words = "佣金已付款 / you were paid"
    example: ClassVar[dict[str, Any]] = {
        "payout_id": "01990d3f-6c00-7000-8000-000000000006",
        "amount": 980,
        "currency": "CNY",
        "paid_at": "2026-04-01T02:00:00Z",
    }


class EndpointTestTold(Told[Literal["endpoint.test"], EndpointTestNews]):
    """A test that you asked for."""

    words = "测试 / a test you asked for"
    example: ClassVar[dict[str, Any]] = {"endpoint_id": "01990d3f-6c00-7000-8000-000000000007"}


TEST: Final = "endpoint.test"
TOLD: Final[dict[str, type[Told[Any, Any]]]] = {
    "member.registered": MemberRegisteredTold,
    "member.tried": MemberTriedTold,
    "order.paid": OrderPaidTold,
    "order.refunded": OrderRefundedTold,
    "commission.created": CommissionCreatedTold,
    "commission.due": CommissionDueTold,
    "commission.voided": CommissionVoidedTold,
    "commission.reversed": CommissionReversedTold,
    "payout.paid": PayoutPaidTold,
    TEST: EndpointTestTold,
}
"""What a partner may be told, by the type that its body names."""


def example_of(kind: str) -> dict[str, Any]:
    """A body of this type as an endpoint would hear it."""
    return {"type": kind, "timestamp": "2026-03-01T02:30:01Z", "data": TOLD[kind].example}
