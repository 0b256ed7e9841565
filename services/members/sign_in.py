"""Signing in by phone: the right code logs a member in, and registers who is new."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Annotated
from uuid import UUID

from fastapi import Request, Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contracts.members import MemberRegistered
from kit import clock
from kit.app import router
from kit.auth import AccountFrozen
from kit.db import SessionDep
from kit.errors import TooManyRequests, problems
from kit.events import emit
from kit.http import client_address
from kit.limits import limit_address
from kit.shapes import CleanStr, In
from kit.vault import Vault, open_vault
from services.members.models import Identity, Member
from services.members.otp import CodeExpired, InvalidCode, use_code
from services.members.phones import Phone, mask_phone
from services.members.profile import ProfileOut, profile_of
from services.members.settings import SettingsDep
from services.members.signing import Signer, SignerDep
from services.members.tokens import TokenPair, device_of, start_session

api = router(prefix="/v1/auth/otp", tags=["sign-in"], idempotent=False)

FAILURES = 20
FAILURE_WINDOW_S = 600
Word = Annotated[CleanStr, Field(min_length=1, max_length=128)]


@dataclass(frozen=True, slots=True)
class Arrival:
    """How somebody new came here."""

    invite_code: str | None
    channel: str | None
    visitor_id: str | None
    address_prefix: str | None


class ArrivalIn(In):
    """How somebody new came here."""

    invite_code: Word | None = None
    channel: Word | None = None
    visitor_id: Word | None = None

    def by(self, vault: Vault, request: Request) -> Arrival:
        """The arrival, with where the request came from."""
        prefix = address_prefix(vault, client_address(request))
        return Arrival(self.invite_code, self.channel, self.visitor_id, prefix)


class VerifyIn(ArrivalIn):
    """The code that came to the phone, and, for somebody new, how they came here."""

    phone: Phone
    code: Annotated[str, Field(max_length=32)]


class SignedIn(TokenPair):
    """Tokens, who they are for, and whether this was the registration."""

    member: ProfileOut
    created: bool


def address_prefix(vault: Vault, address: str) -> str | None:
    """A keyed hash of the /24 (IPv6: /48) an address lies in; None for what is no address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    network = ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False)  # noqa: PLR2004 - IP's own number
    return vault.digest("address", str(network))


async def member_of(session: AsyncSession, kind: str, digest: str) -> Member | None:
    """The member who is recognised by this."""
    theirs = select(col(Identity.member_id)).where(col(Identity.kind) == kind, col(Identity.digest) == digest)
    return (await session.execute(select(Member).where(col(Member.id).in_(theirs)))).scalar_one_or_none()


def phone_identity(vault: Vault, member_id: UUID, phone: str) -> Identity:
    """The row by which a phone leads to its member."""
    return Identity(
        member_id=member_id,
        kind="phone",
        digest=vault.digest("phone", phone),
        masked=mask_phone(phone),
        sealed=vault.seal(phone),
        created_at=clock.now(),
    )


async def claim(session: AsyncSession, identity: Identity) -> bool:
    """Write an identity unless somebody has it, or the member has another of its kind; whether it was written."""
    row = insert(Identity).values(identity.model_dump()).on_conflict_do_nothing().returning(col(Identity.id))
    return (await session.execute(row)).one_or_none() is not None


async def register(
    session: AsyncSession, vault: Vault, phone: str, digest: str, arrival: Arrival
) -> tuple[Member, bool]:
    """The member of this phone, made if there is none, and whether it was made here; two at once make one."""
    return await enrol(session, "phone", digest, arrival, lambda member_id: phone_identity(vault, member_id, phone))


async def enrol(
    session: AsyncSession, kind: str, digest: str, arrival: Arrival, identity_of: Callable[[UUID], Identity]
) -> tuple[Member, bool]:
    """The member with this identity, made if there is none, and whether it was made here; two at once make one."""
    held = await member_of(session, kind, digest)
    if held is not None:
        return held, False
    now = clock.now()
    member = Member(nickname=f"烘焙友{secrets.randbelow(10**6):06}", created_at=now)
    session.add(member)
    await session.flush()
    if not await claim(session, identity_of(member.id)):
        await session.delete(member)
        await session.flush()
        return await _claimed_meanwhile(session, kind, digest), False
    await emit(
        session,
        MemberRegistered(
            member_id=member.id,
            nickname=member.nickname,
            registered_at=now,
            invite_code=arrival.invite_code,
            channel=arrival.channel,
            visitor_id=arrival.visitor_id,
            phone_hash=digest if kind == "phone" else None,
            address_prefix=arrival.address_prefix,
        ),
    )
    return member, True


async def _claimed_meanwhile(session: AsyncSession, kind: str, digest: str) -> Member:
    held = await member_of(session, kind, digest)
    if held is None:
        # Registered and erased again between two statements of ours.
        raise InvalidCode
    return held


async def signed_in(
    session: AsyncSession, signer: Signer, member: Member, request: Request, *, created: bool
) -> SignedIn:
    """Log a member in on the device of this request; AccountFrozen for a frozen one."""
    if member.frozen:
        await session.commit()
        raise AccountFrozen
    pair = await start_session(session, signer, member.id, "member", device=device_of(request))
    return SignedIn(**pair.model_dump(), member=await profile_of(session, member), created=created)


@api.post("/verify", responses=problems(InvalidCode, CodeExpired, AccountFrozen, TooManyRequests))
async def verify_code(
    body: VerifyIn, request: Request, response: Response, session: SessionDep, signer: SignerDep, settings: SettingsDep
) -> SignedIn:
    """Log in with the code that was sent; a phone nobody has registers its owner."""
    response.headers["Cache-Control"] = "no-store"
    failure = await limit_address(request, "failed", times=FAILURES, seconds=FAILURE_WINDOW_S)
    vault = open_vault(settings.key)
    digest = vault.digest("phone", body.phone)
    await use_code(session, vault, digest, body.code)
    await failure.give_back()
    member, created = await register(session, vault, body.phone, digest, body.by(vault, request))
    return await signed_in(session, signer, member, request, created=created)


async def phone_of(session: AsyncSession, vault: Vault, member_id: UUID) -> str | None:
    """The readable phone of a member, for those who may see it."""
    mine = select(col(Identity.sealed)).where(col(Identity.member_id) == member_id, col(Identity.kind) == "phone")
    sealed = (await session.execute(mine)).scalar_one_or_none()
    return vault.unseal(sealed) if sealed is not None else None
