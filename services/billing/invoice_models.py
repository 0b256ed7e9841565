"""The table of invoice requests."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, String, text
from sqlmodel import Field

from kit.db import instant
from kit.ids import new_id
from services.billing.registry import Model

InvoiceState = Literal["requested", "issued", "rejected"]


class InvoiceRequest(Model, table=True):
    """A buyer's wish for a tax invoice (发票) over what they paid and did not get back.

    `amount` follows refunds until the invoice is issued; money that goes back afterwards needs a red-letter one.
    """

    __tablename__ = "invoice_request"
    __table_args__ = (
        CheckConstraint("amount >= 0", name="amount"),
        CheckConstraint("state <> 'issued' OR number IS NOT NULL", name="number"),
        CheckConstraint("red_letter_number IS NULL OR NOT needs_red_letter", name="red_letter"),
        # One live invoice an order; a rejected request, or an invoice that a red-letter one took back, makes room.
        Index(
            "invoice_request_live",
            "order_id",
            unique=True,
            postgresql_where=text("state = 'requested' OR (state = 'issued' AND red_letter_number IS NULL)"),
        ),
        Index("invoice_request_recent", "created_at", "id"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    order_id: UUID = Field(foreign_key="order.id", index=True)
    state: InvoiceState = Field(sa_type=String)
    title: str
    tax_id: str | None = None
    email: str
    amount: int = Field(sa_column=Column(BigInteger, nullable=False))
    currency: str
    number: str | None = Field(default=None, unique=True)
    reason: str | None = None
    needs_red_letter: bool = False
    red_letter_number: str | None = Field(default=None, unique=True)
    created_at: datetime = Field(sa_column=instant())
    resolved_at: datetime | None = Field(default=None, sa_column=instant(nullable=True))
    resolved_by: UUID | None = None
