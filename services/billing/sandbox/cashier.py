"""The cashier: the page a checkout address leads to in the sandbox, and what its buttons do."""

import re
import secrets
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Annotated

from fastapi import Body, Depends
from fastapi.responses import HTMLResponse
from pydantic import Field

from kit import clock
from kit.app import router as new_router
from kit.db import SessionDep
from kit.errors import problems
from kit.shapes import Out, StrictIn, Text
from kit.text import instant
from services.billing.sandbox.models import SandboxSession
from services.billing.sandbox.payments import SessionClosed, SessionNotFound, fail, pay
from services.billing.sandbox.shapes import session_json

router = new_router(prefix="/v1/sandbox/checkout/{session_id}", tags=["sandbox"])

PAGE = Path(__file__).with_name("cashier.html").read_text("utf-8")
METHODS = {"card": "银行卡 Card", "alipay": "支付宝 Alipay", "wechat_pay": "微信支付 WeChat Pay"}
STATES = {
    "open": "待支付 Waiting for payment",
    "paid": "已支付 Paid",
    "saved": "银行卡已保存 Card saved",
    "processing": "等待到账 Waiting for the money",
    "failed": "未到账 Not paid",
    "expired": "已过期 Expired",
}
SYMBOLS = {"cny": "¥", "usd": "$", "eur": "€"}
LATER = '    <button id="later" type="button">稍后到账（10 分钟）· Pay later (10 minutes)</button>'
KEPT = '\n  <p class="note" id="kept">银行卡会被保存，用于自动续费。<br>Your card is saved and charged again for renewals.</p>'
MAX_DELAY = timedelta(days=30)


class PayIn(StrictIn):
    """How to pay: nothing for an ordinary payment.

    `duplicate` pays a second time beside the first and sends every webhook twice; `fingerprint` names the means of
    payment; `settles_in` (ISO 8601 duration) lets the money arrive that much later by the product's clock.
    """

    duplicate: Annotated[bool, Field(strict=True)] = False
    fingerprint: Text(1, 64) | None = None  # type: ignore[valid-type]
    settles_in: Annotated[timedelta, Field(ge=timedelta(0), le=MAX_DELAY)] | None = None


class SessionPaymentOut(Out):
    """The session after the button: `complete` once paid, `open` when another try is possible."""

    session_id: str
    status: str
    payment_status: str
    payment_intent: str | None


async def _session_key(session_id: str) -> str:
    if not re.fullmatch(r"cs_test_[0-9a-f]{32,128}", session_id):
        raise SessionNotFound
    return session_id


SessionKey = Annotated[str, Depends(_session_key, scope="function")]


@router.get("", response_class=HTMLResponse, responses=problems(SessionNotFound))
async def cashier_page(key: SessionKey, session: SessionDep) -> HTMLResponse:
    """The cashier page: what is bought, for how much, until when, and the buttons to pay or to cancel."""
    visit = await session.get(SandboxSession, key)
    if visit is None:
        raise SessionNotFound
    nonce = secrets.token_urlsafe(16)
    headers = {
        "Content-Security-Policy": (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Cache-Control": "private, no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(_render(visit, nonce), headers=headers)


@router.post("/pay", responses=problems(SessionNotFound, SessionClosed))
async def pay_session(
    key: SessionKey, session: SessionDep, wanted: Annotated[PayIn, Body(default_factory=PayIn)]
) -> SessionPaymentOut:
    """Pay; answers after the money has moved, while the signed webhook is on its way."""
    visit = await pay(
        session,
        key,
        duplicate=wanted.duplicate,
        fingerprint=wanted.fingerprint,
        settles_in=wanted.settles_in or None,
    )
    return _answer(visit)


@router.post("/fail", responses=problems(SessionNotFound, SessionClosed))
async def fail_session(key: SessionKey, session: SessionDep) -> SessionPaymentOut:
    """Decline the payment; the session stays open for another try, unless its money was only on its way."""
    return _answer(await fail(session, key))


def _answer(visit: SandboxSession) -> SessionPaymentOut:
    return SessionPaymentOut(
        session_id=visit.id,
        status=visit.status,
        payment_status=visit.payment_status,
        payment_intent=visit.intent_id,
    )


def money(amount: int, currency: str) -> str:
    """An amount as people read it, such as ¥44.00."""
    return f"{SYMBOLS.get(currency, currency.upper() + ' ')}{amount // 100:,}.{amount % 100:02}"


def _state(visit: SandboxSession) -> str:
    if visit.payment_status == "paid":
        return "paid"
    if visit.mode == "setup" and visit.status == "complete":
        return "saved"
    if visit.status == "complete":
        return "processing" if visit.settles_at else "failed"
    return str(session_json(visit)["status"])


def _render(visit: SandboxSession, nonce: str) -> str:
    state = _state(visit)
    words = {
        "nonce": nonce,
        "method": escape(" / ".join(METHODS[method] for method in visit.payment_method_types)),
        "expires": f"{visit.expires_at.astimezone(clock.ZONE):%Y-%m-%d %H:%M} ({escape(str(clock.ZONE))})",
        "expires_iso": instant(visit.expires_at),
        "state": state,
        "status": STATES[state],
        "hidden": "" if state == "open" else "hidden",
        "success_url": escape(visit.success_url or ""),
        "cancel_url": escape(visit.cancel_url or ""),
    }
    words |= _card_to_keep(state) if visit.mode == "setup" else _bill(visit)
    return re.sub(r"\{\{(\w+)\}\}", lambda word: words[word[1]], PAGE)


def _card_to_keep(state: str) -> dict[str, str]:
    return {
        "title": "保存银行卡，用于自动续费 Save a card for renewals",
        "bill": "",
        "pay": "保存银行卡 · Save card",
        "later": "",
    } | ({"status": "待保存 Waiting for a card"} if state == "open" else {})


def _bill(visit: SandboxSession) -> dict[str, str]:
    amount = escape(money(visit.amount_total, visit.currency))
    items = "".join(
        f"<li><span>{escape(item['name'])} × {item['quantity']}</span>"
        f"<span>{money(item['amount'], visit.currency)}</span></li>"
        for item in visit.line_items
    )
    return {
        "title": escape("、".join(item["name"] for item in visit.line_items)),
        "bill": f'  <p class="amount">{amount}</p>\n  <ul aria-label="商品 Items">{items}</ul>{_kept(visit)}',
        "pay": f"支付 {amount} · Pay",
        "later": LATER,
    }


def _kept(visit: SandboxSession) -> str:
    # As Stripe's page does: who pays must know that the card will be charged again.
    return KEPT if "setup_future_usage" in visit.payment_intent_data else ""
