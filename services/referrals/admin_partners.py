"""Partners as admins keep them: made with credentials that are shown once, changed, and shut off."""

import hashlib
import secrets
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request, Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.referrals import PartnerChanged
from kit import audit, clock
from kit.app import router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import NotFound, StaleVersion, Unprocessable, problems
from kit.events import emit
from kit.http import require_version, version_tag
from kit.page import Page, PageDep, keyset
from kit.shapes import CleanStr, Instant, Matching, Out, StrictIn
from services.referrals.newcomers import living_soon
from services.referrals.partner_models import Partner, PartnerTerms
from services.referrals.terms import HoldDays, TermsIn, TermsOut, newest_terms

routes = router(prefix="/v1/admin/partners", tags=["admin partners"])

Editor = Annotated[Caller, admin_with("partners:write")]
Name = Annotated[CleanStr, Field(min_length=1, max_length=100)]
Email = Annotated[CleanStr, Field(min_length=3, max_length=254), Matching(r"^[^@\s]+@[^@\s]+$")]


class PartnerNotFound(NotFound):
    """There is no such partner."""

    zh = "没有这位合作伙伴。"


class PartnerMemberUnknown(Unprocessable):
    """No member has this id; leave it out if the partner has no account of their own."""

    zh = "没有这个会员；合作伙伴没有自己的会员账号时请不要填写。"
    loc = ("body", "member_id")


class PartnerIn(StrictIn):
    """A new partner; nothing is paid out before `hold_days`, at least as long as a member may ask for a refund.

    `member_id` is their own account as a member: what they earn by it, or by who shares its phone, device or means of
    payment, waits for a person.
    """

    name: Name
    email: Email
    commission: TermsIn
    hold_days: HoldDays
    member_id: UUID | None = None


class PartnerPatch(StrictIn):
    """What is to change; new terms count for touches from now on. An inactive partner cannot call or bring anybody."""

    name: Name | None = None
    email: Email | None = None
    commission: TermsIn | None = None
    hold_days: HoldDays | None = None
    member_id: UUID | None = None
    active: Annotated[bool, Field(strict=True)] | None = None


class PartnerOut(Out):
    """A partner with the terms in force."""

    id: UUID
    name: str
    email: str
    client_id: str
    commission: TermsOut
    hold_days: int
    member_id: UUID | None
    active: bool
    version: int
    created_at: Instant


class NewPartner(PartnerOut):
    """A partner with the secret of their client, which is never shown again."""

    client_secret: str


async def partner_of(partner_id: UUID, session: SessionDep) -> Partner:
    """The partner, locked until the transaction ends."""
    partner = await session.get(Partner, partner_id, with_for_update=True)
    if partner is None:
        raise PartnerNotFound
    return partner


LockedPartner = Annotated[Partner, Depends(partner_of, scope="function")]


@routes.post("", status_code=201, responses=problems(PartnerMemberUnknown))
async def create_partner(_: Editor, body: PartnerIn, session: SessionDep, response: Response) -> NewPartner:
    """Make a partner; the client's secret is in this answer and nowhere else."""
    now = clock.now()
    secret = _new_secret()
    await _require_member(session, body.member_id)
    partner = Partner(
        name=body.name,
        email=body.email,
        client_id=f"hkp_{secrets.token_hex(12)}",
        secret_hash=_hash(secret),
        member_id=body.member_id,
        created_at=now,
    )
    terms = PartnerTerms(
        partner_id=partner.id, version=1, hold_days=body.hold_days, starts_at=now, **body.commission.model_dump()
    )
    session.add(partner)
    await session.flush()
    session.add(terms)
    await session.flush()
    await _tell(session, partner)
    shown = _shown(partner, terms)
    await audit.record(session, "partner.created", partner.id, after=shown.model_dump(mode="json"))
    response.headers["ETag"] = version_tag(partner.version)
    return NewPartner(**shown.model_dump(), client_secret=secret)


@routes.get("")
async def list_partners(_: Editor, session: SessionDep, page: PageDep) -> Page[PartnerOut]:
    """All partners, the newest first."""
    order = (col(Partner.created_at).desc(), col(Partner.id).desc())
    rows, next_cursor = await keyset(session, select(Partner), page, order)
    return Page(items=[_shown(row, await newest_terms(session, row.id)) for row in rows], next_cursor=next_cursor)


@routes.get("/{partner_id}", responses=problems(PartnerNotFound))
async def read_partner(_: Editor, partner_id: UUID, session: SessionDep, response: Response) -> PartnerOut:
    """One partner."""
    partner = await session.get(Partner, partner_id)
    if partner is None:
        raise PartnerNotFound
    response.headers["ETag"] = version_tag(partner.version)
    return _shown(partner, await newest_terms(session, partner.id))


@routes.patch("/{partner_id}", responses=problems(PartnerNotFound, PartnerMemberUnknown, StaleVersion))
async def change_partner(
    _: Editor, body: PartnerPatch, partner: LockedPartner, session: SessionDep, request: Request, response: Response
) -> PartnerOut:
    """Change a partner; what was earned stays as it was agreed at the touch."""
    require_version(request, partner.version)
    terms = await newest_terms(session, partner.id)
    before = _shown(partner, terms)
    partner.name = body.name or partner.name
    partner.email = body.email or partner.email
    if body.commission is not None or body.hold_days is not None:
        agreed = body.commission or TermsIn(**before.commission.model_dump())
        terms = PartnerTerms(
            partner_id=partner.id,
            version=terms.version + 1,
            hold_days=body.hold_days or terms.hold_days,
            starts_at=clock.now(),
            **agreed.model_dump(),
        )
        session.add(terms)
    if "member_id" in body.model_fields_set:
        await _require_member(session, body.member_id)
        partner.member_id = body.member_id
    if body.active is not None and body.active != partner.active:
        partner.active = body.active
        partner.client_version += 1
        await _tell(session, partner)
    partner.version += 1
    await session.flush()
    shown = _shown(partner, terms)
    await audit.record(
        session,
        "partner.changed",
        partner.id,
        before=before.model_dump(mode="json"),
        after=shown.model_dump(mode="json"),
    )
    response.headers["ETag"] = version_tag(partner.version)
    return shown


@routes.post("/{partner_id}/rotate-secret", responses=problems(PartnerNotFound))
async def rotate_partner_secret(_: Editor, partner: LockedPartner, session: SessionDep) -> NewPartner:
    """Give a partner a new secret; the old one and its tokens stop working within seconds."""
    secret = _new_secret()
    partner.secret_hash = _hash(secret)
    partner.client_version += 1
    partner.version += 1
    await session.flush()
    await _tell(session, partner)
    await audit.record(session, "partner.secret_rotated", partner.id)
    shown = _shown(partner, await newest_terms(session, partner.id))
    return NewPartner(**shown.model_dump(), client_secret=secret)


async def _require_member(session: AsyncSession, member_id: UUID | None) -> None:
    if member_id is not None and not await living_soon(session, [member_id]):
        raise PartnerMemberUnknown


def _new_secret() -> str:
    return f"hks_{secrets.token_urlsafe(32)}"


def _hash(secret: str) -> str:
    # 256 random bits need no slow hash: there is nothing to guess.
    return hashlib.sha256(secret.encode()).hexdigest()


async def _tell(session: AsyncSession, partner: Partner) -> None:
    changed = PartnerChanged(
        partner_id=partner.id,
        version=partner.client_version,
        client_id=partner.client_id,
        secret_hash=partner.secret_hash,
        active=partner.active,
    )
    await emit(session, changed)


def _shown(partner: Partner, terms: PartnerTerms) -> PartnerOut:
    return PartnerOut(
        commission=TermsOut(**terms.model_dump(include=set(TermsOut.model_fields))),
        hold_days=terms.hold_days,
        **partner.model_dump(include=set(PartnerOut.model_fields)),
    )
