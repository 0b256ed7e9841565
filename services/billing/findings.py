"""A finding: one thing on which provider, orders and ledger do not agree, and what repairs it."""

from dataclasses import dataclass
from uuid import UUID

from services.billing.reconciliation_models import Kind, Repair


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A difference: what should be, what is, and the repair; `source_id` is our payment or refund, if there is one."""

    kind: Kind
    repair: Repair
    order_id: UUID | None = None
    source_id: UUID | None = None
    provider_ref: str | None = None
    expected: int | str | None = None
    found: int | str | None = None
    currency: str | None = None
