"""The member directory: admins find members, see them whole, and change tier, roles, labels, note and freezing."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Request, Response
from pydantic import AfterValidator, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from kit.app import router
from kit.auth import Caller, admin_with
from kit.db import SessionDep
from kit.errors import StaleVersion, problems
from kit.events import emit
from kit.http import require_version, version_tag
from kit.page import Page, PageDep, keyset
from kit.shapes import CleanStr, StrictIn
from kit.vault import Vault, open_vault
from services.members import audit
from services.members.finding import MemberFilterDep
from services.members.members import MemberNotFound
from services.members.membership import MembershipOut, memberships
from services.members.models import Identity, Member
from services.members.points import balances
from services.members.profile import ProfileOut, changed, lock_member
from services.members.promotions import note_tier
from services.members.revocations import tell_frozen
from services.members.roles import APPOINTED, SILENT, note_roles
from services.members.settings import SettingsDep
from services.members.tiers import Role, Tier

api = router(prefix="/v1/admin/members", tags=["admin members"])

READERS = [admin_with("members:read")]
Writer = Annotated[Caller, admin_with("members:write")]
Label = Annotated[CleanStr, Field(min_length=1, max_length=40)]


class AdminMemberOut(ProfileOut):
    """A member as an admin sees them."""

    phone: str | None
    membership: MembershipOut
    points: int
    frozen: bool
    note: str
    evidence: dict[str, Any]


def _distinct(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


class AdminMemberPatch(StrictIn):
    """What an admin may change; a field left out stays as it is."""

    tier: Tier = "potential"
    roles: Annotated[list[Role], Field(max_length=20), AfterValidator(_distinct)] = Field(default_factory=list)
    labels: Annotated[list[Label], Field(max_length=50), AfterValidator(_distinct)] = Field(default_factory=list)
    frozen: Annotated[bool, Field(strict=True)] = False
    note: Annotated[CleanStr, Field(max_length=2000)] = ""


async def shown(session: AsyncSession, vault: Vault, members: list[Member]) -> list[AdminMemberOut]:
    """These members whole, in their order."""
    ids = [member.id for member in members]
    of_these = select(Identity).where(col(Identity.member_id).in_(ids), col(Identity.kind) == "phone")
    phones = {identity.member_id: identity for identity in (await session.execute(of_these)).scalars()}
    held = await memberships(session, *ids)
    points = await balances(session, *ids)
    whole = []
    for member in members:
        phone = phones.get(member.id)
        more = {
            "phone": vault.unseal(phone.sealed) if phone else None,
            "phone_masked": phone.masked if phone else None,
            "membership": held[member.id],
            "points": points[member.id],
        }
        whole.append(AdminMemberOut.model_validate(member.model_dump() | more))
    return whole


@api.get("", dependencies=READERS)
async def read_members(
    session: SessionDep, settings: SettingsDep, page: PageDep, wanted: MemberFilterDep
) -> Page[AdminMemberOut]:
    """Members, newest first, that meet every filter given."""
    vault = open_vault(settings.key)
    statement = await wanted.apply(session, vault, select(Member))
    order = (col(Member.created_at).desc(), col(Member.id).desc())
    members, next_cursor = await keyset(session, statement, page, order)
    return Page(items=await shown(session, vault, members), next_cursor=next_cursor)


@api.get("/{member_id}", responses=problems(MemberNotFound), dependencies=READERS)
async def read_member(
    member_id: UUID, session: SessionDep, settings: SettingsDep, response: Response
) -> AdminMemberOut:
    """One member, whole; an erased one without what named them."""
    member = await session.get(Member, member_id)
    if member is None:
        raise MemberNotFound
    response.headers["ETag"] = version_tag(member.version)
    return (await shown(session, open_vault(settings.key), [member]))[0]


@api.patch("/{member_id}", responses=problems(MemberNotFound, StaleVersion))
async def change_member(
    member_id: UUID,
    patch: AdminMemberPatch,
    caller: Writer,
    session: SessionDep,
    settings: SettingsDep,
    request: Request,
    response: Response,
) -> AdminMemberOut:
    """Change a member's tier, roles, labels, note or freezing; a frozen account is refused everywhere within seconds."""
    member = await lock_member(session, member_id)
    if member is None:
        raise MemberNotFound
    require_version(request, member.version)
    wanted = {name: getattr(patch, name) for name in patch.model_fields_set}
    before = {name: getattr(member, name) for name in wanted}
    if "roles" in wanted and (set(before["roles"]) ^ set(wanted["roles"])) not in ({APPOINTED}, {APPOINTED, SILENT}):
        # From now on they are the admin's, also when they are the same; appointing an organizer says nothing of the rest.
        member.roles_by_admin = True
    after = {name: value for name, value in wanted.items() if value != before[name]}
    if after:
        for name, value in after.items():
            setattr(member, name, value)
        if "tier" in after:
            note_tier(session, member, before["tier"], "admin")
        if "roles" in after:
            note_roles(session, member, before["roles"], "admin")
        member.version += 1
        await session.flush()
        audit.record(
            session,
            caller,
            "member.changed",
            member_id,
            before={name: before[name] for name in after},
            after=after,
        )
        if "frozen" in after:
            tell_frozen(session, member_id, frozen=member.frozen)
        if after.keys() & {"tier", "labels", "frozen"}:
            await emit(session, changed(member))
    response.headers["ETag"] = version_tag(member.version)
    return (await shown(session, open_vault(settings.key), [member]))[0]
