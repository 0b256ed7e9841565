"""Certificates: a member shows what they are qualified for, and an admin's approval makes them an instructor."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Response
from pydantic import AfterValidator, model_validator
from sqlalchemy import Select, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit import clock
from kit.app import router
from kit.auth import Caller, MemberDep, admin_with
from kit.db import SessionDep
from kit.errors import Conflict, NotFound, problems
from kit.events import emit
from kit.http import json_response
from kit.page import Page, PageDep, keyset
from kit.shapes import In, Instant, Out, StrictIn, Text
from kit.text import instant
from kit.wording import Wrong
from services.members import audit
from services.members.members import MemberNotFound
from services.members.models import Certificate, Member
from services.members.profile import changed, lock_member
from services.members.promotions import note_tier
from services.members.tiers import Tier

api = router(prefix="/v1")

Reader = Annotated[Caller, admin_with("members:read")]
Writer = Annotated[Caller, admin_with("members:write")]
Status = Literal["pending", "approved", "rejected"]
MAX_ADDRESS = 500


class CertificateOpen(Conflict):
    """You have an application that waits for its decision; one at a time."""

    zh = "你已有一份申请正在审核，请等待结果后再提交。"


class CertificateNotFound(NotFound):
    """There is no such certificate."""

    zh = "没有这份证书申请。"


class CertificateDecided(Conflict):
    """This application was decided the other way already; the member may apply again."""

    zh = "这份申请已有相反的审核结果；会员可以重新提交申请。"


def _proof_address(value: str) -> str:
    # An admin will open it: on the web or among our own uploads, nothing that runs.
    if not value.startswith(("https://", "/v1/uploads/")) or any(letter.isspace() for letter in value):
        raise Wrong("a proof is at an https address, or an upload of yours", "证明应为 https 地址，或你上传的文件")
    return value


class CertificateIn(In):
    """What the certificate says, and where its picture or document is."""

    title: Text(1, 120)  # type: ignore[valid-type]  # Text() makes a type
    issuer: Text(0, 120) = ""  # type: ignore[valid-type]  # Text() makes a type
    proof_url: Annotated[Text(1, MAX_ADDRESS), AfterValidator(_proof_address)]  # type: ignore[valid-type]


class CertificateOut(Out):
    """An application, and what became of it; a rejection says why."""

    id: UUID
    title: str
    issuer: str
    proof_url: str
    status: Status
    reason: str | None
    created_at: Instant
    decided_at: Instant | None


class Applicant(Out):
    """Who applies."""

    id: UUID
    nickname: str
    tier: Tier


class CertificateToDecide(CertificateOut):
    """An application as an admin sees it."""

    member: Applicant
    decided_by: UUID | None


class CertificateDecision(StrictIn):
    """A decision; a rejection names its reason, which the member sees."""

    decision: Literal["approve", "reject"]
    reason: Text(0, 500) = ""  # type: ignore[valid-type]  # Text() makes a type

    @model_validator(mode="after")
    def _is_explained(self) -> Self:
        if self.decision == "reject" and not self.reason:
            raise Wrong("a rejection needs a reason", "驳回时请写明原因")
        return self


@api.post(
    "/me/certificates", tags=["certificates"], status_code=201, responses=problems(MemberNotFound, CertificateOpen)
)
async def apply_with_certificate(body: CertificateIn, caller: MemberDep, session: SessionDep) -> CertificateOut:
    """Apply to be an instructor, with a proof; one application at a time."""
    # The member's row is locked first here, in a decision and in an erasure alike: nothing is written behind an erasure.
    if await lock_member(session, caller.id) is None:
        raise MemberNotFound
    certificate = Certificate(**body.model_dump(), member_id=caller.id, created_at=clock.now())
    row = insert(Certificate).values(certificate.model_dump())
    if (await session.execute(row.on_conflict_do_nothing().returning(col(Certificate.id)))).one_or_none() is None:
        raise CertificateOpen
    return CertificateOut.model_validate(certificate)


@api.get("/me/certificates", tags=["certificates"])
async def read_own_certificates(caller: MemberDep, session: SessionDep, page: PageDep) -> Page[CertificateOut]:
    """The caller's applications, the latest first."""
    statement = select(Certificate).where(col(Certificate.member_id) == caller.id)
    order = (col(Certificate.created_at).desc(), col(Certificate.id).desc())
    found, next_cursor = await keyset(session, statement, page, order)
    return Page(items=[CertificateOut.model_validate(item) for item in found], next_cursor=next_cursor)


def _with_applicants() -> Select[Any]:
    return select(
        *Certificate.__table__.c,  # type: ignore[attr-defined]  # SQLModel hides it
        col(Member.nickname),
        col(Member.tier),
    ).join(Member, col(Member.id) == col(Certificate.member_id))


def _to_decide(row: Any) -> CertificateToDecide:
    columns = dict(zip(row._fields, row, strict=True))
    applicant = {"id": columns["member_id"], "nickname": columns["nickname"], "tier": columns["tier"]}
    return CertificateToDecide.model_validate(columns | {"member": applicant})


@api.get("/admin/certificates", tags=["admin members"], response_model=Page[CertificateToDecide])
async def list_certificates(
    _: Reader, session: SessionDep, page: PageDep, status: Status = "pending", member_id: UUID | None = None
) -> Response:
    """Applications by status, the one that has waited longest first."""
    statement = _with_applicants().where(col(Certificate.status) == status)
    if member_id is not None:
        statement = statement.where(col(Certificate.member_id) == member_id)
    order = (Certificate.__table__.c.created_at, Certificate.__table__.c.id)  # type: ignore[attr-defined]
    rows, next_cursor = await keyset(session, statement, page, order)
    return json_response({"items": [_to_decide(row) for row in rows], "next_cursor": next_cursor})


@api.post(
    "/admin/certificates/{certificate_id}/decision",
    tags=["admin members"],
    responses=problems(CertificateNotFound, CertificateDecided),
)
async def decide_certificate(
    certificate_id: UUID, body: CertificateDecision, caller: Writer, session: SessionDep
) -> CertificateToDecide:
    """Approve a certificate, which makes an instructor, or reject it; deciding the same again changes nothing."""
    owner = select(col(Certificate.member_id)).where(col(Certificate.id) == certificate_id)
    member_id = (await session.execute(owner)).scalar_one_or_none()
    member = await lock_member(session, member_id) if member_id is not None else None
    if member is None:
        raise CertificateNotFound
    certificate = await session.get(Certificate, certificate_id, with_for_update=True)
    if certificate is None:
        raise CertificateNotFound
    wanted: Status = "approved" if body.decision == "approve" else "rejected"
    if certificate.status == "pending":
        await _decide(session, caller, member, certificate, wanted, body.reason)
    elif certificate.status != wanted:
        raise CertificateDecided
    row = (await session.execute(_with_applicants().where(col(Certificate.id) == certificate_id))).one()
    return _to_decide(row)


async def _decide(
    session: AsyncSession, caller: Caller, member: Member, certificate: Certificate, status: Status, reason: str
) -> None:
    tier = member.tier
    certificate.status, certificate.reason = status, reason or None
    certificate.decided_at, certificate.decided_by = clock.now(), caller.id
    if status == "approved":
        proof = {"id": str(certificate.id), "title": certificate.title, "approved_at": instant(certificate.decided_at)}
        member.evidence = member.evidence | {"certificate": proof}
        member.tier = "instructor"
        member.version += 1
        if tier != member.tier:
            note_tier(session, member, tier, "certificate")
    await session.flush()
    audit.record(
        session,
        caller,
        f"certificate.{status}",
        member.id,
        before={"tier": tier},
        after={"tier": member.tier, "certificate": str(certificate.id), "title": certificate.title, "reason": reason},
    )
    if member.tier != tier:
        await emit(session, changed(member))
