"""The caller's own profile: seen, changed, and erased."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Request, Response
from pydantic import AfterValidator, Field
from sqlalchemy import Uuid, any_, bindparam, delete, literal_column, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MemberChanged, MemberErased
from kit import clock
from kit.app import Runtime, json_response, router, runtime_of, shortcut
from kit.auth import MemberDep
from kit.db import SessionDep
from kit.errors import problems
from kit.events import emit
from kit.gather import GroupRead
from kit.shapes import CleanStr, In, Instant, Out
from kit.wording import Wrong
from services.members.members import MemberNotFound, kept_of
from services.members.models import (
    Certificate,
    CheckIn,
    Identity,
    Member,
    Otp,
    PointEntry,
    SandboxSms,
)
from services.members.notice_models import Notice
from services.members.role_models import RoleChange
from services.members.tier_models import Evidence, TierChange
from services.members.tiers import Role, Tier
from services.members.tokens import end_sessions

api = router(prefix="/v1/me", tags=["members"])

ERASED_NAME = "已注销用户"

Language = Literal["zh-CN", "en"]
"""In which a member is written to."""


class ProfileOut(Out):
    """A member as they see themselves."""

    id: UUID
    nickname: str
    avatar_url: str | None
    phone_masked: str | None
    city: str | None
    bio: str | None
    tier: Tier
    roles: list[Role]
    labels: list[str]
    language: Language
    created_at: Instant


def _web_address(value: str) -> str:
    # What others' apps will load as an image: nothing that runs, nothing that is not fetched from the web.
    if not value.startswith(("https://", "http://", "/v1/")) or any(letter.isspace() for letter in value):
        raise Wrong("an avatar is a web address", "头像应为网址")
    return value


class ProfilePatch(In):
    """What a member may change; a field left out stays, null clears what may be empty."""

    # By a factory: the document must not show a default that nobody may send.
    nickname: Annotated[CleanStr, Field(min_length=1, max_length=30)] = Field(default_factory=str)
    avatar_url: (
        Annotated[
            CleanStr,
            Field(max_length=500, json_schema_extra={"pattern": r"^(https?://|/v1/)\S*$"}),
            AfterValidator(_web_address),
        ]
        | None
    ) = None
    city: Annotated[CleanStr, Field(max_length=50)] | None = None
    bio: Annotated[CleanStr, Field(max_length=500)] | None = None
    language: Language = "zh-CN"


async def masked_phones(session: AsyncSession, *member_ids: UUID) -> dict[UUID, str]:
    """The masked phone of each of these members who has one."""
    statement = select(col(Identity.member_id), col(Identity.masked)).where(
        col(Identity.member_id).in_(member_ids), col(Identity.kind) == "phone"
    )
    return {row.member_id: row.masked for row in await session.execute(statement)}


async def profile_of(session: AsyncSession, member: Member) -> ProfileOut:
    """A member's profile."""
    phones = await masked_phones(session, member.id)
    return ProfileOut.model_validate(member.model_dump() | {"phone_masked": phones.get(member.id)})


def changed(member: Member) -> MemberChanged:
    """The event that shows a member as they are now."""
    return MemberChanged(
        member_id=member.id,
        nickname=member.nickname,
        avatar_url=member.avatar_url,
        tier=member.tier,
        labels=tuple(member.labels),
        frozen=member.frozen,
    )


async def lock_member(session: AsyncSession, member_id: UUID) -> Member | None:
    """The member's row as it is now, for this transaction alone; None for nobody or somebody erased."""
    statement = select(Member).where(col(Member.id) == member_id, col(Member.erased_at).is_(None)).with_for_update()
    return (await session.execute(statement.execution_options(populate_existing=True))).scalar_one_or_none()


async def lock_kept(session: AsyncSession, member_id: UUID) -> Member | None:
    """As `lock_member`, of whom this member was merged into if they were."""
    member = await lock_member(session, member_id)
    if member is not None:
        return member
    kept_id = await kept_of(session, member_id)
    return await lock_member(session, kept_id) if kept_id != member_id else None


_PROFILES: Final = (
    select(
        *(Member.__table__.c[name] for name in ProfileOut.model_fields if name != "phone_masked"),  # type: ignore[attr-defined]  # SQLModel hides it
        col(Identity.masked).label("phone_masked"),
    )
    .outerjoin(
        Identity, (col(Identity.member_id) == col(Member.id)) & (col(Identity.kind) == literal_column("'phone'"))
    )
    .where(col(Member.id) == any_(bindparam("member_ids", type_=ARRAY(Uuid))), col(Member.erased_at).is_(None))
)


def _by_id(member_ids: Sequence[UUID], rows: Iterable[Any]) -> dict[UUID, dict[str, Any] | None]:
    found = {row["id"]: dict(row) for row in rows}
    return {member_id: found.get(member_id) for member_id in member_ids}


@asynccontextmanager
async def reader(rt: Runtime) -> AsyncIterator[None]:
    """Read profiles together for the life of the process."""
    reading = rt.state["profiles"] = GroupRead(rt.db, _PROFILES, _by_id, name="profiles")
    try:
        yield
    finally:
        await reading.close()


@api.get("", response_model=ProfileOut, responses=problems(MemberNotFound))
@shortcut
async def read_profile(caller: MemberDep, request: Request) -> Response:
    """The caller's profile."""
    profile = await runtime_of(request).state["profiles"].find(caller.id)
    if profile is None:
        raise MemberNotFound
    return json_response({name: profile[name] for name in ProfileOut.model_fields})


@api.patch("", responses=problems(MemberNotFound))
async def change_profile(patch: ProfilePatch, caller: MemberDep, session: SessionDep) -> ProfileOut:
    """Change the caller's profile; fields left out stay as they are."""
    member = await lock_member(session, caller.id)
    if member is None:
        raise MemberNotFound
    wanted: dict[str, Any] = patch.model_dump(exclude_unset=True)
    if any(getattr(member, name) != value for name, value in wanted.items()):
        for name, value in wanted.items():
            setattr(member, name, value)
        member.version += 1
        await emit(session, changed(member))
    return await profile_of(session, member)


@api.delete("", status_code=204)
async def erase_member(caller: MemberDep, session: SessionDep) -> Response:
    """Erase the caller: nothing that names them stays, the phone is free again; records of money are kept."""
    member = await lock_member(session, caller.id)
    if member is not None:
        await _erase(session, member)
    return Response(status_code=204)


# That an admin acted stays, and on whom; what was written about the member goes.
_FORGET_WORDS: Final = text("""
UPDATE audit_entry SET before = before - CAST(:words AS text[]), after = after - CAST(:words AS text[]) WHERE target = :id
""")
_WORDS: Final = ["note", "title", "reason", "labels"]


def forget_person(member: Member) -> None:
    """Take everything off a member's row that names or describes them."""
    member.nickname = ERASED_NAME
    member.avatar_url = member.city = member.bio = None
    member.roles, member.labels, member.note, member.evidence = [], [], "", {}


async def _erase(session: AsyncSession, member: Member) -> None:
    mine = select(col(Identity.digest)).where(col(Identity.member_id) == member.id)
    await session.execute(delete(Otp).where(col(Otp.digest).in_(mine)))
    await session.execute(delete(SandboxSms).where(col(SandboxSms.digest).in_(mine)))
    for table, owner in (
        (Identity, Identity.member_id),
        (Certificate, Certificate.member_id),
        (Evidence, Evidence.member_id),
        (TierChange, TierChange.member_id),
        (RoleChange, RoleChange.member_id),
        (CheckIn, CheckIn.member_id),
        (PointEntry, PointEntry.member_id),
    ):
        await session.execute(delete(table).where(col(owner) == member.id))
    told = col(Notice.member_id) == member.id
    await session.execute(delete(Notice).where(told, col(Notice.status) == "pending"))
    # That somebody was told of a charge, and when, stays as a record of money.
    await session.execute(update(Notice).where(told).values(body=""))
    await session.execute(_FORGET_WORDS, {"id": str(member.id), "words": _WORDS})
    forget_person(member)
    member.erased_at = clock.now()
    member.version += 1
    await end_sessions(session, member.id)
    await emit(session, changed(member), MemberErased(member_id=member.id))
