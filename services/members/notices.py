"""Notices: what members are told by text message, each once, with the proof that it was sent."""

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

import structlog
from sqlalchemy import Select, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.notices import NoticeWanted
from kit import clock
from kit.app import Runtime, router
from kit.auth import MemberDep, admin_with
from kit.db import SessionDep
from kit.errors import problems
from kit.ids import new_id
from kit.page import Page, PageDep, keyset
from kit.shapes import Instant, Out
from kit.vault import open_vault
from services.members.members import MemberNotFound, kept_of
from services.members.models import Member
from services.members.notice_models import Notice
from services.members.sign_in import phone_of
from services.members.sms import Proof, SmsRefused, SmsUnavailable, sms_of

log = structlog.get_logger(__name__)
api = router(prefix="/v1/me/notices", tags=["members"])
admin_api = router(prefix="/v1/admin/members/{member_id}/notices", tags=["admin members"])
sandbox_api = router(prefix="/v1/sandbox/notices", tags=["sandbox"])

Channel = Literal["sms", "none"]
State = Literal["pending", "sent", "undeliverable", "failed"]

WAITS: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 30, 120, 360, 720, 1440))
"""How long an attempt has to answer before the next one; after the last nobody tries again."""
TOO_LATE: Final = timedelta(days=3)
"""What nobody sent for so long, as after an outage, says what is over; it is read in the app."""
AT_ONCE = 20
SANDBOX_LIMIT = 1000


class NoticeOut(Out):
    """A notice; `at` is when it was sent, or else when it was to be."""

    id: UUID
    kind: str
    channel: Channel
    at: Instant
    body: str
    status: State


class AdminNoticeOut(NoticeOut):
    """A notice with what shows that it was sent, or why it was not."""

    reference: str
    wanted_at: Instant
    sent_at: Instant | None
    attempts: int
    next_attempt_at: Instant | None
    reason: str | None
    proof: dict[str, Any] | None


class SandboxNoticeOut(Out):
    """A notice as a test looks for it."""

    kind: str
    channel: Channel
    at: Instant
    body: str
    status: State


class SandboxNotices(Out):
    """Everything that a member was told, oldest first."""

    items: list[SandboxNoticeOut]


def notice_out(notice: Notice) -> NoticeOut:
    """A notice as its member sees it."""
    return NoticeOut.model_validate(_shown(notice))


def _shown(notice: Notice) -> dict[str, Any]:
    return notice.model_dump() | {"at": notice.sent_at or notice.wanted_at}


def _of(member_id: UUID) -> Select[Any]:
    return select(Notice).where(col(Notice.member_id) == member_id)


_NEWEST = (col(Notice.wanted_at).desc(), col(Notice.id).desc())


@api.get("")
async def read_notices(caller: MemberDep, session: SessionDep, page: PageDep) -> Page[NoticeOut]:
    """What the caller was told by text message, newest first."""
    notices, next_cursor = await keyset(session, _of(caller.id), page, _NEWEST)
    return Page(items=[notice_out(notice) for notice in notices], next_cursor=next_cursor)


@admin_api.get("", responses=problems(MemberNotFound), dependencies=[admin_with("members:read")])
async def read_notices_of_member(member_id: UUID, session: SessionDep, page: PageDep) -> Page[AdminNoticeOut]:
    """What a member was told, newest first, with the proof that it was sent."""
    if await session.get(Member, member_id) is None:
        raise MemberNotFound
    notices, next_cursor = await keyset(session, _of(member_id), page, _NEWEST)
    return Page(items=[AdminNoticeOut.model_validate(_shown(notice)) for notice in notices], next_cursor=next_cursor)


@sandbox_api.get("")
async def read_sandbox_notices(member_id: UUID, session: SessionDep) -> SandboxNotices:
    """Everything sent to a member, oldest first; in the sandbox only."""
    oldest = _of(member_id).order_by(col(Notice.wanted_at), col(Notice.id)).limit(SANDBOX_LIMIT)
    found = (await session.execute(oldest)).scalars()
    return SandboxNotices(items=[SandboxNoticeOut.model_validate(_shown(notice)) for notice in found])


async def on_notice_wanted(session: AsyncSession, event: NoticeWanted) -> None:
    """Keep what a member is to be told, in their language; told twice under one reference, it is kept once.

    Nobody is told anything after they left, and of a frozen account only what concerns its money.
    """
    kept_id = await kept_of(session, event.member_id)
    # Held, so that nobody leaves in between.
    member = await session.get(Member, kept_id, with_for_update={"read": True})
    if member is None or member.erased_at is not None or (member.frozen and event.teller() != "billing"):
        return
    values = {
        "id": new_id(),
        "member_id": member.id,
        "teller": event.teller(),
        "reference": event.reference,
        "kind": event.kind,
        "channel": "sms",
        "language": member.language,
        "body": event.body_en if member.language == "en" else event.body_zh,
        "status": "pending",
        "wanted_at": event.wanted_at,
        "attempts": 0,
        "next_attempt_at": event.wanted_at,
    }
    await session.execute(insert(Notice).values(values).on_conflict_do_nothing(index_elements=["teller", "reference"]))


WAITING = "SELECT FROM notice WHERE status = 'pending' AND next_attempt_at <= $1"


async def send_notices(rt: Runtime) -> int:
    """Send what is due; how many were tried.

    An attempt is counted, and the next one set, before it is made: whoever dies in between leaves a notice that is sent
    again under the same key, which a gateway takes once.
    """
    now = clock.now()
    async with rt.db.session() as session, session.begin():
        due = (
            select(Notice)
            .where(col(Notice.status) == "pending", col(Notice.next_attempt_at) <= now)
            .order_by(col(Notice.next_attempt_at))
            .limit(AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        notices = list((await session.execute(due)).scalars())
        vault = open_vault(rt.settings.key)
        phones = {notice.member_id: await phone_of(session, vault, notice.member_id) for notice in notices}
        for notice in notices:
            notice.next_attempt_at = now + WAITS[min(notice.attempts, len(WAITS) - 1)]
            notice.attempts += 1
    await asyncio.gather(*(_send(rt, notice, phones[notice.member_id]) for notice in notices))
    return len(notices)


async def _send(rt: Runtime, notice: Notice, phone: str | None) -> None:
    """Try once, with no connection held meanwhile, and note what came of it."""
    if notice.wanted_at < clock.now() - TOO_LATE:
        await _note(rt, notice.id, status="failed", reason="too_late")
        return
    if phone is None:
        await _note(rt, notice.id, status="undeliverable", channel="none", reason="no_phone")
        return
    try:
        proof: Proof = await sms_of(rt.settings).send_text(phone, notice.body, str(notice.id))
    except SmsRefused as refusal:
        log.warning("a notice was refused", notice_id=str(notice.id), kind=notice.kind, status=refusal.status)
        await _note(rt, notice.id, status="undeliverable", reason=f"refused_{refusal.status}")
    except SmsUnavailable:
        if notice.attempts > len(WAITS):
            log.exception("a notice is given up", notice_id=str(notice.id), kind=notice.kind)
            await _note(rt, notice.id, status="failed", reason="gateway_unavailable")
    else:
        await _note(rt, notice.id, status="sent", sent_at=clock.now(), proof=proof)


async def _note(rt: Runtime, notice_id: UUID, **outcome: str | datetime | Proof) -> None:
    theirs = update(Notice).where(col(Notice.id) == notice_id, col(Notice.status) == "pending")
    async with rt.db.session() as session, session.begin():
        await session.execute(theirs.values(next_attempt_at=None, **outcome))
