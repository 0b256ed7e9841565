"""Erasure: what billing holds of a member beside the money records, which the law makes it keep."""

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.erasing import ErasedMemberColumns, Erasing
from contracts.members import MemberErased
from kit import clock
from services.billing.invoice_models import InvoiceRequest
from services.billing.models import MemberTime, Model, Order, Payment, Refund


class ErasedMember(ErasedMemberColumns, Model, table=True):
    """Who left."""

    __tablename__ = "erased_member"


_OF_THEIR_ORDERS = 'order_id IN (SELECT id FROM "order" WHERE member_id = :member_id)'
PERSONAL = {
    "payment": _OF_THEIR_ORDERS,
    "refund": _OF_THEIR_ORDERS,
    "dispute": _OF_THEIR_ORDERS,
    "invoice_request": _OF_THEIR_ORDERS,
    "renewal_attempt": _OF_THEIR_ORDERS,
}
"""Whose the rows are that name an order and no member, for the export."""


async def on_member_erased(session: AsyncSession, event: MemberErased) -> None:
    """Forget where orders came from, what paid them, why money went back, what the time was; amounts and numbers stay.

    Only rows that still say something are written: this follows each event about who left, some of which hold locks that
    payments and refunds take after their order's.
    """
    orders = select(col(Order.id)).where(col(Order.member_id) == event.member_id)
    await session.execute(
        update(Order)
        .where(
            col(Order.member_id) == event.member_id,
            func.coalesce(col(Order.address_prefix), col(Order.success_url), col(Order.cancel_url)).is_not(None),
        )
        .values(address_prefix=None, success_url=None, cancel_url=None)
    )
    paid_with = update(Payment).where(col(Payment.order_id).in_(orders), col(Payment.fingerprint).is_not(None))
    await session.execute(paid_with.values(fingerprint=None))
    why = update(Refund).where(col(Refund.order_id).in_(orders), col(Refund.reason) != "")
    await session.execute(why.values(reason=""))
    theirs = update(InvoiceRequest).where(col(InvoiceRequest.order_id).in_(orders))
    # An issued invoice is a tax record with its title; a wish for one ends with the account.
    issued = col(InvoiceRequest.state) == "issued"
    ended = {"state": "rejected", "reason": "", "resolved_at": clock.now()}
    await session.execute(theirs.where(col(InvoiceRequest.state) == "requested").values(ended))
    await session.execute(theirs.where(~issued).values(title="", tax_id=None, email="", reason=""))
    await session.execute(theirs.where(issued).values(email=""))
    # Its version stays, so that an older picture which comes late is still known for one.
    theirs_now = update(MemberTime).where(col(MemberTime.member_id) == event.member_id)
    await session.execute(theirs_now.values(segments=[]))
    # Who stands at the cashier's pays once: nobody could cancel what is renewed for a member who left.
    begun = update(Order).where(
        col(Order.member_id) == event.member_id, col(Order.status) == "pending", col(Order.auto_renew)
    )
    await session.execute(begun.values(auto_renew=False))


erasing = Erasing()
