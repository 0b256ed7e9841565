"""What the provider holds for a period, page by page: the other side of a reconciliation."""

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from kit import clock
from services.billing.provider import Provider, ProviderRefusal

PAGE = 100


@dataclass(frozen=True)
class ListedPayment:
    """A payment that succeeded at the provider; `order_id` as its metadata names it, for whatever that is worth."""

    ref: str
    amount: int
    currency: str
    order_id: UUID | None
    made_at: datetime


@dataclass(frozen=True)
class ListedRefund:
    """A refund at the provider, of the payment `payment_ref`; `refund_id` as its metadata names it."""

    ref: str
    status: str
    amount: int
    currency: str
    payment_ref: str | None
    refund_id: UUID | None
    made_at: datetime


@dataclass(frozen=True)
class ListedDispute:
    """A dispute at the provider, of the payment `payment_ref`."""

    ref: str
    status: str
    amount: int
    currency: str
    payment_ref: str | None
    made_at: datetime


async def payments_between(provider: Provider, since: datetime, until: datetime) -> AsyncIterator[list[ListedPayment]]:
    """The payments begun in [since, until) that have succeeded, a page at a time, newest first."""
    async for page in _pages(provider, provider.client.v1.payment_intents.list_async, since, until):
        yield [_payment(provider, intent) for intent in page if intent["status"] == "succeeded"]


async def refunds_between(provider: Provider, since: datetime, until: datetime) -> AsyncIterator[list[ListedRefund]]:
    """The refunds made in [since, until), whatever became of them, a page at a time, newest first."""
    async for page in _pages(provider, provider.client.v1.refunds.list_async, since, until):
        yield [_refund(provider, refund) for refund in page]


async def disputes_between(provider: Provider, since: datetime, until: datetime) -> AsyncIterator[list[ListedDispute]]:
    """The disputes opened in [since, until), however they ended, a page at a time, newest first."""
    async for page in _pages(provider, provider.client.v1.disputes.list_async, since, until):
        yield [
            ListedDispute(
                ref=dispute["id"],
                status=dispute["status"],
                amount=dispute["amount"],
                currency=dispute["currency"].upper(),
                payment_ref=dispute.get("payment_intent"),
                made_at=_at(provider, dispute["created"]),
            )
            for dispute in page
        ]


async def moves_between(provider: Provider, since: datetime, until: datetime) -> AsyncIterator[list[dict[str, Any]]]:
    """What changed the balance at the provider in [since, until), with `made_at` and its source, a page at a time."""
    ask = provider.client.v1.balance_transactions.list_async
    async for page in _pages(provider, ask, since, until, expand=["data.source"]):
        yield [move | {"made_at": _at(provider, move["created"])} for move in page]


async def payment_at(provider: Provider, ref: str) -> ListedPayment | None:
    """One payment that has succeeded; None when the provider knows of none."""
    intents = provider.client.v1.payment_intents
    try:
        intent = (await provider.ask(intents.retrieve_async(ref))).to_dict()
    except ProviderRefusal:
        return None
    return _payment(provider, intent) if intent["status"] == "succeeded" else None


async def refund_at(provider: Provider, ref: str) -> ListedRefund | None:
    """One refund; None when the provider knows of none."""
    try:
        return _refund(provider, (await provider.ask(provider.client.v1.refunds.retrieve_async(ref))).to_dict())
    except ProviderRefusal:
        return None


async def _pages(
    provider: Provider,
    ask: Callable[[Any], Coroutine[Any, Any, Any]],
    since: datetime,
    until: datetime,
    **more: Any,
) -> AsyncIterator[list[dict[str, Any]]]:
    wanted: dict[str, Any] = {
        "created": {"gte": provider.epoch(since), "lt": provider.epoch(until)},
        "limit": PAGE,
    } | more
    while True:
        found: Any = await provider.ask(ask(wanted))
        yield [item.to_dict() for item in found.data]
        if not found.has_more or not found.data:
            return
        wanted["starting_after"] = found.data[-1].id


def _payment(provider: Provider, intent: dict[str, Any]) -> ListedPayment:
    return ListedPayment(
        ref=intent["id"],
        amount=intent["amount_received"],
        currency=intent["currency"].upper(),
        order_id=_uuid((intent.get("metadata") or {}).get("order_id")),
        made_at=_at(provider, intent["created"]),
    )


def _refund(provider: Provider, refund: dict[str, Any]) -> ListedRefund:
    return ListedRefund(
        ref=refund["id"],
        status=refund.get("status") or "pending",
        amount=refund["amount"],
        currency=refund["currency"].upper(),
        payment_ref=refund.get("payment_intent"),
        refund_id=_uuid((refund.get("metadata") or {}).get("refund_id")),
        made_at=_at(provider, refund["created"]),
    )


def _at(provider: Provider, epoch: int) -> datetime:
    now = clock.now()
    # The provider's clock may be the real one, while the product's was moved.
    return datetime.fromtimestamp(epoch, UTC) + timedelta(seconds=int(now.timestamp()) - provider.epoch(now))


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(str(value))
    except ValueError:
        return None
