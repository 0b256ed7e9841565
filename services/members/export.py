"""The export: what members holds about somebody, readable; the other services tell their rows."""

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import Runtime
from kit.shapes import Instant, Out
from kit.vault import open_vault
from services.members.certificates import CertificateOut
from services.members.check_ins import CheckInOut
from services.members.ledger_models import Renewal, Segment
from services.members.members import MemberNotFound
from services.members.membership import MembershipOut, SegmentOut, memberships, segment_out
from services.members.models import (
    Certificate,
    CheckIn,
    Identity,
    LoginSession,
    Member,
    PointEntry,
)
from services.members.notice_models import Notice
from services.members.notices import NoticeOut, notice_out
from services.members.points import PointOut
from services.members.profile import ProfileOut, profile_of
from services.members.promotions import TierChangeOut
from services.members.role_models import RoleChange
from services.members.roles import RoleChangeOut
from services.members.sign_in import phone_of
from services.members.tier_models import Evidence, TierChange


class DeviceOut(Out):
    """A session, live or over."""

    device: str
    created_at: Instant
    last_seen_at: Instant
    revoked_at: Instant | None


class IdentityOut(Out):
    """A way the member is recognised."""

    kind: str
    masked: str
    created_at: Instant


class DeedOut(Out):
    """One thing that speaks for the member's tier or roles; `reference` is the lesson, work, comment or question."""

    kind: str
    reference: UUID
    lesson_id: UUID | None
    at: Instant


class RenewalOut(Out):
    """How an auto-renewal stands."""

    status: str
    renewing: bool


class ExportOut(Out):
    """Everything held about a member here."""

    exported_at: Instant
    profile: ProfileOut
    phone: str | None
    identities: list[IdentityOut]
    evidence: dict[str, Any]
    deeds: list[DeedOut]
    tier_changes: list[TierChangeOut]
    role_changes: list[RoleChangeOut]
    note: str
    membership: MembershipOut
    segments: list[SegmentOut]
    renewals: list[RenewalOut]
    check_ins: list[CheckInOut]
    points: list[PointOut]
    certificates: list[CertificateOut]
    notices: list[NoticeOut]
    sessions: list[DeviceOut]


async def export_member(rt: Runtime, session: AsyncSession, member_id: UUID) -> dict[str, Any]:
    """Everything held about a member here; MemberNotFound for nobody and for an erased one."""
    member = await session.get(Member, member_id)
    if member is None or member.erased_at is not None:
        raise MemberNotFound
    now = clock.now()

    async def all_of(table: Any, owner: Any, order: Any) -> Any:
        return (await session.execute(select(table).where(col(owner) == member_id).order_by(col(order)))).scalars()

    segments = await all_of(Segment, Segment.member_id, Segment.added_at)
    renewals = await all_of(Renewal, Renewal.member_id, Renewal.subscription_id)
    days = await all_of(CheckIn, CheckIn.member_id, CheckIn.day)
    points = await all_of(PointEntry, PointEntry.member_id, PointEntry.at)
    logins = await all_of(LoginSession, LoginSession.subject_id, LoginSession.created_at)
    certificates = await all_of(Certificate, Certificate.member_id, Certificate.created_at)
    deeds = await all_of(Evidence, Evidence.member_id, Evidence.at)
    tiers = await all_of(TierChange, TierChange.member_id, TierChange.at)
    roles = await all_of(RoleChange, RoleChange.member_id, RoleChange.at)
    notices = await all_of(Notice, Notice.member_id, Notice.wanted_at)
    identities = await all_of(Identity, Identity.member_id, Identity.created_at)
    document = ExportOut(
        exported_at=now,
        profile=await profile_of(session, member),
        phone=await phone_of(session, open_vault(rt.settings.key), member_id),
        identities=[IdentityOut.model_validate(row) for row in identities],
        evidence=member.evidence,
        deeds=[DeedOut.model_validate(row) for row in deeds],
        tier_changes=[TierChangeOut.model_validate(row) for row in tiers],
        role_changes=[RoleChangeOut.model_validate(row) for row in roles],
        note=member.note,
        membership=(await memberships(session, member_id))[member_id],
        segments=[segment_out(row, now) for row in segments],
        renewals=[RenewalOut.model_validate(row) for row in renewals],
        check_ins=[CheckInOut.model_validate(row) for row in days],
        points=[PointOut.model_validate(row) for row in points],
        certificates=[CertificateOut.model_validate(row) for row in certificates],
        notices=[notice_out(row) for row in notices],
        sessions=[DeviceOut.model_validate(row) for row in logins],
    )
    return document.model_dump(mode="json")
