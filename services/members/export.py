"""The export: everything this service holds about the caller, in one document."""

from typing import Any

from fastapi import Response
from sqlalchemy import select
from sqlmodel import col

from kit import clock
from kit.app import router
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import problems
from kit.http import json_response
from kit.shapes import Instant, Out
from services.members.check_ins import CheckInOut
from services.members.members import MemberNotFound
from services.members.membership import MembershipOut, SegmentOut, memberships, segment_out
from services.members.models import CheckIn, LoginSession, Member, PointEntry, Segment
from services.members.points import PointOut
from services.members.profile import ProfileOut, profile_of
from services.members.settings import SettingsDep
from services.members.sign_in import phone_of
from services.members.vault import open_vault

api = router(prefix="/v1/me/export", tags=["members"])


class DeviceOut(Out):
    """A session, live or over."""

    device: str
    created_at: Instant
    last_seen_at: Instant
    revoked_at: Instant | None


class ExportOut(Out):
    """Everything held about a member here."""

    exported_at: Instant
    profile: ProfileOut
    phone: str | None
    evidence: dict[str, Any]
    membership: MembershipOut
    segments: list[SegmentOut]
    check_ins: list[CheckInOut]
    points: list[PointOut]
    sessions: list[DeviceOut]


@api.get("", response_model=ExportOut, responses=problems(MemberNotFound))
async def export_member(caller: MemberDep, session: SessionDep, settings: SettingsDep) -> Response:
    """Everything held about the caller, as one JSON document."""
    member = await session.get(Member, caller.id)
    if member is None or member.erased_at is not None:
        raise MemberNotFound
    now = clock.now()
    segments = select(Segment).where(col(Segment.member_id) == caller.id).order_by(col(Segment.added_at))
    days = select(CheckIn).where(col(CheckIn.member_id) == caller.id).order_by(col(CheckIn.day))
    points = select(PointEntry).where(col(PointEntry.member_id) == caller.id).order_by(col(PointEntry.at))
    logins = (
        select(LoginSession).where(col(LoginSession.subject_id) == caller.id).order_by(col(LoginSession.created_at))
    )
    document = ExportOut(
        exported_at=now,
        profile=await profile_of(session, member),
        phone=await phone_of(session, open_vault(settings.key), caller.id),
        evidence=member.evidence,
        membership=(await memberships(session, caller.id))[caller.id],
        segments=[segment_out(row, now) for row in (await session.execute(segments)).scalars()],
        check_ins=[CheckInOut.model_validate(row) for row in (await session.execute(days)).scalars()],
        points=[PointOut.model_validate(row) for row in (await session.execute(points)).scalars()],
        sessions=[DeviceOut.model_validate(row) for row in (await session.execute(logins)).scalars()],
    )
    headers = {"Content-Disposition": 'attachment; filename="heika-export.json"'}
    return json_response(document, headers=headers)
