"""A partner's own view: who they are, what they are owed, and a statement that adds up."""

from typing import Final, Literal
from uuid import UUID

from sqlalchemy import select, text
from sqlmodel import col

from kit.app import router
from kit.auth import PartnerDep
from kit.db import SessionDep
from kit.errors import problems
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from services.referrals.admin_partners import PartnerNotFound
from services.referrals.partner_models import Commission, Partner
from services.referrals.periods import BadPeriod, PeriodDep
from services.referrals.terms import TermsOut, newest_terms
from services.referrals.webhook_endpoints import stopped_endpoints

routes = router(prefix="/v1/partner", tags=["partner"])

CommissionStatus = Literal["pending", "due", "paid", "held", "voided"]


class PartnerNoticeOut(Out):
    """Something that needs the partner: a webhook endpoint that was disabled because nothing there answered well."""

    kind: Literal["webhook_endpoint_disabled"] = "webhook_endpoint_disabled"
    endpoint_id: UUID
    url: str
    reason: str
    at: Instant


class PartnerMe(Out):
    """The calling partner, with the terms that a touch would find now."""

    id: UUID
    name: str
    email: str
    client_id: str
    commission: TermsOut
    hold_days: int
    created_at: Instant
    notices: list[PartnerNoticeOut]


class CommissionOut(Out):
    """Something owed, in fen, or with a negative amount taken back."""

    id: UUID
    kind: Literal["trial", "sale", "reversal"]
    member_id: UUID
    order_id: UUID | None
    reverses_id: UUID | None
    amount: int
    currency: str
    status: CommissionStatus
    accrued_at: Instant
    due_at: Instant


class Statement(Out):
    """What moved in a period, in fen: `closing` is `opening` + `accrued` - `reversed` - `voided` - `paid`."""

    currency: str
    opening: int
    accrued: int
    reversed: int
    voided: int
    paid: int
    closing: int


_STATEMENT: Final = text("""
WITH moved AS (
    SELECT accrued_at AS at, 'accrued' AS kind, amount FROM commission WHERE partner_id = :partner AND amount > 0
    UNION ALL
    SELECT accrued_at, 'reversed', amount FROM commission WHERE partner_id = :partner AND amount < 0
    UNION ALL
    SELECT voided_at, 'voided', -amount FROM commission WHERE partner_id = :partner AND voided_at IS NOT NULL
    UNION ALL
    SELECT run.paid_at, 'paid', -payout.amount FROM payout JOIN payout_run run ON run.id = payout.run_id
    WHERE payout.partner_id = :partner AND run.paid_at IS NOT NULL
)
SELECT coalesce(sum(amount) FILTER (WHERE at < :since), 0)::bigint AS opening,
    coalesce(sum(amount) FILTER (WHERE at >= :since AND kind = 'accrued'), 0)::bigint AS accrued,
    coalesce(-sum(amount) FILTER (WHERE at >= :since AND kind = 'reversed'), 0)::bigint AS reversed,
    coalesce(-sum(amount) FILTER (WHERE at >= :since AND kind = 'voided'), 0)::bigint AS voided,
    coalesce(-sum(amount) FILTER (WHERE at >= :since AND kind = 'paid'), 0)::bigint AS paid,
    coalesce(sum(amount), 0)::bigint AS closing
FROM moved WHERE at < :until
""")


@routes.get("/me", responses=problems(PartnerNotFound))
async def read_myself(caller: PartnerDep, session: SessionDep) -> PartnerMe:
    """The calling partner."""
    partner = await session.get(Partner, caller.id)
    if partner is None:
        raise PartnerNotFound
    terms = await newest_terms(session, partner.id)
    return PartnerMe(
        commission=TermsOut(**terms.model_dump(include=set(TermsOut.model_fields))),
        hold_days=terms.hold_days,
        notices=[
            PartnerNoticeOut.model_validate(
                stopped.model_dump() | {"endpoint_id": stopped.id, "at": stopped.disabled_at}
            )
            for stopped in await stopped_endpoints(session, partner.id)
        ],
        **partner.model_dump(include=set(PartnerMe.model_fields)),
    )


@routes.get("/commissions")
async def list_commissions(
    caller: PartnerDep, session: SessionDep, page: PageDep, status: CommissionStatus | None = None
) -> Page[CommissionOut]:
    """What the caller is or was owed, the newest first."""
    found = select(Commission).where(col(Commission.partner_id) == caller.id)
    if status is not None:
        found = found.where(col(Commission.status) == status)
    order = (col(Commission.accrued_at).desc(), col(Commission.id).desc())
    rows, next_cursor = await keyset(session, found, page, order)
    return Page(items=[CommissionOut.model_validate(row) for row in rows], next_cursor=next_cursor)


@routes.get("/statement", responses=problems(BadPeriod))
async def read_statement(caller: PartnerDep, session: SessionDep, period: PeriodDep) -> Statement:
    """What was earned, taken back and paid from the first day through the last, and what is owed at its end."""
    asked = {"partner": caller.id, "since": period.since, "until": period.until}
    (row,) = await session.execute(_STATEMENT, asked)
    return Statement(currency="CNY", **row._asdict())
