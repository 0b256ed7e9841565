"""Ordering: a member buys a plan or a course; one open order for it, the coupon held with it, and a checkout to pay it."""

import secrets
from datetime import timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Request, Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import RuntimeDep
from kit.app import router as new_router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import Conflict, Unprocessable, problems
from kit.http import client_address
from kit.idempotency import KeyDep
from kit.ids import new_id
from kit.shapes import CleanStr
from services.billing import checkout, coupons, gifts, items, payments
from services.billing.codes import ALPHABET
from services.billing.gifts import gifts_of
from services.billing.items import CourseForOneself, ItemIn
from services.billing.models import Order, PaymentMethod
from services.billing.orders import OrderOut, shown
from services.billing.provider import PaymentProviderUnavailable, provider_of
from services.billing.quotes import CouponToken, Quote, quote
from services.billing.settings import Settings

router = new_router(prefix="/v1/orders", tags=["orders"])

ATTEMPTS = 5

Url = Annotated[CleanStr, Field(max_length=2000)]


class UrlNotAllowed(Unprocessable):
    """Checkout returns only to this community's own pages; use an address on one of its origins."""

    zh = "支付后只能返回本社区的页面，请使用允许的网址。"


class AutoRenewNeedsCard(Unprocessable):
    """Auto-renewal works with cards only; pay by card, or buy once without it."""

    zh = "自动续费仅支持银行卡，请改用银行卡，或不勾选自动续费。"
    loc = ("body", "payment_method")


class AutoRenewNeedsPayment(Unprocessable):
    """The coupon leaves nothing to pay, so there would be no card to renew with; order without auto_renew."""

    zh = "优惠后无需付款，没有可用于续费的银行卡，请不勾选自动续费后购买。"


class GiftNotRenewed(Unprocessable):
    """A gift is bought once; order it without auto_renew."""

    zh = "赠送为一次性购买，请不勾选自动续费。"


class OrderBusy(Conflict):
    """Another request for the same is under way; ask again in a moment."""

    zh = "同一商品的另一个请求正在处理，请稍后重试。"
    action = "retry_after"


class OrderIn(ItemIn):
    """What is bought, and how it is paid."""

    coupon_token: CouponToken | None = None
    payment_method: PaymentMethod
    auto_renew: Annotated[bool, Field(strict=True)] = False
    success_url: Url | None = None
    cancel_url: Url | None = None


@router.post(
    "",
    status_code=201,
    responses=problems(
        *items.REFUSALS,
        UrlNotAllowed,
        AutoRenewNeedsCard,
        AutoRenewNeedsPayment,
        GiftNotRenewed,
        OrderBusy,
        checkout.PaymentMethodRefused,
        PaymentProviderUnavailable,
        *coupons.REFUSALS,
    )
    | {200: {"model": OrderOut, "description": "The open order that this member has for this plan or course already."}},
)
async def place_order(
    body: OrderIn,
    caller: MemberDep,
    _: KeyDep,
    session: SessionDep,
    rt: RuntimeDep,
    request: Request,
    response: Response,
) -> OrderOut:
    """Order a plan, for yourself or as a gift, or a course; a second open order of the same answers 200 with the first."""
    _check_offered(body, rt.settings)
    order, created = await _take_order(session, rt.settings, body, caller.id, request)
    if order.status == "pending" and order.session_id is None:
        await checkout.ensure_session(session, provider_of(rt), order)
    if not created:
        response.status_code = 200
    return shown(order, await gifts_of(session, rt.settings, [order]))


def _check_offered(body: OrderIn, settings: Settings) -> None:
    if body.course_id is not None and body.auto_renew:
        raise CourseForOneself
    if body.auto_renew and body.payment_method != "card":
        raise AutoRenewNeedsCard
    if body.auto_renew and body.gift:
        raise GiftNotRenewed
    for url in (body.success_url, body.cancel_url):
        if url is not None and not is_allowed_url(url, settings):
            raise UrlNotAllowed


def is_allowed_url(url: str, settings: Settings) -> bool:
    """Whether checkout may send a payer to this address: an origin of our own, without tricks."""
    # Browsers drop tabs and line ends and read a backslash as a slash, so that what is checked would not be what is opened.
    if any(letter <= " " or letter in "\\\x7f" for letter in url):
        return False
    try:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}".lower()
    except ValueError:
        return False
    allowed = {item.rstrip("/").lower() for item in (*settings.allowed_origins, settings.public_url)}
    return parts.scheme in ("http", "https") and origin in allowed


async def _take_order(
    session: AsyncSession, settings: Settings, body: OrderIn, member_id: UUID, request: Request
) -> tuple[Order, bool]:
    """The open order for this item: a new one, or the one there is; whether this request's key made it."""
    key = request.headers.get("idempotency-key")
    kind = "gift" if body.gift else "course" if body.course_id else "membership"
    same = col(Order.course_id) == body.course_id if body.course_id else col(Order.plan_code) == body.plan_code
    for _ in range(ATTEMPTS):
        held = await session.scalar(
            select(Order).where(
                col(Order.member_id) == member_id,
                same,
                col(Order.kind) == kind,
                col(Order.status) == "pending",
                col(Order.renews_from).is_(None),
            )
        )
        if held is not None and held.expires_at > clock.now():
            return held, held.request_key == key
        if held is not None:
            # Its time is over and no job has come by yet. The session it may have is ended by the next check.
            await payments.close(session, held.id, "expired")
        priced = await quote(session, settings, member_id=member_id, wanted=body, coupon_token=body.coupon_token)
        if body.auto_renew and priced.total == 0:
            raise AutoRenewNeedsPayment
        order = await _insert(session, settings, body, member_id, kind, priced, request)
        if order is not None:
            if kind == "gift":
                await gifts.prepare(session, settings, order)
            if priced.coupon is not None:
                await coupons.reserve(session, priced.coupon.id, order)
            if order.total == 0:
                await payments.settle_free(session, order)
            return order, True
    raise OrderBusy(retry_after=1)


async def _insert(
    session: AsyncSession,
    settings: Settings,
    body: OrderIn,
    member_id: UUID,
    kind: str,
    priced: Quote,
    request: Request,
) -> Order | None:
    """A new order; None when the member has an open one for this item, or the number is taken."""
    now = clock.now()
    expires_at = now + timedelta(minutes=settings.order_minutes)
    row = {
        "id": new_id(),
        "number": new_number(),
        "member_id": member_id,
        "kind": kind,
        "status": "pending",
        "plan_code": priced.item.plan_code,
        "plan_version": priced.item.plan_version,
        "course_id": priced.item.course_id,
        "title": priced.item.title,
        "months": priced.item.months,
        "benefits": list(priced.item.benefits),
        "subtotal": priced.subtotal,
        "discount": priced.discount,
        "total": priced.total,
        "refunded_amount": 0,
        "currency": priced.item.currency,
        "coupon_id": priced.coupon.id if priced.coupon else None,
        "coupon_ends_at": priced.coupon.ends_at if priced.coupon else None,
        "payment_method": body.payment_method,
        "auto_renew": body.auto_renew,
        "success_url": body.success_url,
        "cancel_url": body.cancel_url,
        "request_key": request.headers.get("idempotency-key"),
        "address_prefix": address_prefix(client_address(request)),
        "session_open": False,
        "created_at": now,
        "expires_at": expires_at,
        "next_check_at": expires_at,
    }
    return await session.scalar(upsert(Order).values(row).on_conflict_do_nothing().returning(Order))


def new_number() -> str:
    """An order's number, which may be taken: the day, and six letters that nobody misreads."""
    return f"HK{clock.today():%Y%m%d}-{''.join(secrets.choice(ALPHABET) for _ in range(6))}"


def address_prefix(address: str) -> str | None:
    """The network an address lies in, /24 or for IPv6 /48; None for what is no address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return str(ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False))  # noqa: PLR2004 - IP versions
